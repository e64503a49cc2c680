//! Every attempt of a day, small: what both sides say of each reference. About 110 bytes an attempt, and
//! 160 while it grows (`docs/RECONCILE.md` has the measurement).

use std::collections::HashMap;
use std::hash::BuildHasher;

use crate::domain::{Currency, Money, OrderId, State, Timestamp};
use crate::ports::{Listed, ListedState};

use super::compare::Here;

/// More attempts than this are no day of one provider; about 8 GiB.
const ATTEMPTS_MAX: usize = 50_000_000;

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the day has more than {ATTEMPTS_MAX} attempts and references: this is more than fits into memory")]
pub struct Full;

/// Two lines of a list that cannot both be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clash {
    /// Where the first stands.
    pub(super) first: u64,
    pub(super) why: &'static str,
}

/// What became of a line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    First,
    /// It was there already.
    Repeated,
}

/// An attempt, or a reference of the list that is nobody's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Where the order's id begins, and behind it the reference where it is not the readable form.
    text_at: u32,
    order_len: u8,
    ref_len: u8,
    /// 0: of no order that we know.
    pub(super) attempt: u16,
    /// The first claim, in seconds since 1970; 0 where it was claimed on another day.
    claimed_s: u32,
    /// A claim is of the day.
    pub(super) is_of_day: bool,
    /// Every claim is so far inside the day that it must be filed there.
    pub(super) is_inside: bool,
    /// By the list's own time, or because it tells none.
    pub(super) is_listed_of_day: bool,
    /// What the list says.
    pub(super) there: Option<ListedState>,
    /// What our books say; not before they were read.
    pub(super) here: Option<Here>,
    pub(super) order_state: Option<State>,
    listed_currency: Option<Currency>,
    currency: Currency,
    listed_minor: i64,
    minor: i64,
    place: u32,
    /// Of the provider's own reference; 0 for none.
    provider_ref: u32,
}

impl Slot {
    /// What the list says was delivered.
    pub(super) fn listed_amount(&self) -> Option<Money> {
        self.listed_currency.map(|currency| Money { minor: self.listed_minor, currency })
    }

    /// What was ordered.
    pub(super) fn amount(&self) -> Option<Money> {
        self.here.map(|_| Money { minor: self.minor, currency: self.currency })
    }

    /// When it was first claimed, where that was of the day.
    pub(super) fn claimed_at(&self) -> Option<Timestamp> {
        let at = Timestamp::from_timestamp(i64::from(self.claimed_s), 0);
        at.filter(|_| self.claimed_s > 0)
    }

    /// The line of the list.
    pub(super) fn place(&self) -> Option<u64> {
        self.there.map(|_| u64::from(self.place))
    }

    /// Whether it is a difference of this day where it is one.
    pub(super) fn counts(&self) -> bool {
        self.is_of_day || (self.there.is_some() && self.is_listed_of_day)
    }

    pub(super) fn set_here(&mut self, here: Here, state: State, amount: Money) {
        (self.here, self.order_state) = (Some(here), Some(state));
        (self.minor, self.currency) = (amount.minor, amount.currency);
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    slots: Vec<Slot>,
    texts: String,
    /// By the reference's hash; what meets another's place is put behind it.
    by_ref: HashMap<u64, u32, foldhash::fast::RandomState>,
    hasher: foldhash::fast::FixedState,
    /// A reference in the making.
    clear: String,
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Slot> {
        self.slots.get(at)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Slot> {
        self.slots.get_mut(at)
    }

    /// The order's id; nothing, where it is nobody's.
    pub(super) fn order_id(&self, slot: &Slot) -> Option<OrderId> {
        OrderId::parse(self.text(slot.text_at, 0, slot.order_len)).ok()
    }

    pub(super) fn client_ref(&self, slot: &Slot) -> String {
        match slot.ref_len {
            0 => format!("{}-{}", self.text(slot.text_at, 0, slot.order_len), slot.attempt),
            length => self.text(slot.text_at, slot.order_len, length).to_owned(),
        }
    }

    fn text(&self, at: u32, skip: u8, length: u8) -> &str {
        let from = at as usize + usize::from(skip);
        self.texts.get(from..from + usize::from(length)).unwrap_or_default()
    }

    /// Notes a claim. `of_day` and `inside` say how its moment lies to the day.
    pub(super) fn claim(
        &mut self,
        (order_id, attempt, client_ref): (&str, u16, Option<&str>),
        at: Timestamp,
        (of_day, inside): (bool, bool),
    ) -> Result<(), Full> {
        let mut clear = std::mem::take(&mut self.clear);
        let reference = readable(&mut clear, order_id, attempt, client_ref);
        let found = self.find(reference);
        let noted = match found.and_then(|found| self.slots.get_mut(found)) {
            Some(slot) => {
                slot.is_of_day |= of_day;
                slot.is_inside &= inside;
                Ok(())
            }
            None => self.add(reference, order_id, attempt, client_ref.is_some()).map(|slot| {
                slot.claimed_s = u32::try_from(at.timestamp()).unwrap_or(0);
                (slot.is_of_day, slot.is_inside) = (of_day, inside);
            }),
        };
        self.clear = clear;
        noted
    }

    /// Gives a reference that was nobody's to the order whose it is.
    pub(super) fn adopt(&mut self, at: usize, order_id: &str, attempt: u16) -> Result<(), Full> {
        let Some(slot) = self.slots.get(at) else { return Ok(()) };
        let reference = self.client_ref(slot);
        let text_at = self.put(order_id, &reference)?;
        if let Some(slot) = self.slots.get_mut(at) {
            slot.text_at = text_at;
            slot.order_len = length(order_id);
            slot.ref_len = length(&reference);
            slot.attempt = attempt;
        }
        Ok(())
    }

    /// Where a reference stands.
    pub(super) fn find(&self, reference: &str) -> Option<usize> {
        let mut key = self.hasher.hash_one(reference);
        while let Some(index) = self.by_ref.get(&key) {
            let index = *index as usize;
            if self.slots.get(index).is_some_and(|slot| self.is_of(slot, reference)) {
                return Some(index);
            }
            key = key.wrapping_add(1);
        }
        None
    }

    /// Where the reference of a claim stands.
    pub(super) fn find_claim(&mut self, order_id: &str, attempt: u16, client_ref: Option<&str>) -> Option<usize> {
        let mut clear = std::mem::take(&mut self.clear);
        let found = self.find(readable(&mut clear, order_id, attempt, client_ref));
        self.clear = clear;
        found
    }

    fn is_of(&self, slot: &Slot, reference: &str) -> bool {
        if slot.ref_len > 0 {
            return self.text(slot.text_at, slot.order_len, slot.ref_len) == reference;
        }
        let order_id = self.text(slot.text_at, 0, slot.order_len);
        let rest = reference.strip_prefix(order_id).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|digits| !digits.starts_with(['+', '0']) && digits.parse() == Ok(slot.attempt))
    }

    /// A reference of the list that is nobody's so far.
    pub(super) fn add_stranger(&mut self, reference: &str) -> Result<usize, Full> {
        self.add(reference, "", 0, true)?;
        Ok(self.slots.len() - 1)
    }

    fn add(&mut self, reference: &str, order_id: &str, attempt: u16, keeps_ref: bool) -> Result<&mut Slot, Full> {
        let text_at = self.put(order_id, if keeps_ref { reference } else { "" })?;
        let index = u32::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < ATTEMPTS_MAX).ok_or(Full)?;
        let mut key = self.hasher.hash_one(reference);
        while self.by_ref.contains_key(&key) {
            key = key.wrapping_add(1);
        }
        self.by_ref.insert(key, index);
        self.slots.push(Slot {
            text_at,
            order_len: length(order_id),
            ref_len: if keeps_ref { length(reference) } else { 0 },
            attempt,
            claimed_s: 0,
            is_of_day: false,
            is_inside: false,
            is_listed_of_day: false,
            there: None,
            here: None,
            order_state: None,
            listed_currency: None,
            currency: Currency::CNY,
            listed_minor: 0,
            minor: 0,
            place: 0,
            provider_ref: 0,
        });
        self.slots.last_mut().ok_or(Full)
    }

