//! What the fields of a line are called, and what they mean. No message quotes a field that may hold a phone number.

use std::collections::BTreeMap;

use chrono::{FixedOffset, NaiveDateTime, TimeZone as _};

use super::Terms;
use crate::domain::{Currency, Money, Timestamp};
use crate::ports::ListedState;
use crate::providers::ProviderKind;
use crate::providers::decimal::from_decimal;

/// Of a word that nobody knows, this much is shown.
const SHOWN_MAX: usize = 40;

/// What a file can tell of a recharge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// Our reference. Required.
    ClientRef,
    /// What became of it. Required.
    State,
    /// The amount in whole minor units.
    AmountMinor,
    /// The amount as a decimal of major units.
    Amount,
    /// Its currency.
    Currency,
    /// When it is filed.
    At,
    /// The provider's own reference.
    ProviderRef,
}

impl Column {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::ClientRef, Self::State, Self::AmountMinor, Self::Amount, Self::Currency, Self::At, Self::ProviderRef];

    /// Its own name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientRef => "client_ref",
            Self::State => "state",
            Self::AmountMinor => "amount_minor",
            Self::Amount => "amount",
            Self::Currency => "currency",
            Self::At => "at",
            Self::ProviderRef => "provider_ref",
        }
    }

    /// Reads its own name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.as_str() == text)
    }
}

/// What the columns are called in a file, where they are not called by their own names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns(pub BTreeMap<Column, String>);

impl Columns {
    pub(super) fn name(&self, column: Column) -> &str {
        self.0.get(&column).map_or(column.as_str(), String::as_str)
    }
}

/// What the states are called in a file, beside their own words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct States(pub BTreeMap<String, ListedState>);

impl States {
    /// The words of a provider's API, which its files may have as well.
    pub fn of(kind: ProviderKind) -> Self {
        use ListedState::{Delivered, Failed, InProgress, Reversed, Unknown};
        let words: &[(&str, ListedState)] = match kind {
            ProviderKind::Simulator => &[],
            ProviderKind::Dtone => &[
                ("CREATED", InProgress),
                ("CONFIRMED", InProgress),
                ("SUBMITTED", InProgress),
                ("COMPLETED", Delivered),
                ("REVERSED", Reversed),
                ("REJECTED", Failed),
                ("DECLINED", Failed),
                ("CANCELLED", Failed),
            ],
            ProviderKind::Mf178 => &[
                ("1", InProgress),
                ("11", InProgress),
                ("12", InProgress),
                ("2", InProgress),
                ("3", Delivered),
                ("4", Failed),
                ("6", Failed),
                ("41", Unknown),
            ],
            ProviderKind::Reloadly => &[
                ("PROCESSING", InProgress),
                ("PENDING", InProgress),
                ("SUCCESSFUL", Delivered),
                ("FAILED", Failed),
                ("REFUNDED", Failed),
            ],
        };
        Self(words.iter().map(|(word, state)| ((*word).to_owned(), *state)).collect())
    }

    fn read(&self, word: &str) -> Option<ListedState> {
        self.0.get(word).copied().or_else(|| ListedState::parse(&word.to_ascii_lowercase()))
    }
}

/// Where the columns of a CSV file stand.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) delimiter: char,
    width: usize,
    places: Vec<(Column, usize)>,
}

impl Header {
    pub(super) fn of(record: &[String], delimiter: char, terms: &Terms) -> Result<Self, String> {
        let mut places = Vec::new();
        for column in Column::ALL {
            let name = terms.columns.name(column);
            let mut found = record.iter().enumerate().filter(|(_, field)| field.trim() == name).map(|(at, _)| at);
            let place = found.next();
            if found.next().is_some() {
                return Err(format!("the header has the column {name:?} twice"));
            }
            let is_mapped = terms.columns.0.contains_key(&column);
            match place {
                Some(place) => places.push((column, place)),
                None if is_mapped || matches!(column, Column::ClientRef | Column::State) => {
                    let names: Vec<String> = record.iter().map(|field| shown(field.trim())).collect();
                    return Err(format!(
                        "the header has no column {name:?}, only {}: name the right one with --column {}=NAME",
                        names.join(", "),
                        column.as_str()
                    ));
                }
                None => {}
            }
        }
        Ok(Self { delimiter, width: record.len(), places })
    }

