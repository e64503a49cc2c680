//! An order as a row: the same columns in both stores.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::{
    Attempt, AttemptState, CaseChange, CaseKind, ClaimId, ClientRef, Currency, Inquiry, LoggedEvent, Money,
    Notification, Order, OrderId, ProviderId, Reason, Recipient, RefundNews, Sla, State, Timestamp, Transition,
};
use crate::ports::{
    Case, CaseKey, Census, DeadlinePage, DeadlinePosition, Loaded, OrderPage, OrderView, RefundPage, Resolution,
    StoreError, StoreErrorKind, TimerPage, UnreadableRow,
};

/// A stored value that is not one of ours: another version's, or someone else's hand.
#[derive(Debug, thiserror::Error)]
#[error("the column {column} of an order holds what this build does not know")]
pub(crate) struct Corrupt {
    column: &'static str,
}

impl Corrupt {
    pub(crate) fn error(self, operation: &'static str) -> StoreError {
        StoreError { operation, kind: StoreErrorKind::Broken, source: Box::new(self) }
    }
}

pub(crate) struct OrderRow {
    pub(crate) order_id: String,
    pub(crate) version: i32,
    pub(crate) state: String,
    pub(crate) asked_version: i32,
    pub(crate) phone: String,
    pub(crate) amount_minor: i64,
    pub(crate) currency: String,
    pub(crate) carrier: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) paid_at: Option<Timestamp>,
    pub(crate) payment_id: Option<String>,
    pub(crate) notify: bool,
    pub(crate) metadata: Option<String>,
    pub(crate) deadline_at: Timestamp,
    pub(crate) provider: Option<String>,
    pub(crate) attempt: Option<i32>,
    pub(crate) attempt_state: Option<String>,
    pub(crate) client_ref: Option<String>,
    pub(crate) claim_id: Option<Uuid>,
    pub(crate) claimed_at: Option<Timestamp>,
    pub(crate) provider_ref: Option<String>,
    pub(crate) inquiry: Option<String>,
    pub(crate) declined: i32,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) reason: Option<String>,
    pub(crate) sla: Option<String>,
    pub(crate) closed_at: Option<Timestamp>,
    pub(crate) refund_requested: bool,
    pub(crate) refund_id: Option<String>,
    pub(crate) cases: i32,
}

/// What a census reads of one state of orders.
pub(crate) struct OpenRow {
    pub(crate) state: String,
    pub(crate) orders: i64,
    pub(crate) overdue: i64,
    pub(crate) oldest_paid_at: Option<Timestamp>,
}

/// What a census reads of one kind of cases.
pub(crate) struct OpenCasesRow {
    pub(crate) kind: String,
    pub(crate) cases: i64,
    pub(crate) escalated: i64,
}

/// A census of its rows; what this build does not know is in none of its gauges.
pub(crate) fn census(open: &[OpenRow], cases: &[OpenCasesRow]) -> Census {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Census {
        open: open.iter().filter_map(|row| Some((State::parse(&row.state)?, count(row.orders)))).collect(),
        overdue: open.iter().map(|row| count(row.overdue)).sum(),
        oldest_paid_at: open.iter().filter_map(|row| row.oldest_paid_at).min(),
        cases: cases
            .iter()
            .filter_map(|row| Some((CaseKind::parse(&row.kind)?, count(row.cases), count(row.escalated))))
            .collect(),
    }
}

/// A page that was read in the order of deadlines, `limit` rows at most.
pub(crate) fn deadline_page(rows: Vec<OrderRow>, limit: usize) -> DeadlinePage {
    let last = rows.last().filter(|_| rows.len() >= limit);
    let next = last.map(|row| DeadlinePosition { at: row.deadline_at, order_id: Some(row.order_id.clone()) });
    let mut page = DeadlinePage { next, ..DeadlinePage::default() };
    for row in rows {
        let order_id = row.order_id.clone();
        match row.into_order() {
            Ok(order) => page.orders.push(order),
            Err(corrupt) => page.unreadable.push(UnreadableRow { order_id, why: corrupt.to_string() }),
        }
    }
    page
}

/// What stands under each id.
pub(crate) fn loaded(ids: &[OrderId], rows: Vec<OrderRow>) -> Vec<Loaded> {
    let mut found: HashMap<String, Loaded> = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = row.order_id.clone();
        let one = row.into_order().map_or_else(|corrupt| Loaded::Unreadable(corrupt.to_string()), Loaded::Order);
        found.insert(id, one);
    }
    ids.iter().map(|id| found.get(id.as_str()).cloned().unwrap_or(Loaded::Absent)).collect()
}

/// What is due of a timer, and the row of its order.
pub(crate) struct DueRow {
    pub(crate) due_at: Timestamp,
    pub(crate) order_id: String,
    pub(crate) version: i32,
    pub(crate) state: String,
    pub(crate) deadline_at: Timestamp,
}

