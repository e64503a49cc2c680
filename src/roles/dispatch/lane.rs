//! The loop that owns a lane's state: heaps, permits, and what is under way. Everything slow
//! runs in tasks; the loop only decides what starts next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::domain::inbound::Unfit;
use crate::domain::{Command, CommandKind, Timestamp};
use crate::ports::{Ack, ActedOn, Grant, InRecord, PermitClass, ReadMark, StoreError, Subscription, command_record};
use crate::roles::{RoleError, StopSignals, dead_letter, patience};

use super::Lane;
use super::adopt::Adoption;
use super::arrivals::Arrivals;
use super::call::{Calls, Outcome, finish};
use super::claim::Leftover;
use super::heap::Queued;
use super::put_off::{PutOff, PuttingOff};
use super::queue::Queues;
use super::reading::{held_until, read_command};
use super::reroute::Staying;
use super::slots::Slots;

/// The next try after the store could not be asked for permits.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Without anything to wait for, the loop still looks around this often.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// How far the fresh orders were read is noted this often.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// What could not be put off is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Questions of orders whose deadline has passed fill no more than this part of the room for questions,
const LATE_PART: usize = 4;
/// or, where they are soon asked, all but this part.
const LATE_LEAVES: usize = 4;
/// A question that finds no room comes back after this long.
const BACK_AFTER: Duration = Duration::from_secs(5);

/// What a task of the lane has come to.
pub(super) enum Event {
    Granted(PermitClass, Result<Grant, StoreError>),
    Claimed(Result<(Leftover, Calls), StoreError>, Duration),
    Asked(Result<(Leftover, Calls), StoreError>),
    Adopted(Result<usize, StoreError>),
    Noted(Result<(), StoreError>),
    /// With what could not be.
    PutOff(Vec<Queued>),
    /// With what stays.
    Rerouted(Result<Staying, StoreError>),
    PassedOn(Result<Staying, StoreError>),
    Buried,
}

/// All of a lane's state; what it starts next is in `start`.
#[expect(clippy::struct_excessive_bools, reason = "each tells of a task of its own, or of what was told")]
pub(super) struct Scheduler {
    pub(super) lane: Arc<Lane>,
    pub(super) stop: StopSignals,
    pub(super) queues: Queues,
    pub(super) slots: Slots,
    pub(super) under_way: JoinSet<Event>,
    pub(super) claims: usize,
    /// A batch of questions is being held.
    pub(super) asking: bool,
    /// What the board was told.
    pub(super) is_sick: bool,
    /// A batch is on its way to another lane.
    pub(super) rerouting: bool,
    /// So is one whose numbers cool down for too long here.
    pub(super) passing_on: bool,
    pub(super) adoption: Adoption,
    pub(super) put_off: PuttingOff,
    /// When to note next how far the fresh orders were read.
    note_at: Timestamp,
    /// How long a claim takes, over the last few.
    pub(super) claim_time: Duration,
    /// Since when claims could have been made.
    pub(super) claimable_since: Option<Timestamp>,
    pub(super) arrivals: Arrivals,
    /// The next look for commands of revoked partitions.
    pub(super) purge_at: Timestamp,
    calls: JoinSet<()>,
    pub(super) settle: mpsc::Sender<Outcome>,
}

impl Lane {
    /// Works until told to stop or until a subscription ends. `fresh` and `due` are the lane's
    /// two topics.
    pub async fn run(
        self,
        mut fresh: Box<dyn Subscription>,
        mut due: Box<dyn Subscription>,
        stop: StopSignals,
    ) -> Result<(), RoleError> {
        let (settle, outcomes) = mpsc::channel(self.rules.batch_max.max(1) * 2);
        // In a set, so that it ends with this future, whatever ends it.
        let mut settlement = JoinSet::new();
        settlement.spawn(self.clone().settle_all(outcomes, stop.abort.clone()));
        let (abort, unsettled) = (stop.abort.clone(), Arc::clone(&self.unsettled));
        let mut scheduler = Scheduler::new(self, stop, settle);
        let worked = scheduler.work(fresh.as_mut(), due.as_mut()).await;
        scheduler.finish().await;
        let ended = match settlement.join_next().await {
            Some(Ok(settled)) => worked.and(settled),
            Some(Err(error)) => Err(RoleError::Task(error.to_string())),
            None => worked,
        };
        match unsettled.load(Ordering::Relaxed) {
            left @ 1.. if ended.is_ok() && abort.is_cancelled() => Err(RoleError::Left(format!(
                "the outcomes of up to {left} calls were not written: their orders rest as in_flight, to be asked about"
            ))),
            _ => ended,
        }
    }
}

