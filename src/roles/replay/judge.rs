//! Whether a dead letter can be used now. It is read as its reader would read it, so that one that is still wrong is told
//! here, and no second letter comes of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::inbound::{self, DeadLetterReason, Inbound, Unfit};
use crate::domain::msisdn::PhoneKey;
use crate::domain::{NewOrder, OrderId, Timestamp, plus};
use crate::ports::InRecord;
use crate::roles::dead_letter::DeadLetter;
use crate::roles::delay::read_waiting;
use crate::roles::delayed::original_headers;
use crate::roles::dispatch::read_command;
use crate::roles::intake::{as_it_came, refuse_too_old};

use super::Found;

/// What a dead letter is judged by: the topics that are there and are read, and what their readers go by.
#[derive(Debug, Clone)]
pub struct Readers {
    /// The shop's orders; plain JSON is one.
    pub orders: Arc<str>,
    /// The shop's payments, cancellations and refunds.
    pub lifecycle: Arc<str>,
    /// To where the tiers bring back events that came before their order.
    pub timers: Arc<str>,
    /// The topics of the lanes,
    pub lanes: HashSet<Arc<str>>,
    /// and what the names of all such begin with.
    pub lanes_begin: Arc<str>,
    /// The delay tiers.
    pub tiers: HashSet<Arc<str>>,
    /// For phone numbers.
    pub phone_key: PhoneKey,
    /// How long closed orders are kept.
    pub retention: Duration,
    /// From payment to the deadline.
    pub sla: Duration,
    /// From creation to the end of an order that nobody pays.
    pub unpaid_timeout: Duration,
}

/// A letter that can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// Whose it is.
    pub order_id: OrderId,
    /// What will come of it, where that is not what it was meant for.
    pub note: Option<&'static str>,
    /// It came before its order and was given up: only if the order is there now can it be used.
    pub needs_its_order: bool,
}

impl Readers {
    /// Reads a letter as the reader of its topic will.
    pub fn judge(&self, found: &Found, now: Timestamp) -> Result<Fit, Unfit> {
        let letter = found.letter.as_ref().ok_or_else(|| {
            Unfit::new(DeadLetterReason::BadHeaders, "no dead letter of this service: nothing says where it came from")
        })?;
        let record = original(&found.record, letter);
        // What was written instead would be another name.
        if record.headers.iter().any(|(name, _)| std::str::from_utf8(name).is_err()) {
            return Err(Unfit::new(
                DeadLetterReason::BadHeaders,
                "the name of a header is not UTF-8, and was not kept",
            ));
        }
        if record.topic == self.orders || record.topic == self.lifecycle {
            let is_orphan = letter.reason == DeadLetterReason::Orphan.as_str();
            return self.event(&record, record.topic == self.orders, is_orphan, now);
        }
        if record.topic == self.timers {
            return self.event(&as_it_came(record, now), false, false, now);
        }
        if self.lanes.contains(&record.topic) {
            return command(&record, now);
        }
        if self.tiers.contains(&record.topic) {
            return self.delayed(record, now);
        }
        Err(Unfit::new(DeadLetterReason::UnknownTarget, "nobody reads the topic that it came from any more"))
    }

    fn event(&self, record: &InRecord, plain: bool, is_orphan: bool, now: Timestamp) -> Result<Fit, Unfit> {
        let event = inbound::read(record.value.as_deref(), &record.headers, plain, &self.phone_key)?;
        let mut fit = Fit { order_id: event.order_id().clone(), note: None, needs_its_order: false };
        match event {
            Inbound::Created(new) => {
                refuse_too_old(&new, now, self.retention)?;
                fit.note = self.what_comes_of(&new, now);
            }
            Inbound::Paid { .. } | Inbound::Cancelled { .. } | Inbound::RefundConfirmed { .. } => {
                fit.needs_its_order = is_orphan;
            }
        }
        Ok(fit)
    }

    fn what_comes_of(&self, new: &NewOrder, now: Timestamp) -> Option<&'static str> {
        match new.paid_at {
            Some(_) if new.recipient.msisdn().is_none() => Some("its phone number is none: it is failed and refunded"),
            Some(paid_at) if plus(paid_at, self.sla) <= now => {
                Some("its deadline is over: it is failed and refunded, unless it is there already")
            }
            None if plus(new.created_at, self.unpaid_timeout) <= now => {
                Some("nobody paid it in time: it is cancelled, unless it is there already")
            }
            Some(_) | None => None,
        }
    }

    /// A record that waits goes back into its tier, and from there, at once where its time has gone, to its target: that
    /// one's reader must be able to use it, too.
    fn delayed(&self, record: InRecord, now: Timestamp) -> Result<Fit, Unfit> {
        let targets = HashSet::from([Arc::clone(&self.timers)]);
        let waiting = read_waiting(&record, now, &targets, &self.lanes_begin)?;
        let headers = original_headers(&record.headers);
        let inner = InRecord { topic: Arc::clone(&waiting.target), headers, ..record };
        if waiting.target == self.timers {
            return self.event(&as_it_came(inner, now), false, false, now);
        }
        if self.lanes.contains(&waiting.target) {
            return command(&inner, now);
        }
        let detail =
            "the lane that it is for is not configured, or its topics are not there: see `recharged topics create`";
        Err(Unfit::new(DeadLetterReason::UnknownTarget, detail))
    }
}

/// A command acts only if its order still asks for it: whatever became of the order, it is harmless.
fn command(record: &InRecord, now: Timestamp) -> Result<Fit, Unfit> {
    let command = read_command(record, now)?;
    let note = Some("a command: it acts only if its order still asks for it");
    Ok(Fit { order_id: command.order_id, note, needs_its_order: false })
}

/// The record as it came.
pub(super) fn original(record: &InRecord, letter: &DeadLetter) -> InRecord {
    InRecord {
        topic: Arc::from(letter.topic.as_str()),
        partition: letter.partition,
        offset: letter.offset,
        timestamp: letter.timestamp,
        headers: letter.headers.clone(),
        ..record.clone()
    }
}
