//! A batch as JSON, for `json_each`; and a row read back. Times are µs since 1970.

use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::domain::{Timestamp, Transition};
use crate::store::row::{Extras, OrderRow, client_ref_column, inquiry_column, version_column};

/// A transition as the statements read it.
#[derive(Debug, Serialize)]
struct JsonRow<'a> {
    order_id: &'a str,
    from_version: i32,
    version: i32,
    state: &'static str,
    asked_version: i32,
    phone: String,
    amount_minor: i64,
    currency: &'a str,
    carrier: Option<&'a str>,
    created_at: i64,
    paid_at: Option<i64>,
    payment_id: Option<&'a str>,
    notify: bool,
    metadata: Option<&'a str>,
    deadline_at: i64,
    provider: Option<&'a str>,
    attempt: Option<u16>,
    attempt_state: Option<&'static str>,
    client_ref: Option<&'a str>,
    claim_id: Option<String>,
    claimed_at: Option<i64>,
    provider_ref: Option<&'a str>,
    inquiry: Option<String>,
    declined: u16,
    wake_at: Option<i64>,
    reason: Option<&'static str>,
    sla: Option<&'static str>,
    closed_at: Option<i64>,
    refund_requested: bool,
    refund_id: Option<&'a str>,
    cases: u16,
    entry: String,
}

impl<'a> JsonRow<'a> {
    fn of(transition: &'a Transition) -> Self {
        let order = &transition.after;
        let attempt = order.attempt.as_ref();
        Self {
            order_id: order.order_id.as_str(),
            from_version: version_column(transition.from_version),
            version: version_column(order.version),
            state: order.state.as_str(),
            asked_version: version_column(order.asked_version),
            phone: order.recipient.expose(),
            amount_minor: order.amount.minor,
            currency: order.amount.currency.as_str(),
            carrier: order.carrier.as_deref(),
            created_at: order.created_at.timestamp_micros(),
            paid_at: micros(order.paid_at),
            payment_id: order.payment_id.as_deref(),
            notify: order.notify,
            metadata: order.metadata.as_deref(),
            deadline_at: order.deadline_at.timestamp_micros(),
            provider: order.provider.as_ref().map(crate::domain::ProviderId::as_str),
            attempt: attempt.map(|attempt| attempt.number),
            attempt_state: attempt.map(|attempt| attempt.state.as_str()),
            client_ref: attempt.and_then(|attempt| client_ref_column(&order.order_id, attempt)),
            claim_id: attempt.map(|attempt| attempt.claim_id.0.to_string()),
            claimed_at: attempt.map(|attempt| attempt.claimed_at.timestamp_micros()),
            provider_ref: attempt.and_then(|attempt| attempt.provider_ref.as_deref()),
            inquiry: attempt.and_then(inquiry_column),
            declined: order.declined,
            wake_at: micros(order.wake_at),
            reason: order.reason.map(crate::domain::Reason::as_str),
            sla: order.sla.map(crate::domain::Sla::as_str),
            closed_at: micros(order.closed_at),
            refund_requested: order.refund_requested,
            refund_id: order.refund_id.as_deref(),
            cases: order.cases,
            entry: transition.event.to_line(),
        }
    }
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.timestamp_micros())
}

/// A batch, ready to be bound.
pub(super) struct JsonBatch {
    pub(super) rows: String,
    pub(super) extras: Extras,
}

impl JsonBatch {
    pub(super) fn of(batch: &[&Transition]) -> Self {
        let rows: Vec<JsonRow<'_>> = batch.iter().map(|transition| JsonRow::of(transition)).collect();
        let mut extras = Extras::default();
        for transition in batch {
            extras.add(transition);
        }
        Self { rows: Extras::json(&rows), extras }
    }
}

pub(super) fn moment(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Ok(Timestamp::from_timestamp_micros(row.try_get(column)?).unwrap_or_default())
}

pub(super) fn maybe_moment(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.and_then(Timestamp::from_timestamp_micros))
}

pub(super) fn order_row(row: &SqliteRow) -> Result<OrderRow, sqlx::Error> {
    let claim_id: Option<String> = row.try_get("claim_id")?;
    Ok(OrderRow {
        order_id: row.try_get("order_id")?,
        version: row.try_get("version")?,
        state: row.try_get("state")?,
        asked_version: row.try_get("asked_version")?,
        phone: row.try_get("phone")?,
        amount_minor: row.try_get("amount_minor")?,
        currency: row.try_get("currency")?,
        carrier: row.try_get("carrier")?,
        created_at: moment(row, "created_at")?,
        paid_at: maybe_moment(row, "paid_at")?,
        payment_id: row.try_get("payment_id")?,
        notify: row.try_get("notify")?,
        metadata: row.try_get("metadata")?,
        deadline_at: moment(row, "deadline_at")?,
        provider: row.try_get("provider")?,
        attempt: row.try_get("attempt")?,
        attempt_state: row.try_get("attempt_state")?,
        client_ref: row.try_get("client_ref")?,
        claim_id: claim_id.as_deref().and_then(|text| uuid::Uuid::parse_str(text).ok()),
        claimed_at: maybe_moment(row, "claimed_at")?,
        provider_ref: row.try_get("provider_ref")?,
        inquiry: row.try_get("inquiry")?,
        declined: row.try_get("declined")?,
        wake_at: maybe_moment(row, "wake_at")?,
        reason: row.try_get("reason")?,
        sla: row.try_get("sla")?,
        closed_at: maybe_moment(row, "closed_at")?,
        refund_requested: row.try_get("refund_requested")?,
        refund_id: row.try_get("refund_id")?,
        cases: row.try_get("cases")?,
    })
}