    fn put(&mut self, order_id: &str, reference: &str) -> Result<u32, Full> {
        let at = u32::try_from(self.texts.len()).map_err(|_| Full)?;
        self.texts.push_str(order_id);
        self.texts.push_str(reference);
        Ok(at)
    }

    /// Notes what the list says of a reference. It may say it again, and a recharge may have moved on between two
    /// pages: the later state stands, wherever its line is.
    pub(super) fn note(&mut self, at: usize, listed: &Listed, of_day: bool) -> Result<Noted, Clash> {
        let provider_ref = listed.provider_ref.as_ref().map_or(0, |text| self.short_hash(text));
        let Some(slot) = self.slots.get_mut(at) else { return Ok(Noted::Repeated) };
        slot.is_listed_of_day |= of_day;
        let Some(before) = slot.there else {
            slot.set_there(listed, provider_ref);
            return Ok(Noted::First);
        };
        let clash = |why| Err(Clash { first: u64::from(slot.place), why });
        let is_another = slot.provider_ref != 0 && provider_ref != 0 && slot.provider_ref != provider_ref;
        if is_another && before == ListedState::Delivered && listed.state == ListedState::Delivered {
            return clash("it was delivered under another reference of the provider: twice");
        }
        let (age, new_age) = (age(before), age(listed.state));
        if age == new_age && before != listed.state && age > 0 {
            return clash("it stands there with another state");
        }
        let (known, told) = (slot.listed_amount(), listed.amount);
        if before == listed.state && known.zip(told).is_some_and(|(known, told)| known != told) {
            return clash("it stands there with another amount");
        }
        if new_age > age {
            slot.set_there(listed, provider_ref);
        }
        Ok(Noted::Repeated)
    }

    fn short_hash(&self, text: &str) -> u32 {
        u32::try_from(self.hasher.hash_one(text) >> 32).unwrap_or(0).max(1)
    }
}

impl Slot {
    fn set_there(&mut self, listed: &Listed, provider_ref: u32) {
        self.there = Some(listed.state);
        self.place = u32::try_from(listed.place).unwrap_or(u32::MAX);
        if let Some(amount) = listed.amount {
            (self.listed_minor, self.listed_currency) = (amount.minor, Some(amount.currency));
        }
        if provider_ref != 0 {
            self.provider_ref = provider_ref;
        }
    }
}

/// A recharge moves on from one of these to one of the next.
fn age(state: ListedState) -> u8 {
    match state {
        ListedState::InProgress | ListedState::Unknown => 0,
        ListedState::Delivered | ListedState::Failed => 1,
        ListedState::Reversed => 2,
    }
}

/// A length that was checked where the text was read.
fn length(text: &str) -> u8 {
    u8::try_from(text.len()).unwrap_or(u8::MAX)
}

/// The reference as it was sent.
fn readable<'a>(buffer: &'a mut String, order_id: &str, attempt: u16, client_ref: Option<&'a str>) -> &'a str {
    use std::fmt::Write as _;
    if let Some(client_ref) = client_ref {
        return client_ref;
    }
    buffer.clear();
    // Writing to a string cannot fail.
    write!(buffer, "{order_id}-{attempt}").unwrap_or_default();
    buffer
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
