//! What can happen next, and what then is. Each step names the code that it stands for in
//! `mirrors::MIRRORS`.

use std::time::Duration;

use recharged::domain::{AttemptState, State, plus};
use stateright::{Model, Property};

use crate::judge::{Answer, Asked, Judge, Word};
use crate::row::{LONG_AGO, Row, Tick, at, tick_of};
use crate::rules::{Rule, Setting, Slowness};
use crate::world::{CALLS, Call, Fate, Life, Process, QUESTIONS, Question, Recharge, Wire, World};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    Crash(u8),
    Restart(u8),
    Pause(u8),
    Resume(u8),
    To(usize, Step),
}

/// Something that happens to one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// What the shop says.
    Shop(Asked),
    /// A process claims it; decided at `at`, committed now.
    Claim { by: u8, at: Tick },
    /// The first byte leaves.
    Send(usize),
    /// The send window has closed, or there is no connection: no byte left.
    GiveUp(usize),
    /// The bytes reach the provider.
    Arrive(usize, Fate),
    /// A recharge that the provider had taken ends.
    Complete(usize, bool),
    /// No answer within the call's time, or a broken connection.
    Lose(usize),
    /// What was heard is written; `lost`: it is, and the caller does not learn it.
    Settle { call: usize, at: Tick, lost: bool },
    /// A send is found whose caller is gone.
    Adopt { at: Tick },
    /// A process asks the provider, which answers; `unseen`: as if nothing had only just arrived.
    Ask { by: u8, unseen: bool, unsure: bool },
    /// Who asked is gone.
    Forget(usize),
    /// The answer is written.
    Report { question: usize, at: Tick, lost: bool },
    /// The deadline is found to have come.
    Watch { at: Tick },
}

/// The model: a setting, and the judge that asks `decide`.
#[derive(Debug)]
pub(crate) struct Universe {
    pub(crate) setting: Setting,
    pub(crate) judge: Judge,
    pub(crate) properties: fn() -> Vec<Property<Universe>>,
}

impl Universe {
    pub(crate) fn new(setting: Setting, properties: fn() -> Vec<Property<Self>>) -> Self {
        let judge = Judge::new(setting.policy());
        Self { setting, judge, properties }
    }

    fn beginnings(&self) -> Vec<Row> {
        let arrived = |paid, routed| {
            let asked = Asked::Arrived { paid, routed, same: true };
            self.judge.decide(None, asked, 0).map(|decided| decided.row)
        };
        if self.setting.shop {
            // What comes behind its deadline is decided as it is stored.
            let late = |paid| self.judge.decide(None, Asked::Arrived { paid, routed: true, same: true }, 3);
            let late = [late(true), late(false)].into_iter().flatten().map(|decided| decided.row);
            [arrived(false, true), arrived(true, false), arrived(true, true)]
                .into_iter()
                .flatten()
                .chain(late)
                .collect()
        } else {
            arrived(true, true).into_iter().collect()
        }
    }

    fn is_timely(&self) -> bool {
        self.setting.slowness == Slowness::OneCrashOnePause
    }

    /// The earliest instant at which a decision can have been made that is still to be committed.
    fn earliest(&self, world: &World) -> Tick {
        let slow = [Process::Woken, Process::Paused];
        let may_lag = !self.is_timely() || world.may_pause || slow.iter().any(|slow| world.processes.contains(slow));
        world.now.saturating_sub(if may_lag { self.setting.commit_lag } else { 0 })
    }

    /// The instants at which a decision can have been made that is committed now, on a row that is
    /// as it was then.
    fn decided_at(&self, world: &World, life: &Life, not_before: Tick) -> impl Iterator<Item = Tick> + use<> {
        let lags = !self.is_timely() || world.processes.contains(&Process::Woken);
        let lag = if lags { self.setting.commit_lag } else { 0 };
        life.since.max(not_before).max(world.now.saturating_sub(lag))..=world.now
    }

    /// Whether time must wait: a process that runs does what it has to do.
    fn is_urgent(&self, world: &World) -> bool {
        let anybody = (0..2).any(|process| world.is_running(process));
        self.is_timely()
            && world.lives().any(|life| {
                let mut calls = life.calls().filter(|call| !call.done && world.is_running(call.by));
                let waits = |call: &Call| call.wire == Wire::OnTheWay && call.is_prompt;
                calls.any(|call| call.word.is_some() || !waits(call))
                    || life.questions.iter().flatten().any(|question| world.is_running(question.by))
                    || (anybody && world.now >= life.row.deadline && !life.row.is_decided())
            })
    }

