//! What was found, in counts and money, and line by line. No phone number is in any of it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::{CaseKind, Currency, Money, OrderId, State, Timestamp};
use crate::ports::ListedState;

use super::Task;
use super::attempts::{Attempts, Slot};
use super::compare::{Class, Here};
use super::gather::in_clear;
use super::judge::{Found, Judged};

/// What was read of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Listing {
    /// Its lines.
    pub lines: u64,
    /// Lines about a reference that had one already.
    pub repeated: u64,
    /// Lines of other days, and of no attempt of this one.
    pub of_other_days: u64,
    /// Lines of the last minute about references that our books do not have yet: not judged.
    pub fresh: u64,
}

/// What became of the case of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseState {
    /// Opened now.
    Opened,
    /// Opened before, by whomever.
    Known,
    /// It would be opened, were this no dry run.
    Due,
    /// It would be opened, and there are too many to believe the list.
    Withheld,
    /// The order was moved meanwhile, and it applies no more.
    Overtaken,
    /// The row is held by somebody, or cannot take it.
    NotWritten,
}

impl CaseState {
    /// Its one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Known => "known",
            Self::Due => "due",
            Self::Withheld => "withheld",
            Self::Overtaken => "overtaken",
            Self::NotWritten => "not_written",
        }
    }
}

/// How many cases stand so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "as CaseState has them")]
pub struct CaseCounts {
    pub opened: u64,
    pub known: u64,
    pub due: u64,
    pub withheld: u64,
    pub overtaken: u64,
    pub not_written: u64,
}

/// Money of one currency, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Of which.
    pub currency: Currency,
    /// What was ordered from us.
    pub ours_minor: i128,
    /// What the list says, where it tells amounts.
    pub theirs_minor: i128,
}

/// How many there are, and of how much money.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Counted {
    /// So many.
    pub count: u64,
    /// A line for each currency.
    pub money: Vec<Sum>,
}

/// What both sides say alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Matched {
    /// Delivered.
    pub delivered: Counted,
    /// Not delivered; the list says so, or has it not.
    pub not_delivered: Counted,
    /// Open on both sides.
    pub open: Counted,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whose day.
    pub provider: String,
    /// Which.
    pub day: String,
    /// In which zone.
    pub timezone: String,
    /// Its first moment, and the first one after it.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
    /// Nothing was written.
    pub dry_run: bool,
    /// The list.
    pub listing: Listing,
    /// Attempts that were claimed on the day, or are listed there.
    pub attempts: u64,
    /// The same on both sides.
    pub matched: Matched,
    /// Delivered or open here, and not on the list.
    pub missing_there: Counted,
    /// On the list, and nothing is known of it here.
    pub missing_here: Counted,
    /// Another end on each side.
    pub state_differs: Counted,
    /// Another amount.
    pub amount_differs: Counted,
    /// So near to an edge of the day that they may be on the neighbour's list: not judged.
    pub at_the_edge: u64,
    /// Rows that are gone or cannot be read: not judged.
    pub unreadable: u64,
    /// Of nobody, and the provider delivered nothing.
    pub idle_strangers: u64,
    /// The cases.
    pub cases: CaseCounts,
    /// Whether all that was judged matches, and all was judged that can be.
    pub clean: bool,
}

/// One line about one reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is.
    pub class: Class,
    /// Whose; nothing, where it is nobody's.
    pub order_id: Option<OrderId>,
    /// Which attempt.
    pub attempt: Option<u16>,
    /// The reference at the provider.
    pub client_ref: String,
    /// By our books.
    pub here: Option<Here>,
    /// The order's state.
    pub order_state: Option<State>,
    /// By the list.
    pub there: Option<ListedWord>,
    /// What was ordered.
    pub ours_minor: Option<i64>,
    /// Of which currency.
    pub ours_currency: Option<Currency>,
    /// What the list says.
    pub theirs_minor: Option<i64>,
    /// Of which currency.
    pub theirs_currency: Option<Currency>,
    /// The first claim of the day.
    pub claimed_at: Option<Timestamp>,
    /// The line of the list.
    pub line: Option<u64>,
    /// What a person looks at.
    pub case: Option<CaseKind>,
    /// What became of that.
    pub case_state: Option<CaseState>,
}

/// A state of the list, as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedWord(pub ListedState);

impl Serialize for ListedWord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

#[derive(Debug, Default)]
struct Tally {
    count: u64,
    money: BTreeMap<Currency, (i128, i128)>,
}

impl Tally {
    fn add(&mut self, slot: &Slot) {
        self.count += 1;
        if let Some(Money { minor, currency }) = slot.amount() {
            self.money.entry(currency).or_default().0 += i128::from(minor);
        }
        if let Some(Money { minor, currency }) = slot.listed_amount() {
            self.money.entry(currency).or_default().1 += i128::from(minor);
        }
    }

    fn counted(self) -> Counted {
        let sum = |(currency, (ours_minor, theirs_minor))| Sum { currency, ours_minor, theirs_minor };
        Counted { count: self.count, money: self.money.into_iter().map(sum).collect() }
    }
}