/// Of a command that comes on `.due`.
fn class_of_due(command: &Command) -> PermitClass {
    match command.kind {
        CommandKind::Submit => PermitClass::Retry,
        CommandKind::Query | CommandKind::Confirm => PermitClass::Query,
    }
}

/// How many questions of orders whose deadline has passed are kept: as many as are asked within a second, where that is
/// more than their part.
fn late_max(rules: &super::LaneRules, rests: bool) -> usize {
    let part = rules.heap_max / LATE_PART;
    if rests {
        return part;
    }
    let per_second = rules.terms.query_share / rules.terms.interval.as_secs_f64();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
    let per_second = per_second as usize;
    per_second.clamp(part, part.max(rules.heap_max - rules.heap_max / LATE_LEAVES))
}

impl Scheduler {
    fn new(lane: Lane, stop: StopSignals, settle: mpsc::Sender<Outcome>) -> Self {
        lane.metrics.quota(1.0 / lane.rules.terms.interval.as_secs_f64());
        Self {
            queues: Queues::new(lane.rules.heap_max),
            slots: Slots::new(lane.rules.in_flight_max, &lane.rules.terms),
            put_off: PuttingOff::new(lane.rules.batch_max),
            lane: Arc::new(lane),
            stop,
            under_way: JoinSet::new(),
            claims: 0,
            asking: false,
            is_sick: false,
            rerouting: false,
            passing_on: false,
            adoption: Adoption::default(),
            note_at: Timestamp::default(),
            claim_time: Duration::ZERO,
            claimable_since: None,
            arrivals: Arrivals::default(),
            purge_at: Timestamp::default(),
            calls: JoinSet::new(),
            settle,
        }
    }

