//! Open orders out of a shop's own table, brought in as the events that the shop would have sent (`docs/PRODUCING.md`).
//!
//! A file is read twice: once to the end to find what is wrong with it, and, if nothing is, once more to send it. Each line
//! is read as intake reads an event, so that one way in has one set of rules; what intake would take and end at once, with
//! a refund or a cancellation, is wrong here unless that is wanted.

mod rows;
#[cfg(test)]
mod tests;
mod twins;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::domain::inbound::{self, Inbound, RawHeader};
use crate::domain::masked::masked;
use crate::domain::msisdn::PhoneKey;
use crate::domain::route::RouteTable;
use crate::domain::{NewOrder, Order, Reason, Timestamp, plus};
use crate::ports::OutRecord;
use crate::roles::intake::refuse_too_old;

pub use rows::{Format, Row, Rows};
pub use twins::{ORDERS_MAX, Twins};

/// What is wrong with a line: where, and what would be right; never a value of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line, from 1; of a record that goes over several lines the first.
    pub line: u64,
    /// The field, where it is one.
    pub field: Option<String>,
    /// The rule.
    pub rule: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = self.field.as_ref().map_or(String::new(), |field| format!("{field}: "));
        write!(f, "line {}: {field}{}", self.line, self.rule)
    }
}

impl Problem {
    fn new(line: u64, field: Option<&str>, rule: impl Into<String>) -> Self {
        Self { line, field: field.map(str::to_owned), rule: rule.into() }
    }
}

/// What lines are held against.
#[derive(Debug)]
pub struct Terms {
    /// For phone numbers.
    pub phone_key: PhoneKey,
    /// Who serves which orders.
    pub routes: RouteTable,
    /// How long closed orders are kept.
    pub retention: Duration,
    /// From payment to the deadline.
    pub sla: Duration,
    /// From creation to the end of an order that nobody pays.
    pub unpaid_timeout: Duration,
    /// Orders that end at once are wanted, too.
    pub accept_refunds: bool,
}

/// An order that can be sent.
#[derive(Debug)]
pub struct Candidate {
    /// Its line.
    pub line: u64,
    /// The order as intake will read it.
    pub new: Box<NewOrder>,
    /// The data of its event.
    pub data: Vec<u8>,
    /// It ends at once.
    pub ends_at_once: bool,
}

/// How an order of a file stands to the one of its id in the store.
#[derive(Debug, PartialEq, Eq)]
pub enum Stands {
    /// It is there.
    There,
    /// It is there and not paid, and the file says that it is.
    Pays,
    /// Another one is there.
    Differs(Problem),
}

impl Terms {
    /// Reads a line as intake would.
    pub fn check(&self, row: Row, now: Timestamp) -> Result<Candidate, Problem> {
        let Row { line, data } = row;
        let data = data?;
        let event = inbound::read(Some(&data), &headers("x"), false, &self.phone_key);
        let new = match event.map_err(|unfit| in_fields(line, &unfit.detail))? {
            Inbound::Created(new) => new,
            // The headers say that it is one.
            Inbound::Paid { .. } | Inbound::Cancelled { .. } | Inbound::RefundConfirmed { .. } => {
                return Err(Problem::new(line, None, "is no order"));
            }
        };
        let at = if new.paid_at.is_some() { "paid_at" } else { "created_at" };
        if refuse_too_old(&new, now, self.retention).is_err() {
            let rule = "older than closed orders are kept (retention.closed_orders): it would be a dead letter";
            return Err(Problem::new(line, Some(at), rule));
        }
        let end = self.end_at_once(&new, now);
        if let Some((field, rule)) = end.as_ref().filter(|_| !self.accept_refunds) {
            return Err(Problem::new(line, Some(field), format!("{rule}; --accept-refunds takes such orders, too")));
        }
        Ok(Candidate { line, new, data, ends_at_once: end.is_some() })
    }