    /// Whether time goes on.
    pub(crate) fn may_tick(&self, world: &World) -> bool {
        world.now < self.setting.last && !self.is_urgent(world)
    }

    fn steps(&self, world: &World, life: &Life, steps: &mut Vec<Step>) {
        let (setting, now) = (&self.setting, world.now);
        let running = |process: &u8| world.is_running(*process);
        let processes = if self.is_timely() { 0..2 } else { 0..1 };
        if setting.shop {
            let arrived = |paid, same| Step::Shop(Asked::Arrived { paid, routed: true, same });
            let paid = |routed| Step::Shop(Asked::Paid { routed });
            steps.extend([arrived(true, true), arrived(false, true), arrived(false, false), paid(true), paid(false)]);
            steps.extend([Step::Shop(Asked::PaidAgain), Step::Shop(Asked::Cancelled)]);
        }
        let claims = life.calls().count();
        if matches!(life.row.state, State::Queued | State::RetryWait) && claims < setting.claims.min(CALLS) {
            for by in processes.clone().filter(running) {
                steps.extend(self.decided_at(world, life, 0).map(|at| Step::Claim { by, at }));
            }
        }
        for (index, call) in life.calls.iter().enumerate() {
            let Some(call) = call else { continue };
            if call.wire == Wire::OnTheWay {
                let fates = [Fate::Execute, Fate::Refuse, Fate::Accept, Fate::Throttle];
                let known = life.known(call.attempt, setting.duplicates).is_some();
                let choices = if known { 1 } else { 2 + usize::from(setting.hesitant) + usize::from(setting.thorough) };
                steps.extend(fates.into_iter().take(choices).map(|fate| Step::Arrive(index, fate)));
            }
            if call.recharge == Some(Recharge::Pending) {
                steps.extend([Step::Complete(index, true), Step::Complete(index, false)]);
            }
            if call.done || !world.is_running(call.by) {
                continue;
            }
            if call.wire == Wire::Ready {
                // The send window is far shorter than the time between two instants.
                if call.is_prompt || !setting.holds(Rule::SendWindow) {
                    steps.push(Step::Send(index));
                }
                steps.push(Step::GiveUp(index));
            }
            if matches!(call.wire, Wire::OnTheWay | Wire::Arrived) && call.word != Some(Word::Lost) {
                steps.push(Step::Lose(index));
            }
            if call.wire == Wire::Never && call.word.is_none() {
                steps.push(Step::Lose(index));
            }
            if call.word.is_some() {
                for at in self.decided_at(world, life, 0) {
                    steps.push(Step::Settle { call: index, at, lost: false });
                    if setting.lost_replies {
                        steps.push(Step::Settle { call: index, at, lost: true });
                    }
                }
            }
        }
        if !processes.clone().any(|process| running(&process)) {
            return;
        }
        if let Some(attempt) = life.row.attempt.filter(|attempt| attempt.state == AttemptState::Sent) {
            // A call has ended within the time between two instants.
            let not_before = attempt.claimed + u8::from(setting.holds(Rule::AdoptLate));
            steps.extend(self.decided_at(world, life, not_before).map(|at| Step::Adopt { at }));
        }
        self.questions(world, life, steps);
        if now >= life.row.deadline {
            steps.extend(self.decided_at(world, life, life.row.deadline).map(|at| Step::Watch { at }));
        }
    }

