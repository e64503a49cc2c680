//! Settlement: outcomes become transitions, in batches. What needs no follow-up is written at once. A
//! wait is published before its row is committed (hint before state, `hints`), so that a crash between the two
//! loses nothing: a hint that is ahead of its row waits, one that its row never asked for dies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::domain::{Decision, Input, OrderId, QueryOutcome, Timestamp, Transition, decide};
use crate::faults::{Bug, is_planted};
use crate::ports::{Hold, Loaded, StoreError, Written};
use crate::roles::{RoleError, patience};

use super::Lane;
use super::call::Outcome;
use super::hints::Hints;
use super::pending::{Ended, Pending, Step, Then, Unsettled};
use super::question::{Asker, OwnHold};

/// Outcomes wait this long for company.
const LINGER_QUIET: Duration = Duration::from_millis(2);
const LINGER_BUSY: Duration = Duration::from_millis(10);
/// An outcome whose row somebody holds is written after this long.
const LOCKED_FOR: Duration = Duration::from_secs(5);

/// The loop that settles. It decides; what is slow runs in tasks.
struct Settlement {
    lane: Lane,
    abort: CancellationToken,
    /// One for each outcome that may be in hand: with none left, calls wait with their places.
    places: Arc<Semaphore>,
    /// What waits for a free writer, and what is being written.
    direct: Vec<Step>,
    writing: JoinSet<Result<Ended, StoreError>>,
    /// What waits for its hint to be written, then for its row.
    hints: Hints,
    /// Until when the fleet is to rest, where it was not told yet; and the telling.
    rest_until: Option<Timestamp>,
    /// What the fleet was told of the provider's limit.
    used_up_until: Option<Timestamp>,
    resting: JoinSet<()>,
    /// What somebody's lock kept from being written.
    locked: JoinSet<Vec<Pending>>,
}

impl Lane {
    /// Settles until every sender is gone and every batch is written.
    pub(super) async fn settle_all(
        self,
        mut outcomes: mpsc::Receiver<Outcome>,
        abort: CancellationToken,
    ) -> Result<(), RoleError> {
        let most = self.rules.heap_max.max(self.rules.batch_max).max(1);
        let mut settlement = Settlement {
            places: Arc::new(Semaphore::new(most)),
            direct: Vec::new(),
            writing: JoinSet::new(),
            hints: Hints::default(),
            rest_until: None,
            used_up_until: None,
            resting: JoinSet::new(),
            locked: JoinSet::new(),
            lane: self,
            abort,
        };
        let mut is_open = true;
        loop {
            settlement.start();
            if !is_open && settlement.is_done() {
                break;
            }
            let writers_free = settlement.writing.len() < settlement.lane.rules.writers.max(1);
            let room = settlement.places.available_permits().min(settlement.lane.rules.batch_max);
            let mut batch = Vec::new();
            tokio::select! {
                biased; // What is under way ends first: it frees writers and places.
                Some(ended) = settlement.writing.join_next() => settlement.take_ended(ended)?,
                Some(ended) = settlement.hints.next() => settlement.take_ended(ended)?,
                Some(again) = settlement.locked.join_next() => {
                    settlement.decide(again.map_err(|error| RoleError::Task(error.to_string()))?);
                }
                Some(told) = settlement.resting.join_next() => {
                    told.map_err(|error| RoleError::Task(error.to_string()))?;
                }
                received = outcomes.recv_many(&mut batch, room), if is_open && writers_free && room > 0 => {
                    is_open = received > 0;
                    settlement.gather(&mut batch, room, &mut outcomes).await;
                    settlement.take_outcomes(batch);
                }
            }
        }
        Ok(())
    }

    /// Publishes what transitions ask for: a retry that waits, a question.
    pub(super) async fn publish_waits(&self, transitions: &[Transition], abort: &CancellationToken) -> bool {
        let records = transitions.iter().filter_map(|transition| self.follow_up_record(transition)).collect::<Vec<_>>();
        records.is_empty() || patience::published("retry", self.publisher.as_ref(), records, abort).await
    }