impl DueRow {
    fn into_notification(self) -> Result<Notification, Corrupt> {
        Ok(Notification {
            order_id: order_id(&self.order_id)?,
            due_at: self.due_at,
            version: version(self.version)?,
            state: state(&self.state)?,
            deadline_at: self.deadline_at,
        })
    }
}

/// A page of timers that was read in the order of their times, `limit` rows at most.
pub(crate) fn timer_page(rows: Vec<DueRow>, limit: usize) -> TimerPage {
    let last = rows.last().filter(|_| rows.len() >= limit);
    let next = last.map(|row| DeadlinePosition { at: row.due_at, order_id: Some(row.order_id.clone()) });
    let mut page = TimerPage { next, ..TimerPage::default() };
    for row in rows {
        let order_id = row.order_id.clone();
        match row.into_notification() {
            Ok(due) => page.due.push(due),
            Err(corrupt) => page.unreadable.push(UnreadableRow { order_id, why: corrupt.to_string() }),
        }
    }
    page
}

/// A page of refunds that was read in the order of their times, `limit` rows at most.
pub(crate) fn refund_page(rows: Vec<(Timestamp, String)>, limit: usize) -> RefundPage {
    let last = rows.last().filter(|_| rows.len() >= limit);
    let next = last.map(|(at, id)| DeadlinePosition { at: *at, order_id: Some(id.clone()) });
    let mut page = RefundPage { next, ..RefundPage::default() };
    for (_, id) in rows {
        match order_id(&id) {
            Ok(order_id) => page.overdue.push(order_id),
            Err(corrupt) => page.unreadable.push(UnreadableRow { order_id: id, why: corrupt.to_string() }),
        }
    }
    page
}

/// Rows that a page looks at, however few of them it is asked for.
pub(crate) const SCANNED_MAX: i64 = 10_000;

/// A page of at most `limit` rows; `last` is the last row that was looked at, where that was not the end.
pub(crate) fn order_page(
    rows: Vec<(OrderRow, bool)>,
    last: Option<String>,
    limit: usize,
) -> Result<OrderPage, Corrupt> {
    let view = |(row, case_open): (OrderRow, bool)| Ok(OrderView { order: row.into_order()?, case_open });
    let orders = rows.into_iter().map(view).collect::<Result<Vec<OrderView>, Corrupt>>()?;
    let next = match last {
        Some(last) => Some(order_id(&last)?),
        None => orders.last().filter(|_| orders.len() >= limit).map(|view| view.order.order_id.clone()),
    };
    Ok(OrderPage { orders, next })
}

/// Who stands in which row, in the order of the ids.
pub(crate) fn recipients_of(ids: &[OrderId], phones: Vec<(String, String)>) -> Vec<Option<Recipient>> {
    let phones: HashMap<String, String> = phones.into_iter().collect();
    ids.iter().map(|id| phones.get(id.as_str()).map(|phone| Recipient::from_stored(phone))).collect()
}

impl OrderRow {
    pub(crate) fn into_order(self) -> Result<Order, Corrupt> {
        let order_id = order_id(&self.order_id)?;
        let attempt = self.attempt(&order_id)?;
        Ok(Order {
            order_id,
            version: version(self.version)?,
            state: known("state", State::parse(&self.state))?,
            asked_version: known("asked_version", u32::try_from(self.asked_version).ok())?,
            recipient: Recipient::from_stored(&self.phone),
            amount: Money {
                minor: self.amount_minor,
                currency: known("currency", Currency::parse(&self.currency).ok())?,
            },
            carrier: self.carrier.map(Into::into),
            created_at: self.created_at,
            paid_at: self.paid_at,
            payment_id: self.payment_id.map(Into::into),
            notify: self.notify,
            metadata: self.metadata.map(Into::into),
            deadline_at: self.deadline_at,
            provider: self.provider.as_deref().map(ProviderId::new),
            attempt,
            declined: known("declined", u16::try_from(self.declined).ok())?,
            wake_at: self.wake_at,
            reason: optional("reason", self.reason.as_deref(), Reason::parse)?,
            sla: optional("sla", self.sla.as_deref(), Sla::parse)?,
            closed_at: self.closed_at,
            refund_requested: self.refund_requested,
            refund_id: self.refund_id.map(Into::into),
            cases: known("cases", u16::try_from(self.cases).ok())?,
        })
    }