pub(super) fn report(
    task: &Task<'_>,
    listing: Listing,
    attempts: &Attempts,
    judged: &Judged,
    cases: CaseCounts,
) -> Report {
    let mut by_class: BTreeMap<Class, Tally> = BTreeMap::new();
    let (mut delivered, mut not_delivered, mut open) = (Tally::default(), Tally::default(), Tally::default());
    let mut all = 0;
    for (found, slot) in walk(attempts, &judged.found) {
        all += 1;
        match (found, slot.here) {
            (Some(found), _) => by_class.entry(found.class).or_default().add(slot),
            (None, Some(Here::Delivered)) => delivered.add(slot),
            (None, Some(Here::Open)) => open.add(slot),
            (None, Some(Here::NotDelivered)) => not_delivered.add(slot),
            // Not judged: counted where that was decided.
            (None, None) => {}
        }
    }
    let mut class = |class| by_class.remove(&class).unwrap_or_default().counted();
    let day = &task.day;
    Report {
        provider: task.provider.to_string(),
        day: day.date.to_string(),
        timezone: day.offset.to_string(),
        from: day.from,
        until: day.until,
        dry_run: task.dry_run,
        listing,
        attempts: all,
        matched: Matched {
            delivered: delivered.counted(),
            not_delivered: not_delivered.counted(),
            open: open.counted(),
        },
        missing_there: class(Class::MissingThere),
        missing_here: class(Class::MissingHere),
        state_differs: class(Class::StateDiffers),
        amount_differs: class(Class::AmountDiffers),
        at_the_edge: judged.at_the_edge,
        unreadable: judged.unreadable,
        idle_strangers: judged.idle_strangers,
        cases,
        clean: judged.found.is_empty() && judged.unreadable == 0,
    }
}

/// Everything of the day, with the difference where it is one. Differences were found in the table's order, but for
/// those of nobody, which follow the batch that they are in.
fn walk<'a>(attempts: &'a Attempts, found: &'a [Found]) -> impl Iterator<Item = (Option<&'a Found>, &'a Slot)> {
    let mut by_slot: Vec<&Found> = found.iter().collect();
    by_slot.sort_by_key(|found| found.slot);
    let mut next = by_slot.into_iter().peekable();
    attempts.slots().filter(|(_, slot)| slot.counts()).map(move |(at, slot)| {
        while next.next_if(|found| found.slot < at).is_some() {}
        (next.next_if(|found| found.slot == at), slot)
    })
}

pub(super) fn entries<'a>(
    attempts: &'a Attempts,
    found: &'a [Found],
    matched: bool,
) -> impl Iterator<Item = Entry> + 'a {
    walk(attempts, found).filter_map(move |(found, slot)| {
        let class = match (found, slot.here) {
            (Some(found), _) => found.class,
            (None, Some(_)) if matched => Class::Matched,
            (None, _) => return None,
        };
        let (ours, theirs) = (slot.amount(), slot.listed_amount());
        let is_known = slot.attempt > 0;
        Some(Entry {
            class,
            order_id: attempts.order_id(slot),
            attempt: is_known.then_some(slot.attempt),
            client_ref: if is_known { attempts.client_ref(slot) } else { masked(attempts.client_ref(slot)) },
            here: slot.here,
            order_state: slot.order_state,
            there: slot.there.map(ListedWord),
            ours_minor: ours.map(|money| money.minor),
            ours_currency: ours.map(|money| money.currency),
            theirs_minor: theirs.map(|money| money.minor),
            theirs_currency: theirs.map(|money| money.currency),
            claimed_at: slot.claimed_at(),
            line: slot.place(),
            case: found.and_then(|found| found.case).map(|(kind, _)| kind),
            case_state: found.and_then(|found| found.case).map(|(_, state)| state),
        })
    })
}

/// A reference that is none of ours may be anything, a phone number from the wrong column too: what looks like one is
/// not shown.
fn masked(reference: String) -> String {
    let is_mark = |c: char| matches!(c, '+' | ' ' | '-' | '.' | '(' | ')');
    let digits = reference.bytes().filter(u8::is_ascii_digit).count();
    let is_ours_in_form = in_clear(&reference).is_some_and(|(_, attempt)| attempt < 100);
    let is_number = digits >= 7 && !is_ours_in_form && reference.chars().all(|c| c.is_ascii_digit() || is_mark(c));
    if !is_number {
        return reference;
    }
    let shown: String = reference.chars().skip(reference.chars().count().saturating_sub(2)).collect();
    format!("(digits)…{shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_that_may_be_a_phone_number_is_not_shown() {
        for number in ["13800000042", "+8613800000042", "+86 138-0000-0042", "138-0000-0042", "8613800000042"] {
            let shown = masked(number.to_owned());
            assert!(!shown.contains("0000") && shown.ends_with("42"), "{shown}");
        }
        for reference in ["order-7-1", "20260101-000017-1", "R0123456789ABCDEF", "17"] {
            assert_eq!(masked(reference.to_owned()), reference);
        }
    }
}
