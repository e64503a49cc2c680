//! Outcomes that are not settled yet, and what is to be done about each.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::domain::inquiry::next_query;
use crate::domain::{Command, Input, Order, Policy, QueryOutcome, SubmitOutcome, Timestamp, Transition};
use crate::ports::{Hold, OutRecord};

use super::Lane;
use super::call::{Outcome, Said};
use super::question::OwnHold;

/// The rest after a throttling that names no time.
const PAUSE: Duration = Duration::from_secs(1);

/// An outcome that is not written yet, with the row that it is decided on.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) order: Order,
    pub(super) input: Input,
    /// Of a question.
    pub(super) hold: Option<OwnHold>,
    /// Before the next question, as the provider said.
    at_least: Duration,
    /// Among the outcomes in hand.
    place: OwnedSemaphorePermit,
}

/// An answer that settled nothing.
#[derive(Debug)]
pub(super) struct Unsettled {
    order: Order,
    at_least: Duration,
    hold: OwnHold,
    place: OwnedSemaphorePermit,
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Step {
    /// A transition.
    Write(Box<Transition>, Box<Pending>),
    /// Until when nobody asks: the command for the next question is written. With its place among the outcomes in hand.
    AskOn(Hold, OwnHold, OwnedSemaphorePermit),
}

/// What is left of a batch that was written.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// To be decided again, on rows as they are now.
    pub(super) again: Vec<Pending>,
    /// To be asked about again.
    pub(super) unsettled: Vec<Unsettled>,
}

impl Lane {
    /// The record of what a transition asks for.
    pub(super) fn follow_up_record(&self, transition: &Transition) -> Option<OutRecord> {
        Some(self.command_record(&transition.follow_up.as_ref()?.command, &transition.after))
    }

    /// A retry or a question as a record.
    pub(super) fn command_record(&self, command: &Command, order: &Order) -> OutRecord {
        self.rules.commands.due(&self.rules.topics, command, &order.recipient, self.clock.now())
    }

    /// The next question about an order, and the hold until then; `None` where nothing is left to ask.
    pub(super) fn next_question(&self, one: Unsettled, now: Timestamp, policy: &Policy) -> Option<(OutRecord, Step)> {
        let Unsettled { order, at_least, hold, place } = one;
        let provider = policy.provider(self.provider.id());
        let Some(next) = provider.and_then(|provider| next_query(&order, at_least, now, provider)) else {
            tracing::debug!(order_id = %order.order_id, "nothing more is asked about it");
            hold.done();
            return None;
        };
        let record = self.question_record(&order, next);
        Some((record, Step::AskOn(hold.replaced_by(&order, next), hold, place)))
    }
}

impl Pending {
    pub(super) fn new(Outcome { order, said }: Outcome, place: OwnedSemaphorePermit) -> Self {
        let attempt = order.attempt_number();
        match said {
            Said::Reply { claim_id, outcome } => {
                let input = Input::SubmitReply { attempt, claim_id, outcome };
                Self { order, input, hold: None, at_least: Duration::ZERO, place }
            }
            Said::Answer { asked_at, outcome, hold } => {
                let at_least = match &outcome {
                    QueryOutcome::Unavailable { retry_after } => retry_after.unwrap_or_default(),
                    QueryOutcome::Throttled { retry_after } | QueryOutcome::Banned { retry_after } => {
                        retry_after.unwrap_or(PAUSE)
                    }
                    QueryOutcome::Succeeded(_)
                    | QueryOutcome::InProgress
                    | QueryOutcome::Failed(_)
                    | QueryOutcome::Reversed(_)
                    | QueryOutcome::NotFound
                    | QueryOutcome::ProviderUnknown => Duration::ZERO,
                };
                Self { order, input: Input::Reported { attempt, asked_at, outcome }, hold: Some(hold), at_least, place }
            }
        }
    }

    /// Whether it is the outcome of a send.
    pub(super) fn is_reply(&self) -> bool {
        matches!(self.input, Input::SubmitReply { .. })
    }

    pub(super) fn unsettled(self) -> Option<Unsettled> {
        let Self { order, hold, at_least, place, .. } = self;
        Some(Unsettled { hold: hold?, order, at_least, place })
    }
}

impl Said {
    /// How long the provider wants nothing of ours.
    pub(super) fn asks_for_rest(&self) -> Option<Duration> {
        match self {
            Self::Reply { outcome: SubmitOutcome::Throttled { retry_after }, .. }
            | Self::Answer { outcome: QueryOutcome::Banned { retry_after }, .. } => Some(retry_after.unwrap_or(PAUSE)),
            Self::Reply { .. } | Self::Answer { .. } => None,
        }
    }

    /// How long the provider wants none of our questions.
    pub(super) fn asks_for_no_questions(&self) -> Option<Duration> {
        match self {
            Self::Answer { outcome: QueryOutcome::Throttled { retry_after }, .. } => Some(retry_after.unwrap_or(PAUSE)),
            Self::Reply { .. } | Self::Answer { .. } => None,
        }
    }
}
