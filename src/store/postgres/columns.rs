//! A batch of transitions as columns, for `unnest`.

use std::borrow::Cow;

use uuid::Uuid;

use crate::domain::{Timestamp, Transition};
use crate::store::row::{Extras, client_ref_column, entry_lines, free_text, inquiry_column, version_column};

/// One array a column; row *n* of the batch is element *n* of each.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) order_id: Vec<&'a str>,
    pub(super) from_version: Vec<i32>,
    pub(super) version: Vec<i32>,
    pub(super) state: Vec<&'static str>,
    pub(super) asked_version: Vec<i32>,
    pub(super) phone: Vec<String>,
    pub(super) amount_minor: Vec<i64>,
    pub(super) currency: Vec<&'a str>,
    pub(super) carrier: Vec<Option<Cow<'a, str>>>,
    pub(super) created_at: Vec<Timestamp>,
    pub(super) paid_at: Vec<Option<Timestamp>>,
    pub(super) payment_id: Vec<Option<Cow<'a, str>>>,
    pub(super) notify: Vec<bool>,
    pub(super) metadata: Vec<Option<Cow<'a, str>>>,
    pub(super) deadline_at: Vec<Timestamp>,
    pub(super) provider: Vec<Option<&'a str>>,
    pub(super) attempt: Vec<Option<i32>>,
    pub(super) attempt_state: Vec<Option<&'static str>>,
    pub(super) client_ref: Vec<Option<&'a str>>,
    pub(super) claim_id: Vec<Option<Uuid>>,
    pub(super) claimed_at: Vec<Option<Timestamp>>,
    pub(super) provider_ref: Vec<Option<Cow<'a, str>>>,
    pub(super) inquiry: Vec<Option<String>>,
    pub(super) declined: Vec<i32>,
    pub(super) wake_at: Vec<Option<Timestamp>>,
    pub(super) reason: Vec<Option<&'static str>>,
    pub(super) sla: Vec<Option<&'static str>>,
    pub(super) closed_at: Vec<Option<Timestamp>>,
    pub(super) refund_requested: Vec<bool>,
    pub(super) cases: Vec<i32>,
    pub(super) entry: Vec<String>,
    pub(super) refund_id: Vec<Option<Cow<'a, str>>>,
    pub(super) extras: Extras,
}

impl<'a> Columns<'a> {
    /// What every write sends. An update leaves out what never changes.
    pub(super) fn of_updates(batch: &[&'a Transition]) -> Self {
        let mut columns = Self::default();
        for transition in batch {
            columns.add(transition);
        }
        columns
    }

    /// What an insert sends.
    pub(super) fn of_inserts(batch: &[&'a Transition]) -> Self {
        let mut columns = Self::of_updates(batch);
        for transition in batch {
            columns.add_what_never_changes(transition);
        }
        columns
    }

    fn add(&mut self, transition: &'a Transition) {
        let order = &transition.after;
        self.order_id.push(order.order_id.as_str());
        self.from_version.push(version_column(transition.from_version));
        self.version.push(version_column(order.version));
        self.state.push(order.state.as_str());
        self.asked_version.push(version_column(order.asked_version));
        self.paid_at.push(order.paid_at);
        self.payment_id.push(order.payment_id.as_deref().map(free_text));
        self.deadline_at.push(order.deadline_at);
        self.provider.push(order.provider.as_ref().map(crate::domain::ProviderId::as_str));
        let attempt = order.attempt.as_ref();
        self.attempt.push(attempt.map(|attempt| i32::from(attempt.number)));
        self.attempt_state.push(attempt.map(|attempt| attempt.state.as_str()));
        let reference = attempt.and_then(|attempt| client_ref_column(&order.order_id, attempt));
        self.client_ref.push(reference);
        self.claim_id.push(attempt.map(|attempt| attempt.claim_id.0));
        self.claimed_at.push(attempt.map(|attempt| attempt.claimed_at));
        self.provider_ref.push(attempt.and_then(|attempt| attempt.provider_ref.as_deref().map(free_text)));
        self.inquiry.push(attempt.and_then(inquiry_column));
        self.declined.push(i32::from(order.declined));
        self.wake_at.push(order.wake_at);
        self.reason.push(order.reason.map(crate::domain::Reason::as_str));
        self.sla.push(order.sla.map(crate::domain::Sla::as_str));
        self.closed_at.push(order.closed_at);
        self.refund_requested.push(order.refund_requested);
        self.cases.push(i32::from(order.cases));
        self.entry.push(entry_lines(transition));
        self.refund_id.push(order.refund_id.as_deref().map(free_text));
        self.extras.add(transition);
    }

    fn add_what_never_changes(&mut self, transition: &'a Transition) {
        let order = &transition.after;
        self.phone.push(free_text(&order.recipient.expose()).into_owned());
        self.amount_minor.push(order.amount.minor);
        self.currency.push(order.amount.currency.as_str());
        self.carrier.push(order.carrier.as_deref().map(free_text));
        self.created_at.push(order.created_at);
        self.notify.push(order.notify);
        self.metadata.push(order.metadata.as_deref().map(free_text));
    }
}