    /// Writes steps whose hints are written; returns what is to be decided again, and asked again.
    pub(super) async fn write(self, steps: Vec<Step>, abort: &CancellationToken) -> Result<Ended, StoreError> {
        let mut ended = Ended::default();
        let (mut replaced, mut places): (Vec<(Hold, OwnHold)>, Vec<_>) = (Vec::new(), Vec::new());
        let (mut transitions, mut pending) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for step in steps {
            match step {
                Step::Write(transition, one) => {
                    transitions.push(*transition);
                    pending.push(*one);
                }
                Step::AskOn(hold, own, place) => {
                    replaced.push((hold, own));
                    places.push(place);
                }
                Step::Done(asker, place) => {
                    asker.done();
                    drop(place);
                }
            }
        }
        self.write_settlements(&transitions, pending, &mut ended, &mut replaced, abort).await?;
        if is_planted(Bug::HintAfterState) && !self.publish_waits(&transitions, abort).await {
            return Ok(ended);
        }
        let (holds, done): (Vec<_>, Vec<_>) = replaced.into_iter().unzip();
        self.release(holds, abort).await?;
        done.into_iter().for_each(OwnHold::done);
        drop(places);
        Ok(ended)
    }

    /// Writes transitions. What lost the fence is decided again, on the row as it is now. Of what was written by
    /// an answer, `replaced` takes what is asked on by a new command; the rest is asked on as before.
    async fn write_settlements(
        &self,
        transitions: &[Transition],
        pending: Vec<Pending>,
        ended: &mut Ended,
        replaced: &mut Vec<(Hold, OwnHold)>,
        abort: &CancellationToken,
    ) -> Result<(), StoreError> {
        if transitions.is_empty() {
            return Ok(());
        }
        let written = patience::applied("settle", self.store.as_ref(), transitions, abort).await?;
        self.give_back(transitions, &written).await;
        let mut lost: Vec<Pending> = Vec::new();
        for ((transition, mut one), written) in transitions.iter().zip(pending).zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(transition);
                    self.settled(&one);
                    one.order = transition.after.clone();
                    match (one.asker.take(), &transition.follow_up) {
                        (Some(Asker::Held(hold)), Some(follow_up)) => {
                            // Also where it is sent again: the provider counts by the reference.
                            let interval = self.provider.capabilities().query_min_interval;
                            let rested = crate::domain::plus(self.clock.now(), interval);
                            let until = follow_up.command.wake_at.map_or(rested, |wake_at| wake_at.max(rested));
                            replaced.push((hold.replaced_by(&transition.after, until), hold));
                        }
                        (Some(Asker::Held(hold)), None) => {
                            one.asker = Some(Asker::Held(hold));
                            ended.unsettled.extend(one.unsettled());
                        }
                        (Some(told @ Asker::Told(_)), _) => told.done(),
                        (None, _) => {}
                    }
                }
                Written::Overtaken => lost.push(one),
                Written::Locked => ended.locked.push(one),
                // What became of it is asked about again, and its deadline tells of it.
                Written::Refused => {
                    self.settled(&one);
                    ended.unsettled.extend(one.unsettled());
                }
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        let ids: Vec<OrderId> = lost.iter().map(|one| one.order.order_id.clone()).collect();
        let rows = patience::stored_unless("load", abort, || self.store.load(&ids)).await?;
        for (mut one, row) in lost.into_iter().zip(rows) {
            if let Loaded::Unreadable(why) = &row {
                patience::unreadable(&one.order.order_id, why);
            }
            let Some(row) = row.order() else {
                self.settled(&one);
                if let Some(asker) = one.asker.take() {
                    asker.done();
                }
                continue;
            };
            one.order = row;
            // What the provider did not find may have been sent since: it is asked again.
            if matches!(&one.input, Input::Reported { outcome: QueryOutcome::NotFound, .. }) {
                ended.unsettled.extend(one.unsettled());
            } else {
                ended.again.push(one);
            }
        }
        Ok(())
    }

    /// The outcome of a send is written, or changes nothing. Those of questions are not counted, since their
    /// commands come again.
    fn settled(&self, one: &Pending) {
        if one.is_reply() {
            self.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A provider that asks us to slow down is heard by the whole fleet.
    async fn rest(self, until: Timestamp) {
        if let Err(error) = self.quota.pause(self.provider.id(), until).await {
            warn!(provider = %self.provider.id(), error = ?error, "a throttled lane could not be paused");
        }
    }
}

impl Settlement {
    /// Until when the provider says that our limit is used up, where the fleet was not told so yet.
    fn new_limit(&mut self, now: Timestamp) -> Option<Timestamp> {
        let until =
            self.lane.provider.used_up_until().filter(|until| *until > now && Some(*until) > self.used_up_until)?;
        self.used_up_until = Some(until);
        Some(until)
    }

    fn is_done(&self) -> bool {
        self.writing.is_empty() && self.hints.is_empty() && self.resting.is_empty() && self.locked.is_empty()
    }

    /// Lets a batch grow for a moment.
    async fn gather(&self, batch: &mut Vec<Outcome>, most: usize, outcomes: &mut mpsc::Receiver<Outcome>) {
        let until = Instant::now() + if self.writing.is_empty() { LINGER_QUIET } else { LINGER_BUSY };
        while !batch.is_empty() && batch.len() < most {
            // A look now and then: being woken by each outcome would cost more than it is worth.
            match outcomes.try_recv() {
                Ok(outcome) => batch.push(outcome),
                Err(TryRecvError::Empty) if Instant::now() < until => tokio::time::sleep(LINGER_QUIET).await,
                Err(_) => break,
            }
        }
    }

    fn take_outcomes(&mut self, batch: Vec<Outcome>) {
        let now = self.lane.clock.now();
        let rest = batch.iter().filter_map(|outcome| outcome.said.asks_for_rest()).max();
        let rest = rest.map(|rest| crate::domain::plus(now, rest));
        self.rest_until = self.rest_until.max(rest).max(self.new_limit(now));
        if let Some(rest) = batch.iter().filter_map(|outcome| outcome.said.asks_for_no_questions()).max() {
            self.lane.no_questions.until(crate::domain::plus(now, rest));
        }
        let pending = batch.into_iter().filter_map(|outcome| {
            // There is one: no more were taken than there are.
            let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
            Some(Pending::new(outcome, place))
        });
        let pending = pending.collect();
        self.decide(pending);
    }

    /// Decides, and sends each outcome its way.
    fn decide(&mut self, open: Vec<Pending>) {
        let (now, policy) = (self.lane.clock.now(), self.lane.policy());
        let mut unsettled = Vec::new();
        for one in open {
            match decide(Some(&one.order), &one.input, now, &policy) {
                Decision::Apply(transition) => {
                    let hint = self.lane.follow_up_record(&transition).filter(|_| !is_planted(Bug::HintAfterState));
                    let step = Step::Write(transition, Box::new(one));
                    match hint {
                        Some(record) => self.hints.push(record, step),
                        None => self.direct.push(step),
                    }
                }
                Decision::Keep(why) => {
                    debug!(order_id = %one.order.order_id, ?why, "an outcome changes nothing");
                    self.lane.settled(&one);
                    unsettled.extend(one.unsettled());
                }
            }
        }
        self.ask_on(unsettled);
    }

    /// Sees to it that what was not settled is asked about again: the command first, then the hold
    /// that keeps others back until then, so that a crash between the two costs nothing.
    fn ask_on(&mut self, unsettled: Vec<Unsettled>) {
        let (now, policy) = (self.lane.clock.now(), self.lane.policy());
        let mut telling = Vec::new();
        for one in unsettled {
            match self.lane.next_question(one, now, &policy) {
                Then::Ask(_, step) if is_planted(Bug::ForgetTheQuestion) => self.direct.push(step),
                Then::Ask(record, step) => self.hints.push(record, step),
                Then::Tell(pending) => telling.push(*pending),
                Then::Rest => {}
            }
        }
        if !telling.is_empty() {
            self.decide(telling);
        }
    }

    /// Starts every task that can start now.
    fn start(&mut self) {
        self.hints.start(&self.lane, &self.abort);
        while self.writing.len() < self.lane.rules.writers.max(1) && !self.direct.is_empty() {
            let batch: Vec<Step> = self.direct.drain(..self.direct.len().min(self.lane.rules.batch_max)).collect();
            let (lane, abort) = (self.lane.clone(), self.abort.clone());
            self.writing.spawn(async move { lane.write(batch, &abort).await });
        }
        if self.resting.is_empty()
            && let Some(until) = self.rest_until.take()
        {
            let (lane, abort) = (self.lane.clone(), self.abort.clone());
            self.resting.spawn(async move {
                tokio::select! {
                    biased; // A store that hangs must not hold up the end.
                    () = abort.cancelled() => {}
                    () = lane.rest(until) => {}
                }
            });
        }
    }

    fn take_ended(
        &mut self,
        ended: Result<Result<Ended, StoreError>, tokio::task::JoinError>,
    ) -> Result<(), RoleError> {
        match ended {
            Ok(Ok(Ended { again, unsettled, locked })) => {
                self.decide(again);
                self.ask_on(unsettled);
                if !locked.is_empty() {
                    let abort = self.abort.clone();
                    self.locked.spawn(async move {
                        tokio::select! {
                            biased; // Told to drop everything: the rows say `in_flight`, and are asked about later.
                            () = abort.cancelled() => Vec::new(),
                            () = tokio::time::sleep(LOCKED_FOR) => locked,
                        }
                    });
                }
                Ok(())
            }
            // Told to drop everything: the rows say `in_flight`, and are asked about later.
            Ok(Err(_)) if self.abort.is_cancelled() => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(RoleError::Task(error.to_string())),
        }
    }
}