    async fn work(&mut self, fresh: &mut dyn Subscription, due: &mut dyn Subscription) -> Result<(), RoleError> {
        loop {
            let assignments = fresh.assignments() + due.assignments();
            self.adoption.note(assignments, self.lane.clock.now(), self.lane.adopt_after());
            self.note_read(fresh);
            let wake = self.start_what_can();
            let now = self.lane.clock.now();
            let sleep = (wake - now).to_std().unwrap_or_default().max(Duration::from_millis(1)).min(IDLE);
            let fresh_room = self.queues.fresh.heap.room();
            // Neither do retries wait behind questions nor these behind those: one that finds no room is put off, or let go.
            let due_room = self.queues.retry.heap.room().min(self.queues.query.heap.room()) + self.put_off.room();
            let (freed, settle) = (self.slots.freed(), self.settle.clone());
            let no_slot = self.slots.free() == 0;
            tokio::select! {
                // Stopping comes first; then what frees permits and slots; then retries, which
                // have less time left than fresh orders; the clock last.
                biased;
                () = self.stop.drain.cancelled() => return Ok(()),
                // The settlement has failed; its own error says why.
                () = settle.closed() => return Ok(()),
                Some(event) = self.under_way.join_next() => self.take_event(event)?,
                Some(ended) = self.calls.join_next() => {
                    call_ended(ended)?;
                    while let Some(ended) = self.calls.try_join_next() {
                        call_ended(ended)?;
                    }
                }
                records = due.next(due_room), if due_room > 0 => self.take_records(records?),
                records = fresh.next(fresh_room), if fresh_room > 0 => self.take_records(records?),
                () = freed.notified(), if no_slot => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Tells the watchdog how far the fresh orders were read, so that it can tell a command that was
    /// lost from one that waits.
    fn note_read(&mut self, fresh: &dyn Subscription) {
        let now = self.lane.clock.now();
        if now < self.note_at {
            return;
        }
        self.note_at = now + NOTE_EVERY;
        let mark = |read: ActedOn| {
            let age = chrono::TimeDelta::from_std(read.age).ok()?;
            Some(ReadMark { partition: read.partition, up_to: now.checked_sub_signed(age)? })
        };
        let marks: Vec<ReadMark> = fresh.acted_on().into_iter().filter_map(mark).collect();
        if !marks.is_empty() {
            let (read_marks, topic) = (Arc::clone(&self.lane.read_marks), self.lane.rules.topics.requests.clone());
            self.under_way.spawn(async move { Event::Noted(read_marks.note_read(&topic, &marks).await) });
        }
    }

    fn take_event(&mut self, event: Result<Event, tokio::task::JoinError>) -> Result<(), RoleError> {
        match event.map_err(|error| RoleError::Task(error.to_string()))? {
            Event::Granted(class, granted) => self.take_grant(class, granted)?,
            Event::Claimed(claimed, took) => {
                self.claims -= 1;
                self.claim_time = (self.claim_time * 3 + took) / 4;
                self.take_begun(claimed)?;
            }
            Event::Asked(held) => {
                self.asking = false;
                self.take_begun(held)?;
            }
            Event::Adopted(Err(error)) if !self.stop.abort.is_cancelled() => return Err(error.into()),
            Event::Adopted(_) => self.adoption.looked(self.lane.clock.now()),
            Event::Noted(Err(error)) => debug!(error = ?error, "how far was read is noted the next time"),
            Event::Rerouted(Ok(stay)) => {
                self.rerouting = false;
                self.take_staying(stay);
            }
            Event::PassedOn(Ok(stay)) => {
                self.passing_on = false;
                self.take_staying(stay);
            }
            Event::Rerouted(Err(_)) | Event::PassedOn(Err(_)) if self.stop.abort.is_cancelled() => {}
            Event::Rerouted(Err(error)) | Event::PassedOn(Err(error)) => return Err(error.into()),
            Event::PutOff(left) => {
                self.put_off.ended();
                let now = self.lane.clock.now();
                for queued in left {
                    self.queues.of(class_of_due(&queued.command)).heap.push(queued, Some(now + LOOK_AGAIN), now);
                }
            }
            Event::Noted(Ok(())) | Event::Buried => {}
        }
        Ok(())
    }

    fn take_begun(&mut self, begun: Result<(Leftover, Calls), StoreError>) -> Result<(), RoleError> {
        match begun {
            Ok((leftover, calls)) => {
                self.take_leftover(leftover);
                if !calls.is_empty() {
                    self.calls.spawn(finish(calls));
                }
                Ok(())
            }
            Err(_) if self.stop.abort.is_cancelled() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_grant(&mut self, class: PermitClass, granted: Result<Grant, StoreError>) -> Result<(), RoleError> {
        let now = self.lane.clock.now();
        let stock = &mut self.queues.of(class).permits;
        stock.asking = 0;
        match granted {
            Ok(grant) => {
                self.lane.metrics.permits("granted", grant.send_at.len() as u64);
                stock.add(grant);
            }
            Err(error) if error.is_transient() => {
                debug!(error = ?error, "no permits while the store is away");
                stock.ask_later(now + ASK_AGAIN);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn take_leftover(&mut self, leftover: Leftover) {
        let now = self.lane.clock.now();
        for (class, permit) in leftover.permits {
            self.queues.of(class).permits.give_back([permit]);
        }
        for one in leftover.later {
            if self.put_off.room() > 0 {
                self.put_off.push(one);
            } else {
                let class = class_of_due(&one.queued.command);
                self.queues.of(class).heap.push(one.queued, Some(now + LOOK_AGAIN), now);
            }
        }
        for (queued, class, until) in leftover.again {
            self.queues.of(class).heap.push(queued, Some(until), now);
        }
        self.pass_on(leftover.too_cool);
    }

    fn take_records(&mut self, records: Vec<InRecord>) {
        let now = self.lane.clock.now();
        let mut poison = Vec::new();
        for record in records {
            match read_command(&record, now) {
                Ok(command) => {
                    let is_due = command.kind != CommandKind::Submit || record.topic == self.lane.rules.topics.due;
                    match if is_due { class_of_due(&command) } else { PermitClass::Fresh } {
                        PermitClass::Fresh => {
                            self.arrivals.note(now);
                            self.keep(PermitClass::Fresh, command, record.ack, now);
                        }
                        PermitClass::Retry => self.keep_or_put_off(command, record, now),
                        PermitClass::Query => self.take_question(command, record, now),
                    }
                }
                Err(unfit) => poison.push((record, unfit)),
            }
        }
        if !poison.is_empty() {
            self.bury(poison);
        }
    }

    /// Takes a question, if there is room for it. One about an order whose deadline has passed has a case, or gets one, and
    /// the case brings it back a minute after its time (`watchdog/cases.rs`): of these so many are kept, and the others let go,
    /// so that a backlog in doubt leaves room for what can still be in time. One that can be is never let go.
    fn take_question(&mut self, command: Command, record: InRecord, now: Timestamp) {
        let rests = self.lane.no_questions.ends_at(now).is_some();
        let kept = self.queues.query.heap.len();
        let has_case = command.kind == CommandKind::Query && command.deadline_at <= now;
        if has_case && kept >= late_max(&self.lane.rules, rests) {
            debug!(order_id = %command.order_id, "a late question is let go: its case brings it back");
            record.ack.done();
        } else {
            self.keep_or_put_off(command, record, now);
        }
    }

    /// When there may be room again. A retry comes back when those before it have had their turn, as far as its deadline
    /// lets it wait: coming sooner it would be put off again and again.
    fn back_after(&self, class: PermitClass, command: &Command, now: Timestamp) -> Duration {
        if class == PermitClass::Query {
            return BACK_AFTER;
        }
        let terms = &self.lane.rules.terms;
        let turns = u32::try_from(self.lane.rules.heap_max).unwrap_or(u32::MAX);
        let kept = f64::from(turns) * terms.interval.as_secs_f64() / terms.retry_share.max(0.01);
        let left = (command.deadline_at - now).to_std().unwrap_or_default() / 2;
        Duration::try_from_secs_f64(kept).unwrap_or(left).min(left).max(BACK_AFTER)
    }

    fn keep(&mut self, class: PermitClass, command: Command, ack: Ack, now: Timestamp) {
        let until = held_until(&command, now);
        self.queues.of(class).heap.push(Queued { command, ack, put_back: 0 }, until, now);
    }

    /// Keeps a command of `.due`, if there is room for its class; else it comes back through the delay topics in a moment.
    fn keep_or_put_off(&mut self, command: Command, record: InRecord, now: Timestamp) {
        let class = class_of_due(&command);
        if self.queues.of(class).heap.room() > 0 || self.put_off.room() == 0 {
            self.keep(class, command, record.ack, now);
            return;
        }
        let InRecord { topic, key, ack, .. } = record;
        let back_at =
            crate::domain::plus(now, self.back_after(class, &command, now)).max(command.wake_at.unwrap_or(now));
        let command = Command { wake_at: Some(back_at), ..command };
        let record = command_record(&topic, key.unwrap_or_default(), &command);
        let record = self.lane.rules.commands.tiers.put_off(record, back_at, now);
        self.put_off.push(PutOff { queued: Queued { command, ack, put_back: 0 }, record });
    }

    /// Writes unusable commands to the dead letters; their offsets move once that is acknowledged.
    fn bury(&mut self, poison: Vec<(InRecord, Unfit)>) {
        let (lane, abort) = (Arc::clone(&self.lane), self.stop.abort.clone());
        self.under_way.spawn(async move {
            let now = lane.clock.now();
            let mut letters = Vec::with_capacity(poison.len());
            for (record, unfit) in &poison {
                warn!(topic = %record.topic, partition = record.partition, offset = record.offset,
                    reason = %unfit.reason, "a record goes to the dead letters: {}", unfit.detail);
                letters.push(dead_letter::record(&lane.rules.dead_letters, record, unfit, now));
            }
            if patience::published("dead letters", lane.publisher.as_ref(), letters, &abort).await {
                for (record, unfit) in poison {
                    crate::metrics::dead_letter(&record.topic, unfit.reason.as_str(), 1);
                    record.ack.done();
                }
            }
            Event::Buried
        });
    }

    /// Lets claims and calls under way come to their end; takes nothing new. Told to drop
    /// everything, it leaves them: the rows say what may have been sent.
    async fn finish(mut self) {
        let abort = self.stop.abort.clone();
        let ending = async {
            while let Some(event) = self.under_way.join_next().await {
                if let Err(error) = self.take_event(event) {
                    error!(error = ?error, "a claim could not be ended");
                }
            }
            while self.calls.join_next().await.is_some() {}
        };
        tokio::select! {
            biased; // Being told to drop everything comes first.
            () = abort.cancelled() => {}
            () = ending => {}
        }
        self.calls.abort_all();
        self.under_way.abort_all();
    }
}

fn call_ended(ended: Result<(), tokio::task::JoinError>) -> Result<(), RoleError> {
    ended.map_err(|error| RoleError::Task(error.to_string()))
}