    fn questions(&self, world: &World, life: &Life, steps: &mut Vec<Step>) {
        let (setting, now) = (&self.setting, world.now);
        for (index, question) in life.questions.iter().enumerate() {
            let Some(question) = question.filter(|question| world.is_running(question.by)) else { continue };
            if !self.is_timely() {
                steps.push(Step::Forget(index));
            }
            for at in self.decided_at(world, life, question.asked) {
                steps.push(Step::Report { question: index, at, lost: false });
                if setting.lost_replies {
                    steps.push(Step::Report { question: index, at, lost: true });
                }
            }
        }
        let Some(attempt) = life.row.attempt else { return };
        let is_free = life.held.is_none() || !setting.holds(Rule::Hold);
        let is_time = life.row.wake.is_none_or(|wake| wake <= now);
        let has_place = life.questions.iter().flatten().count() < setting.questions.min(QUESTIONS);
        if !(is_free && is_time && has_place && self.judge.asks(&life.row)) {
            return;
        }
        for by in (if self.is_timely() { 0..2 } else { 0..1 }).filter(|process| world.is_running(*process)) {
            steps.push(Step::Ask { by, unseen: false, unsure: false });
            if setting.hesitant && life.answer(attempt.number, true) != life.answer(attempt.number, false) {
                steps.push(Step::Ask { by, unseen: true, unsure: false });
            }
            if setting.thorough && life.answer(attempt.number, false) == Answer::InProgress {
                steps.push(Step::Ask { by, unseen: false, unsure: true });
            }
        }
    }

    /// Writes what is decided on an input; `false` if nothing is.
    fn write(&self, life: &mut Life, asked: Asked, at: Tick, now: Tick) -> bool {
        let Some(decided) = self.judge.decide(Some(life.row), asked, at) else { return false };
        life.row = decided.row;
        life.since = now;
        if let Some(attempt) = life.row.attempt.as_mut().filter(|_| !self.setting.holds(Rule::Remembered)) {
            attempt.closed_by_not_found = false;
            let unproven = recharged::domain::CaseKind::FailedUnproven.bit();
            life.row.cases &= !unproven;
            life.row.open &= !unproven;
        }
        for question in life.questions.iter_mut().flatten() {
            question.is_current = false;
        }
        true
    }

    /// Takes a step; `false` if it changes nothing.
    fn take(&self, life: &mut Life, step: Step, now: Tick) -> bool {
        match step {
            Step::Shop(asked) => return self.write(life, asked, now, now),
            Step::Claim { by, at } => return self.claim(life, by, at, now),
            Step::Send(call) => life.calls[call].as_mut().unwrap().wire = Wire::OnTheWay,
            Step::GiveUp(call) => {
                let call = life.calls[call].as_mut().unwrap();
                call.wire = Wire::Never;
                call.word = Some(Word::NotSent);
            }
            Step::Arrive(call, fate) => life.arrive(call, fate, self.setting.duplicates),
            Step::Complete(call, executed) => {
                let ended = if executed { Recharge::Executed } else { Recharge::Failed };
                life.calls[call].as_mut().unwrap().recharge = Some(ended);
            }
            Step::Lose(call) => life.calls[call].as_mut().unwrap().word = Some(Word::Lost),
            Step::Settle { call, at, lost } => return self.settle(life, call, at, lost, now),
            Step::Adopt { at } => return self.write(life, Asked::CallerLost, at, now),
            Step::Ask { by, unseen, unsure } => Self::ask(life, by, unseen, unsure, now),
            Step::Forget(question) => life.questions[question] = None,
            Step::Report { question, at, lost } => return self.report(life, question, at, lost, now),
            Step::Watch { at } => return self.write(life, Asked::Deadline, at, now),
        }
        true
    }

    fn claim(&self, life: &mut Life, by: u8, at: Tick, now: Tick) -> bool {
        let index = life.calls().count();
        let claim = index as u8 + 1;
        if !self.write(life, Asked::Claim(claim), at, now) {
            return false;
        }
        if let Some(attempt) = life.row.attempt.filter(|attempt| attempt.claim == claim) {
            life.calls[index] = Some(Call {
                by,
                attempt: attempt.number,
                is_prompt: at == now,
                wire: Wire::Ready,
                word: None,
                done: false,
                recharge: None,
                is_fresh: false,
            });
        }
        true
    }

    fn settle(&self, life: &mut Life, index: usize, at: Tick, lost: bool, now: Tick) -> bool {
        let Some((call, word)) = life.calls[index].and_then(|call| Some((call, call.word?))) else { return false };
        let (mut attempt, mut claim) = (call.attempt, index as u8 + 1);
        let is_by_reference = matches!(word, Word::Delivered | Word::Accepted);
        if let Some(current) = life.row.attempt.filter(|_| !is_by_reference) {
            if !self.setting.holds(Rule::WhoseAttempt) {
                (attempt, claim) = (current.number, current.claim);
            } else if !self.setting.holds(Rule::WhoseClaim) {
                claim = current.claim;
            }
        }
        let is_written = self.write(life, Asked::Reply { attempt, claim, word }, at, now);
        if !lost {
            life.calls[index].as_mut().unwrap().finish();
        }
        !lost || is_written
    }