    /// Why an order would be failed and refunded, or cancelled, as soon as it is read or paid.
    fn end_at_once(&self, new: &NewOrder, now: Timestamp) -> Option<(&'static str, String)> {
        match new.paid_at {
            Some(paid_at) if plus(paid_at, self.sla) <= now => {
                return Some(("paid_at", "its deadline is over: it would be failed and refunded at once".to_owned()));
            }
            None if plus(new.created_at, self.unpaid_timeout) <= now => {
                return Some(("created_at", "it was not paid in time: it would be cancelled at once".to_owned()));
            }
            Some(_) | None => {}
        }
        let Some(number) = new.recipient.msisdn() else {
            let rule = "no phone network has issued such a number (E.164, or national with region)";
            return Some(("phone", format!("{rule}: it would be failed and refunded")));
        };
        let lanes = self.routes.lanes(&new.order_id, number, new.carrier.as_deref(), new.amount).map(drop);
        lanes.err().map(|reason| {
            let field = if reason == Reason::AmountNotSupported { "amount_minor" } else { "phone" };
            (field, format!("no lane serves it ({reason}): it would be failed and refunded"))
        })
    }
}

impl Candidate {
    /// How it stands to the order that is there.
    pub fn stands_to(&self, order: &Order) -> Stands {
        let differs = |field, rule: &str| Stands::Differs(Problem::new(self.line, Some(field), rule));
        if !order.same_payload(&self.new) {
            return differs("order_id", "is there already, with another phone, amount or currency");
        }
        match (self.new.paid_at, order.paid_at) {
            (Some(_), None) => Stands::Pays,
            (Some(_), Some(_)) => match (&order.payment_id, &self.new.payment_id) {
                (Some(first), Some(second)) if first != second => {
                    differs("payment_id", "the order is there already, paid under another payment id")
                }
                _ => Stands::There,
            },
            (None, _) => Stands::There,
        }
    }

    /// Its event.
    pub fn event(self, topic: &Arc<str>) -> OutRecord {
        let id = self.new.order_id.as_str();
        OutRecord {
            topic: Arc::clone(topic),
            key: Some(Bytes::copy_from_slice(id.as_bytes())),
            headers: headers(id),
            value: Some(Bytes::from(self.data)),
        }
    }
}

/// The headers of an event: of the same order the same, however often it is imported.
fn headers(order_id: &str) -> Vec<RawHeader> {
    let header = |name: &'static str, value: Bytes| (Bytes::from_static(name.as_bytes()), Some(value));
    vec![
        header("ce_specversion", Bytes::from_static(b"1.0")),
        header("ce_id", Bytes::from(format!("{order_id}:created"))),
        header("ce_source", Bytes::from_static(b"recharged-import")),
        header("ce_type", Bytes::from_static(b"recharge.order.created.v1")),
        header("content-type", Bytes::from_static(b"application/json")),
    ]
}

/// What intake says of an event, as what is wrong with a line.
fn in_fields(line: u64, detail: &str) -> Problem {
    let (field, rule) = match detail.strip_prefix('/').and_then(|rest| rest.split_once(": ")) {
        Some((field, rule)) => (Some(field), rule),
        None => (None, detail),
    };
    // An object of JSON Lines is one line; of CSV there is no place in it.
    let rule = match rule.rsplit_once(", line 1 column ") {
        Some((rule, column)) if field.is_none() => format!("{rule}, column {column}"),
        Some((rule, _)) => rule.to_owned(),
        None => rule.to_owned(),
    };
    Problem { line, field: field.map(str::to_owned), rule }
}

/// Fields of a file that nobody reads: told, since one may be misspelt.
#[derive(Debug, Default)]
pub struct Unread(BTreeSet<String>);

/// What an order may have.
const FIELDS: [&str; 11] = [
    "order_id",
    "phone",
    "region",
    "amount_minor",
    "currency",
    "carrier",
    "created_at",
    "paid_at",
    "payment_id",
    "notify",
    "metadata",
];
/// Those without which it is none.
const NEEDED: [&str; 5] = ["order_id", "phone", "amount_minor", "currency", "created_at"];
/// As many as a person reads.
const UNREAD_MAX: usize = 20;

impl Unread {
    /// Looks at a field's name.
    fn meet(&mut self, name: &str) {
        if !FIELDS.contains(&name) && self.0.len() < UNREAD_MAX {
            let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            self.0.insert(masked(&name));
        }
    }

    /// The names, if there are any.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}
