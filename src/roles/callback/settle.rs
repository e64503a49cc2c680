//! What is proven settles its order, like the answer to a query.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use crate::domain::{Decision, Input, OrderId, Transition, decide};
use crate::ports::{Became, OutRecord, StoreError, Written};
use crate::roles::patience;

use super::batch::{Ended, OnRow};
use super::{Callbacks, Told};

/// A row that moves under a verdict is read again so often.
const ROUNDS: usize = 5;

/// A verdict, the hint that it asks for, and on whose word it is.
struct Verdict {
    transition: Transition,
    hint: Option<OutRecord>,
    one: OnRow,
}

/// What became of a batch of verdicts.
#[derive(Default)]
struct Outcome {
    ended: Ended,
    /// Whose row has moved.
    lost: Vec<Told>,
    /// Whose row somebody holds.
    held: Vec<OrderId>,
}

impl Callbacks {
    /// Decides on what is proven, and writes it; returns the orders whose rows somebody holds, of which nothing more is
    /// asked in this batch: each look at one costs the others the wait for its lock.
    pub(super) async fn settle(
        &self,
        mut open: Vec<OnRow>,
        abort: &CancellationToken,
    ) -> Result<HashSet<OrderId>, StoreError> {
        let mut held = HashSet::new();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let (now, policy) = (self.clock.now(), self.policy());
            let (mut verdicts, mut later, mut known) = (Vec::new(), Vec::new(), Ended::new());
            let mut touched = HashSet::new();
            for one in open {
                // Two words about one order are decided on one behind the other.
                if !touched.insert(one.told.order_id.clone()) {
                    later.push(one.told);
                    continue;
                }
                let input =
                    Input::Reported { attempt: one.told.attempt, asked_at: now, outcome: one.told.news.said.clone() };
                match decide(Some(&one.order), &input, now, &policy) {
                    Decision::Apply(transition) => {
                        let hint = self.hint(&transition);
                        verdicts.push(Verdict { transition: *transition, hint, one });
                    }
                    Decision::Keep(_) => known.push((one.told, Became::Known)),
                }
            }
            self.close(known).await?;
            // What needs no broker does not wait for one.
            let (hinted, direct): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|one| one.hint.is_some());
            for verdicts in [direct, hinted] {
                let outcome = self.write(verdicts, abort).await?;
                self.close(outcome.ended).await?;
                later.extend(outcome.lost);
                held.extend(outcome.held);
            }
            later.retain(|told| !held.contains(&told.order_id));
            open = self.rows(later).await?;
        }
        Ok(held)
    }

    /// Writes verdicts, each after the hint that it asks for.
    async fn write(&self, verdicts: Vec<Verdict>, abort: &CancellationToken) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        let (mut hints, mut decided) = (Vec::with_capacity(verdicts.len()), Vec::with_capacity(verdicts.len()));
        for Verdict { transition, hint, one } in verdicts {
            hints.push(hint);
            decided.push((transition, one));
        }
        let mut kept = self.publish(hints).await.into_iter();
        let (transitions, writing): (Vec<Transition>, Vec<OnRow>) =
            decided.into_iter().filter(|_| kept.next().unwrap_or(false)).unzip();
        if transitions.is_empty() {
            return Ok(outcome);
        }
        let written = patience::applied_promptly("callback", self.store.as_ref(), &transitions, abort).await?;
        for ((transition, one), written) in transitions.iter().zip(writing).zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(transition);
                    outcome.ended.push((one.told, Became::Settled));
                }
                Written::Overtaken => outcome.lost.push(one.told),
                // It is sent again, and by then somebody may have let go of the row.
                Written::Locked => outcome.held.push(one.order.order_id),
                Written::Refused => {}
            }
        }
        Ok(outcome)
    }

    /// What a verdict asks for next. Its lane is the order's, which need not be the caller's.
    fn hint(&self, transition: &Transition) -> Option<OutRecord> {
        let follow_up = transition.follow_up.as_ref()?;
        // One whose lane is not configured here is found by the watchdog of a process where it is.
        let topics = self.rules.lanes.get(&follow_up.lane)?;
        let now = self.clock.now();
        Some(self.rules.commands.due(topics, &follow_up.command, &transition.after.recipient, now))
    }
}