    fn attempt(&self, id: &OrderId) -> Result<Option<Attempt>, Corrupt> {
        let Some(number) = self.attempt else { return Ok(None) };
        let number = known("attempt", u16::try_from(number).ok())?;
        let state = known("attempt_state", self.attempt_state.as_deref())?;
        Ok(Some(Attempt {
            number,
            state: known("attempt_state", AttemptState::parse(state))?,
            client_ref: match self.client_ref.as_deref() {
                Some(reference) => ClientRef::from_stored(reference),
                None => ClientRef::in_clear(id, number),
            },
            claim_id: ClaimId(known("claim_id", self.claim_id)?),
            claimed_at: known("claimed_at", self.claimed_at)?,
            provider_ref: self.provider_ref.clone(),
            inquiry: match &self.inquiry {
                Some(text) => known("inquiry", serde_json::from_str(text).ok())?,
                None => Inquiry::default(),
            },
        }))
    }
}

/// A case, as both stores keep it.
pub(crate) struct CaseRow {
    pub(crate) order_id: String,
    pub(crate) kind: String,
    pub(crate) opened_at: Timestamp,
    pub(crate) escalate_at: Timestamp,
    pub(crate) escalated: bool,
    pub(crate) next_query_at: Option<Timestamp>,
    pub(crate) evidence: String,
    pub(crate) owner: Option<String>,
    pub(crate) resolved_at: Option<Timestamp>,
    pub(crate) resolved_by: Option<String>,
    pub(crate) resolved_evidence: Option<String>,
}

impl CaseRow {
    pub(crate) fn into_case(self) -> Result<Case, Corrupt> {
        let resolution = match (self.resolved_at, self.resolved_by, self.resolved_evidence) {
            (Some(at), Some(by), Some(evidence)) => Some(Resolution { at, by, evidence }),
            _ => None,
        };
        Ok(Case {
            key: case_key(&self.order_id, &self.kind)?,
            opened_at: self.opened_at,
            escalate_at: self.escalate_at,
            escalated: self.escalated,
            next_query_at: self.next_query_at,
            evidence: self.evidence,
            owner: self.owner,
            resolution,
        })
    }
}

pub(crate) fn case_key(id: &str, kind: &str) -> Result<CaseKey, Corrupt> {
    Ok(CaseKey { order_id: order_id(id)?, kind: known("kind", CaseKind::parse(kind))? })
}

pub(crate) fn known<T>(column: &'static str, value: Option<T>) -> Result<T, Corrupt> {
    value.ok_or(Corrupt { column })
}

fn optional<T>(
    column: &'static str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Corrupt> {
    text.map(|text| known(column, parse(text))).transpose()
}

pub(crate) fn order_id(text: &str) -> Result<OrderId, Corrupt> {
    known("order_id", OrderId::parse(text).ok())
}

fn version(number: i32) -> Result<u32, Corrupt> {
    known("version", u32::try_from(number).ok())
}

pub(crate) fn state(text: &str) -> Result<State, Corrupt> {
    known("state", State::parse(text))
}

/// Which entries are of which order, each one's by version; in the order of the ids.
pub(crate) fn timelines_of(ids: &[OrderId], lines: &[String]) -> Result<Vec<Vec<LoggedEvent>>, StoreError> {
    let mut by_order: HashMap<OrderId, Vec<LoggedEvent>> = HashMap::new();
    for line in lines {
        let event = LoggedEvent::from_line(line).map_err(|bad| StoreError {
            operation: "timelines",
            kind: StoreErrorKind::Broken,
            source: Box::new(bad),
        })?;
        by_order.entry(event.order_id.clone()).or_default().push(event);
    }
    for timeline in by_order.values_mut() {
        timeline.sort_by_key(|event| (event.version, event.kind.is_aside(), event.at));
    }
    Ok(ids.iter().map(|id| by_order.get(id).cloned().unwrap_or_default()).collect())
}

/// A version as a column; one beyond the column's range is refused by its CHECK.
pub(crate) fn version_column(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(-1)
}

/// An attempt's reference; the readable form is left out.
pub(crate) fn client_ref_column<'a>(id: &OrderId, attempt: &'a Attempt) -> Option<&'a str> {
    let reference = &attempt.client_ref;
    if reference.is_in_clear(id, attempt.number) { None } else { Some(reference.as_str()) }
}

/// What was learned by asking, as text; mostly nothing.
pub(crate) fn inquiry_column(attempt: &Attempt) -> Option<String> {
    if attempt.inquiry.is_empty() { None } else { serde_json::to_string(&attempt.inquiry).ok() }
}

