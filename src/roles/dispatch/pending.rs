//! Outcomes that are not settled yet, and what is to be done about each.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use crate::domain::inquiry::{ask_again, next_query};
use crate::domain::{Command, Input, Order, Policy, QueryOutcome, SubmitOutcome, Timestamp, Transition};
use crate::ports::{Hold, OutRecord};

use super::Lane;
use super::call::{Outcome, Said};
use super::question::{Asker, Confirming, OwnHold};

/// The rest after a throttling that names no time.
const PAUSE: Duration = Duration::from_secs(1);

/// An outcome that is not written yet, with the row that it is decided on.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) order: Order,
    pub(super) input: Input,
    /// Of a question.
    pub(super) asker: Option<Asker>,
    /// When the next question comes, where it is one and this settles nothing.
    next: Next,
    /// Among the outcomes in hand.
    place: OwnedSemaphorePermit,
}

/// An answer that settled nothing.
#[derive(Debug)]
pub(super) struct Unsettled {
    order: Order,
    next: Next,
    asker: Asker,
    place: OwnedSemaphorePermit,
}

/// When a question is put again.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// It was answered: no sooner than the provider said.
    AtLeast(Duration),
    /// It did not leave.
    Soon,
    /// The answer was all that a callback needed.
    Never,
}

/// What follows from an answer that settled nothing.
#[expect(clippy::large_enum_variant, reason = "it is nearly always the next question")]
pub(super) enum Then {
    /// The command for the next question is written, and then this.
    Ask(OutRecord, Step),
    /// Nobody asks any more, and somebody is told.
    Tell(Box<Pending>),
    /// Nothing.
    Rest,
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Step {
    /// A transition.
    Write(Box<Transition>, Box<Pending>),
    /// Until when nobody asks: the command for the next question is written. With its place among the outcomes in hand.
    AskOn(Hold, OwnHold, OwnedSemaphorePermit),
    /// Nothing: the command that asks once more is written.
    Done(Asker, OwnedSemaphorePermit),
}

/// What is left of a batch that was written.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// To be decided again, on rows as they are now.
    pub(super) again: Vec<Pending>,
    /// To be asked about again.
    pub(super) unsettled: Vec<Unsettled>,
    /// To be decided again in a while.
    pub(super) locked: Vec<Pending>,
}

impl Lane {
    /// The record of what a transition asks for.
    pub(super) fn follow_up_record(&self, transition: &Transition) -> Option<OutRecord> {
        let follow_up = transition.follow_up.as_ref()?;
        // One whose lane is not configured here is found by the watchdog of a process where it is.
        let topics = self.rules.lanes.get(&follow_up.lane)?;
        Some(self.rules.commands.due(topics, &follow_up.command, &transition.after.recipient, self.clock.now()))
    }

    /// A retry or a question as a record.
    pub(super) fn command_record(&self, command: &Command, order: &Order) -> OutRecord {
        self.rules.commands.due(&self.rules.topics, command, &order.recipient, self.clock.now())
    }

    /// The next question about an order, and the hold until then.
    pub(super) fn next_question(&self, one: Unsettled, now: Timestamp, policy: &Policy) -> Then {
        let Unsettled { order, next, asker, place } = one;
        let hold = match asker {
            Asker::Held(hold) => hold,
            Asker::Told(confirming) => return self.confirm_again(confirming, order, next, now, place),
        };
        let provider = policy.provider(self.provider.id());
        let next = provider.and_then(|provider| match next {
            Next::AtLeast(at_least) => next_query(&order, at_least, now, provider),
            Next::Soon => ask_again(&order, now, provider),
            Next::Never => None,
        });
        let Some(next) = next else {
            tracing::debug!(order_id = %order.order_id, "nothing more is asked about it");
            hold.done();
            return Then::Rest;
        };
        let record = self.question_record(&order, next);
        Then::Ask(record, Step::AskOn(hold.replaced_by(&order, next), hold, place))
    }

    /// The same question about an attempt that a callback spoke of, as long as there is hope for an answer; then a person
    /// hears of it.
    fn confirm_again(
        &self,
        confirming: Confirming,
        order: Order,
        next: Next,
        now: Timestamp,
        place: OwnedSemaphorePermit,
    ) -> Then {
        let attempt = confirming.command.attempt;
        let again = match next {
            Next::AtLeast(_) | Next::Soon => confirming.command.again(now),
            Next::Never => {
                Asker::Told(confirming).done();
                return Then::Rest;
            }
        };
        let asker = Asker::Told(confirming);
        if let Some(command) = again {
            return Then::Ask(self.command_record(&command, &order), Step::Done(asker, place));
        }
        warn!(order_id = %order.order_id, attempt, "what a callback said of it was not confirmed in half a day: it gets a case");
        let input = Input::Unconfirmed { attempt };
        Then::Tell(Box::new(Pending { order, input, asker: Some(asker), next: Next::Never, place }))
    }
}

impl Pending {
    pub(super) fn new(Outcome { order, said }: Outcome, place: OwnedSemaphorePermit) -> Self {
        let attempt = order.attempt_number();
        match said {
            Said::Reply { claim_id, outcome } => {
                let input = Input::SubmitReply { attempt, claim_id, outcome };
                Self { order, input, asker: None, next: Next::Soon, place }
            }
            Said::Answer { attempt, asked_at, outcome, asker } => {
                let next = match &outcome {
                    QueryOutcome::Succeeded(_) | QueryOutcome::Failed(_) | QueryOutcome::Reversed(_)
                        if matches!(asker, Asker::Told(_)) =>
                    {
                        Next::Never
                    }
                    QueryOutcome::NotAsked => Next::Soon,
                    QueryOutcome::Unavailable { retry_after } => Next::AtLeast(retry_after.unwrap_or_default()),
                    QueryOutcome::Throttled { retry_after } | QueryOutcome::Banned { retry_after } => {
                        Next::AtLeast(retry_after.unwrap_or(PAUSE))
                    }
                    QueryOutcome::Succeeded(_)
                    | QueryOutcome::InProgress
                    | QueryOutcome::Failed(_)
                    | QueryOutcome::Reversed(_)
                    | QueryOutcome::NotFound
                    | QueryOutcome::ProviderUnknown => Next::AtLeast(Duration::ZERO),
                };
                Self { order, input: Input::Reported { attempt, asked_at, outcome }, asker: Some(asker), next, place }
            }
        }
    }

    /// Whether it is the outcome of a send.
    pub(super) fn is_reply(&self) -> bool {
        matches!(self.input, Input::SubmitReply { .. })
    }

    pub(super) fn unsettled(self) -> Option<Unsettled> {
        let Self { order, asker, next, place, .. } = self;
        Some(Unsettled { asker: asker?, order, next, place })
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