    fn ask(life: &mut Life, by: u8, unseen: bool, unsure: bool, now: Tick) {
        let Some(attempt) = life.row.attempt else { return };
        let Some(place) = life.questions.iter_mut().position(|question| question.is_none()) else { return };
        let answer = if unsure { Answer::Unsure } else { life.answer(attempt.number, unseen) };
        life.was_rushed |= life.held.is_some();
        life.questions[place] = Some(Question { by, attempt: attempt.number, asked: now, answer, is_current: true });
        // A call, the provider's interval, and two seconds.
        life.held = Some(tick_of(plus(at(now), Duration::from_secs(12))));
    }

    fn report(&self, life: &mut Life, index: usize, at: Tick, lost: bool, now: Tick) -> bool {
        let Some(question) = life.questions[index] else { return false };
        let is_lost_to_fence =
            question.answer == Answer::NotFound && !question.is_current && self.setting.holds(Rule::Fence);
        let is_written = !is_lost_to_fence && self.heard(life, question, at, now);
        if lost {
            return is_written;
        }
        life.questions[index] = None;
        // The next question has a command of its own, and nobody asks before it.
        let rested = tick_of(plus(self::at(now), Duration::from_secs(5)));
        let next = match life.row.wake.filter(|_| is_written) {
            Some(wake) => Some(wake.max(rested)),
            None => self.judge.next_query(&life.row, now),
        };
        life.held = next.or(life.held).filter(|until| *until > now);
        true
    }

    fn heard(&self, life: &mut Life, question: Question, at: Tick, now: Tick) -> bool {
        let asked = if self.setting.holds(Rule::AskedAt) { question.asked } else { at };
        let before = life.row;
        if let Some(attempt) = life.row.attempt.as_mut().filter(|_| question.answer == Answer::NotFound)
            && !self.setting.holds(Rule::Twice)
            && attempt.not_found.is_none()
        {
            attempt.not_found = Some(LONG_AGO);
        }
        let asked = Asked::Reported { attempt: question.attempt, asked, answer: question.answer };
        let is_written = self.write(life, asked, at, now);
        if !is_written {
            life.row = before;
        }
        is_written
    }
}

impl Model for Universe {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let rows = self.beginnings();
        rows.iter().map(|row| World::begin(&vec![*row; self.setting.orders], &self.setting)).collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let mut steps = Vec::new();
        for (index, life) in world.lives.iter().enumerate() {
            let Some(life) = life else { continue };
            self.steps(world, life, &mut steps);
            actions.extend(steps.drain(..).map(|step| Action::To(index, step)));
        }
        if self.is_timely() {
            for (process, state) in (0_u8..).zip(world.processes) {
                match state {
                    Process::Running | Process::Woken => {
                        actions.extend(world.may_crash.then_some(Action::Crash(process)));
                        actions.extend(world.may_pause.then_some(Action::Pause(process)));
                    }
                    Process::Paused => {
                        actions.push(Action::Resume(process));
                        actions.extend(world.may_crash.then_some(Action::Crash(process)));
                    }
                    Process::Crashed => actions.push(Action::Restart(process)),
                }
            }
        }
        if self.may_tick(world) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = *before;
        match action {
            Action::Tick => world.tick(self.setting.late_bytes),
            Action::Crash(process) => {
                world.crash(process);
                world.may_crash = false;
            }
            Action::Pause(process) => {
                world.processes[usize::from(process)] = Process::Paused;
                world.may_pause = false;
            }
            Action::Resume(process) => world.processes[usize::from(process)] = Process::Woken,
            Action::Restart(process) => world.processes[usize::from(process)] = Process::Running,
            Action::To(index, step) => {
                let life = world.lives[index].as_mut()?;
                if !self.take(life, step, before.now) {
                    return None;
                }
            }
        }
        let earliest = self.earliest(&world);
        world.lives.iter_mut().flatten().for_each(|life| life.forget(earliest));
        let world = if self.is_timely() { world.in_order() } else { world };
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        (self.properties)()
    }
}