/// A free text as a column. No text column of Postgres takes NUL, and one such text would fail
/// its whole batch for ever.
pub(crate) fn free_text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A log entry as a line, with what [`free_text`] makes of NUL: Postgres reads no JSON that holds
/// one, and a single such line would make its whole batch unreadable to SQL.
pub(crate) fn entry_line(event: &LoggedEvent) -> String {
    const NUL: &str = "\\u0000";
    let line = event.to_line();
    if !line.contains(NUL) {
        return line;
    }
    let mut clean = String::with_capacity(line.len());
    let mut rest = line.as_str();
    while let Some((before, after)) = rest.split_once(NUL) {
        clean.push_str(before);
        // Behind an odd number of backslashes stands a backslash of the text, and four zeros behind a `u`.
        let is_text = clean.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        clean.push_str(if is_text { NUL } else { "\\ufffd" });
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// A transition's entries as lines: its own, and what is told beside it.
pub(crate) fn entry_lines(transition: &Transition) -> String {
    let mut lines = entry_line(&transition.event);
    if let Some(told) = &transition.told {
        lines.push('\n');
        lines.push_str(&entry_line(told));
    }
    lines
}

/// A refund as it is written; rare, so it travels as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RefundRow {
    order_id: String,
    payment_id: Option<String>,
    amount_minor: i64,
    currency: String,
    reason: &'static str,
    requested_at: i64,
    confirm_by: Option<i64>,
}

/// What becomes of a refund; times in µs. Without a name it was not confirmed in time.
#[derive(Debug, Serialize)]
pub(crate) struct RefundNewsRow {
    order_id: String,
    refund_id: Option<String>,
    settled_at: Option<i64>,
}

/// What is told beside a transition.
#[derive(Debug, Serialize)]
pub(crate) struct ToldRow {
    order_id: String,
    version: i32,
    entry: String,
}

/// A case that is opened; times in µs.
#[derive(Debug, Serialize)]
pub(crate) struct OpenedRow {
    order_id: String,
    kind: &'static str,
    opened_at: i64,
    escalate_at: i64,
    next_query_at: Option<i64>,
    evidence: String,
}

/// A case that is resolved.
#[derive(Debug, Serialize)]
pub(crate) struct ResolvedRow {
    order_id: String,
    kind: &'static str,
    resolved_at: i64,
    resolved_by: String,
    resolved_evidence: String,
}

/// What goes with some of the rows of a batch.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) refunds: Vec<RefundRow>,
    pub(crate) refund_news: Vec<RefundNewsRow>,
    pub(crate) told: Vec<ToldRow>,
    pub(crate) opened: Vec<OpenedRow>,
    pub(crate) resolved: Vec<ResolvedRow>,
    pub(crate) timers: Vec<TimerRow>,
}

/// A notification that is set; µs.
#[derive(Debug, Serialize)]
pub(crate) struct TimerRow {
    order_id: String,
    due_at: i64,
}

impl Extras {
    pub(crate) fn add(&mut self, transition: &Transition) {
        let order_id = || transition.after.order_id.as_str().to_owned();
        let at = transition.event.at.timestamp_micros();
        if let Some(refund) = &transition.refund {
            self.refunds.push(RefundRow {
                order_id: order_id(),
                payment_id: refund.payment_id.as_deref().map(|id| free_text(id).into_owned()),
                amount_minor: refund.amount.minor,
                currency: refund.amount.currency.as_str().to_owned(),
                reason: refund.reason.as_str(),
                requested_at: at,
                confirm_by: refund.confirm_by.map(|by| by.timestamp_micros()),
            });
        }
        if let Some(news) = &transition.refund_news {
            let (refund_id, settled_at) = match news {
                RefundNews::Confirmed { refund_id, at } => (Some(free_text(refund_id).into_owned()), Some(*at)),
                RefundNews::Overdue => (None, None),
            };
            let settled_at = settled_at.map(|at| at.timestamp_micros());
            self.refund_news.push(RefundNewsRow { order_id: order_id(), refund_id, settled_at });
        }
        if let Some(told) = &transition.told {
            let (version, entry) = (version_column(told.version), entry_line(told));
            self.told.push(ToldRow { order_id: order_id(), version, entry });
        }
        if let Some(due_at) = transition.notify_at {
            self.timers.push(TimerRow { order_id: order_id(), due_at: due_at.timestamp_micros() });
        }
        for change in &transition.cases {
            match change {
                CaseChange::Open { kind, escalate_at, evidence, next_query_at } => self.opened.push(OpenedRow {
                    order_id: order_id(),
                    kind: kind.as_str(),
                    opened_at: at,
                    escalate_at: escalate_at.timestamp_micros(),
                    next_query_at: next_query_at.map(|at| at.timestamp_micros()),
                    evidence: free_text(evidence).into_owned(),
                }),
                CaseChange::Resolve { kind, by, evidence } => self.resolved.push(ResolvedRow {
                    order_id: order_id(),
                    kind: kind.as_str(),
                    resolved_at: at,
                    resolved_by: free_text(by).into_owned(),
                    resolved_evidence: free_text(evidence).into_owned(),
                }),
            }
        }
    }

    pub(crate) fn json<T: Serialize>(rows: &[T]) -> String {
        serde_json::to_string(rows).unwrap_or_else(|_| "[]".to_owned())
    }
}
