//! `recharged orders show`: one order, how it came to where it stands, and what is still to come.

use serde::Serialize;

use super::super::output::{CliError, Output};
use super::{Row, in_words, time, trouble};
use crate::audit::references_of;
use crate::domain::event::RefundMade;
use crate::domain::{CaseKind, LoggedEvent, Order, OrderId, ProviderId, Sla, State, Timestamp};
use crate::ports::{Became, NotedCallback, OrderFilter, OrderView, Store, Waits};

#[derive(Serialize)]
struct Story {
    #[serde(flatten)]
    row: Row,
    waits: StillToCome,
    timeline: Vec<Step>,
    callbacks: Vec<Call>,
}

/// What comes of an order by itself, if nothing else does before.
#[derive(Serialize)]
struct StillToCome {
    /// It is cancelled, if it is not paid by then.
    payment_until: Option<String>,
    notification_at: Option<String>,
    /// A case is opened, if its refund is not confirmed by then.
    refund_confirmed_by: Option<String>,
}

impl StillToCome {
    fn of(order: &Order, waits: Waits) -> Self {
        let until = (order.state == State::AwaitingPayment).then_some(order.deadline_at);
        Self {
            payment_until: until.map(time),
            notification_at: waits.notification_at.map(time),
            refund_confirmed_by: waits.refund_confirm_by.map(time),
        }
    }

    fn tell(&self, output: Output) -> Result<(), CliError> {
        for (what, at) in [
            ("for its payment until", &self.payment_until),
            ("for its notification at", &self.notification_at),
            ("for the confirmation of its refund until", &self.refund_confirmed_by),
        ] {
            if let Some(at) = at {
                output.line(format_args!("waits     {what} {at}"))?;
            }
        }
        Ok(())
    }
}

/// What a provider told of its own accord.
#[derive(Serialize)]
struct Call {
    at: String,
    provider: ProviderId,
    attempt: u16,
    said: String,
    became: Became,
}

impl From<NotedCallback> for Call {
    fn from(noted: NotedCallback) -> Self {
        let NotedCallback { attempt, provider, said, became, at, .. } = noted;
        Self { at: time(at), provider, attempt, said, became }
    }
}

/// A refund that the payment side says it has made.
#[derive(Serialize)]
struct Made {
    refund_id: String,
    at: String,
}

impl From<&RefundMade> for Made {
    fn from(made: &RefundMade) -> Self {
        Self { refund_id: made.refund_id.to_string(), at: time(made.at) }
    }
}

#[derive(Serialize)]
struct Step {
    version: u32,
    event: &'static str,
    at: String,
    /// Since the step before, s.
    after_seconds: f64,
    state: State,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wake_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    refund_requested: bool,
    /// The refund that the payment side says it has made, and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_made: Option<Made>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases_opened: Vec<CaseKind>,
    /// The person who did it, and what they said.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
}

pub(super) async fn show(store: &dyn Store, id: &OrderId, output: Output) -> Result<(), CliError> {
    let filter = OrderFilter { ids: vec![id.clone()], ..OrderFilter::default() };
    let found = store.page(&filter, None, 1).await.map_err(|error| trouble(&error))?;
    let Some(view) = found.orders.into_iter().next() else {
        return Err(CliError::failed(format!(
            "there is no order {id} in the store: it was never accepted, or it is older than the retention \
             (a payment that came before it waits for it up to 15 min)"
        )));
    };
    let waits = StillToCome::of(&view.order, store.waits(id).await.map_err(|error| trouble(&error))?);
    let log = store.timeline(id).await.map_err(|error| trouble(&error))?;
    let references = references_of(store, [&view.order]).await.map_err(|error| trouble(&error))?.concat();
    let mut before: Option<Timestamp> = None;
    let timeline: Vec<Step> = log.iter().map(|event| step(event, &mut before)).collect();
    let called = store.callbacks_of(id).await.map_err(|error| trouble(&error))?;
    let callbacks: Vec<Call> = called.into_iter().map(Into::into).collect();
    if output.json {
        return output.object(&Story { row: Row::of(&view, references), waits, timeline, callbacks });
    }
    tell(&view, &references, &waits, &timeline, output)?;
    for call in &callbacks {
        let Call { at, provider, attempt, said, became } = call;
        output.line(format_args!(
            "     {at}  {provider} called: attempt {attempt} {said}; {}",
            became_in_words(*became)
        ))?;
    }
    Ok(())
}

fn became_in_words(became: Became) -> &'static str {
    match became {
        Became::Settled => "signed, so it was decided on",
        Became::Asked => "not proven, so the provider was asked at once",
        Became::Confirming => "not proven, and nobody asked about that attempt any more, so somebody was told to ask",
        Became::Known => "nothing new",
    }
}

fn step(event: &LoggedEvent, before: &mut Option<Timestamp>) -> Step {
    let since = before.replace(event.at).map_or(0.0, |earlier| (event.at - earlier).as_seconds_f64());
    Step {
        version: event.version,
        event: event.kind.as_str(),
        at: time(event.at),
        after_seconds: since,
        state: event.data.state,
        attempt: event.data.attempt,
        cause: event.data.cause.clone(),
        wake_at: event.data.wake_at.map(time),
        refund_requested: event.data.refund.is_some(),
        refund_made: event.data.refund_made.as_deref().map(Into::into),
        cases_opened: event.data.cases_opened.clone(),
        by: event.data.decided_by.as_ref().map(|person| person.name.clone()),
        evidence: event.data.decided_by.as_ref().map(|person| person.evidence.clone()),
    }
}

fn tell(
    view: &OrderView,
    references: &[String],
    waits: &StillToCome,
    timeline: &[Step],
    output: Output,
) -> Result<(), CliError> {
    let order = &view.order;
    output.line(format_args!("order     {}   {}", order.order_id, in_words(order)))?;
    output.line(format_args!("for       {}   {}", order.recipient, order.amount))?;
    output.line(format_args!("created   {}", time(order.created_at)))?;
    output.line(format_args!("paid      {}", order.paid_at.map_or("not yet".to_owned(), time)))?;
    output.line(format_args!(
        "deadline  {}   {}",
        time(order.deadline_at),
        order.sla.map_or("not decided yet", Sla::as_str)
    ))?;
    if let Some(provider) = &order.provider {
        output.line(format_args!("provider  {provider}   references {}", references.join(", ")))?;
    }
    waits.tell(output)?;
    output.line("")?;
    for step in timeline {
        let mut notes = String::new();
        for note in [
            (step.attempt > 0).then(|| format!(" attempt {}", step.attempt)),
            step.cause.as_ref().map(|cause| format!("  because {cause}")),
            step.wake_at.as_ref().map(|at| format!("  next at {at}")),
            step.refund_requested.then(|| "  refund requested".to_owned()),
            step.refund_made.as_ref().map(|made| format!("  refund {} made at {}", made.refund_id, made.at)),
            step.by.as_ref().map(|name| format!("  by {name}")),
            step.evidence.as_ref().map(|evidence| format!(": {evidence}")),
        ]
        .into_iter()
        .flatten()
        {
            notes.push_str(&note);
        }
        for case in &step.cases_opened {
            notes.push_str("  case ");
            notes.push_str(case.as_str());
        }
        output.line(format_args!(
            "{:>3}  {}  {:>+10.3} s  {:<16}{notes}",
            step.version, step.at, step.after_seconds, step.event
        ))?;
    }
    Ok(())
}