    pub(super) fn fields(&self, record: &[String]) -> Result<Fields, String> {
        if record.len() != self.width {
            return Err(format!(
                "it has {} fields, and the header {}: the line is cut off, or a field with the delimiter in it is not in quotes",
                record.len(),
                self.width
            ));
        }
        let mut fields = Fields::default();
        for (column, place) in &self.places {
            fields.set(*column, record.get(*place).cloned().unwrap_or_default());
        }
        Ok(fields)
    }
}

/// The fields of a line.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<Column, String>);

/// What they mean.
pub(super) struct Read {
    pub(super) client_ref: String,
    pub(super) state: ListedState,
    pub(super) amount: Option<Money>,
    pub(super) at: Option<Timestamp>,
    pub(super) provider_ref: Option<String>,
}

impl Fields {
    pub(super) fn set(&mut self, column: Column, value: String) {
        self.0.insert(column, value);
    }

    /// A field that says something.
    fn get(&self, column: Column) -> Option<&str> {
        self.0.get(&column).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    pub(super) fn read(&self, terms: &Terms) -> Result<Read, String> {
        let name = |column| terms.columns.name(column);
        let provider_ref = self.get(Column::ProviderRef).map(str::to_owned);
        // What was made by hand in a portal has no reference of ours.
        let made_by_hand = provider_ref.as_ref().map(|reference| format!("#{reference}"));
        let client_ref = self.get(Column::ClientRef).map(str::to_owned).or(made_by_hand);
        let client_ref = client_ref.ok_or_else(|| format!("it has no {}", name(Column::ClientRef)))?;
        let word = self.get(Column::State).ok_or_else(|| format!("it has no {}", name(Column::State)))?;
        let state = terms.states.read(word).ok_or_else(|| {
            let known = ListedState::ALL.map(ListedState::as_str).join(", ");
            let word = shown(word);
            format!("{} is {word}, which nobody knows: it is one of {known}, or say what it means with --state {word}=STATE", name(Column::State))
        })?;
        let at = self.get(Column::At).map(|text| {
            moment(text, terms.offset).ok_or_else(|| {
                format!("{} is no time such as 2026-01-31T12:00:00+08:00, or 2026-01-31 12:00:00", name(Column::At))
            })
        });
        Ok(Read { client_ref, state, amount: self.amount(terms)?, at: at.transpose()?, provider_ref })
    }

    fn amount(&self, terms: &Terms) -> Result<Option<Money>, String> {
        let name = |column| terms.columns.name(column);
        let (minor, major) = (self.get(Column::AmountMinor), self.get(Column::Amount));
        if minor.is_none() && major.is_none() {
            return Ok(None);
        }
        let currency = match self.get(Column::Currency) {
            Some(code) => Currency::parse(code).map_err(|error| format!("{}: {error}", name(Column::Currency)))?,
            None => terms.currency.ok_or_else(|| {
                format!("it has an amount and no {}: add the column, or give --currency", name(Column::Currency))
            })?,
        };
        let not_negative = |money: &Money| money.minor >= 0;
        let minor = minor.map(|text| {
            text.parse().ok().map(|minor| Money { minor, currency }).filter(not_negative).ok_or_else(|| {
                format!(
                    "{} is no whole number of minor units: decimals of major units belong into the column {}",
                    name(Column::AmountMinor),
                    Column::Amount.as_str()
                )
            })
        });
        let major = major.map(|text| {
            from_decimal(text, currency)
                .filter(not_negative)
                .ok_or_else(|| format!("{} is no plain decimal of {currency}, such as 4.75", name(Column::Amount)))
        });
        match (minor.transpose()?, major.transpose()?) {
            (Some(minor), Some(major)) if minor != major => {
                Err(format!("{} and {} differ", name(Column::AmountMinor), name(Column::Amount)))
            }
            (minor, major) => Ok(minor.or(major)),
        }
    }
}

/// With its own zone, or as a clock of the day's zone shows it.
fn moment(text: &str, offset: FixedOffset) -> Option<Timestamp> {
    if let Ok(at) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    let local = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .into_iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())?;
    offset.from_local_datetime(&local).single().map(|at| at.to_utc())
}

/// A name or a word as it may be shown: a long row of digits may be somebody's number.
fn shown(text: &str) -> String {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits > 6 {
        return "(digits)".to_owned();
    }
    text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}
