//! The world around `decide`: processes, calls, bytes on their way, questions, and a provider that
//! keeps to its duplicate semantics and whose definite answers are true.

use recharged::domain::{CaseKind, DuplicateSemantics, Sla};

use crate::judge::{Answer, Asked, Judge, Word};
use crate::row::{FAR, Row, Tick};
use crate::rules::{Setting, Slowness};

pub(crate) const CALLS: usize = 3;
pub(crate) const QUESTIONS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wire {
    /// Claimed; no byte has left.
    Ready,
    OnTheWay,
    Arrived,
    /// Nothing left, or what left never arrives.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Recharge {
    Pending,
    Executed,
    Failed,
}

/// A claim, and what became of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Call {
    /// Which process makes it.
    pub(crate) by: u8,
    pub(crate) attempt: u8,
    /// The claim was issued this very instant: the send window is open, and no answer is overdue.
    pub(crate) is_prompt: bool,
    pub(crate) wire: Wire,
    /// What its process has heard, or believes.
    pub(crate) word: Option<Word>,
    /// Its process has settled it, or is gone.
    pub(crate) done: bool,
    /// What the provider made of it.
    pub(crate) recharge: Option<Recharge>,
    /// It arrived this very instant, and a question may not see it yet.
    pub(crate) is_fresh: bool,
}

/// A question to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Question {
    pub(crate) by: u8,
    pub(crate) attempt: u8,
    pub(crate) asked: Tick,
    pub(crate) answer: Answer,
    /// The row is still as it was when the question was asked.
    pub(crate) is_current: bool,
}

/// An order with all that goes on about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) row: Row,
    /// The row has been so since.
    pub(crate) since: Tick,
    pub(crate) calls: [Option<Call>; CALLS],
    pub(crate) questions: [Option<Question>; QUESTIONS],
    /// Nobody else asks before.
    pub(crate) held: Option<Tick>,
    /// It was asked about while somebody held it.
    pub(crate) was_rushed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Process {
    Running,
    /// Stopped before this instant: what it had decided then it may still try to write.
    Woken,
    Paused,
    Crashed,
}

/// Everything, at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct World {
    pub(crate) now: Tick,
    pub(crate) processes: [Process; 2],
    pub(crate) may_crash: bool,
    pub(crate) may_pause: bool,
    pub(crate) lives: [Option<Life>; 2],
}

impl World {
    pub(crate) fn begin(rows: &[Row], setting: &Setting) -> Self {
        let life = |row: &Row| Life {
            row: *row,
            since: 0,
            calls: [None; CALLS],
            questions: [None; QUESTIONS],
            held: None,
            was_rushed: false,
        };
        let faults = setting.slowness == Slowness::OneCrashOnePause;
        Self {
            now: 0,
            processes: [Process::Running; 2],
            may_crash: faults && setting.crash,
            may_pause: faults && setting.pause,
            lives: [rows.first().map(life), rows.get(1).map(life)],
        }
    }

    pub(crate) fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.iter().flatten()
    }

    pub(crate) fn is_running(&self, process: u8) -> bool {
        matches!(self.processes[usize::from(process)], Process::Running | Process::Woken)
    }

    /// The same world with its processes and orders in a fixed order: which of two is called the
    /// first makes no difference to what can happen.
    pub(crate) fn in_order(self) -> Self {
        let mut other = self;
        other.processes.swap(0, 1);
        for life in other.lives.iter_mut().flatten() {
            life.calls.iter_mut().flatten().filter(|call| !call.done).for_each(|call| call.by = 1 - call.by);
            life.questions.iter_mut().flatten().for_each(|question| question.by = 1 - question.by);
        }
        let mut least = self.min(other);
        for mut world in [self, other] {
            world.lives.sort_unstable_by(|a, b| b.cmp(a));
            least = least.min(world);
        }
        least
    }

    /// Time goes on by an instant.
    pub(crate) fn tick(&mut self, late_bytes: bool) {
        self.now += 1;
        for process in &mut self.processes {
            if *process == Process::Woken {
                *process = Process::Running;
            }
        }
        for life in self.lives.iter_mut().flatten() {
            life.held = life.held.filter(|until| *until > self.now);
            for call in life.calls.iter_mut().flatten() {
                call.is_fresh = false;
                call.is_prompt = false;
                // No network keeps bytes until then.
                if (self.now == FAR || !late_bytes) && call.wire == Wire::OnTheWay {
                    call.wire = Wire::Never;
                }
            }
        }
    }

    /// A process loses what it had in memory; what it has sent is on its way.
    pub(crate) fn crash(&mut self, process: u8) {
        self.processes[usize::from(process)] = Process::Crashed;
        for life in self.lives.iter_mut().flatten() {
            for call in life.calls.iter_mut().flatten().filter(|call| call.by == process && !call.done) {
                if call.wire == Wire::Ready {
                    call.wire = Wire::Never;
                }
                call.finish();
            }
            for question in &mut life.questions {
                if question.is_some_and(|question| question.by == process) {
                    *question = None;
                }
            }
        }
    }
}

impl Call {
    /// Its process is done with it: what it heard and when it began matters no more.
    pub(crate) fn finish(&mut self) {
        self.done = true;
        self.word = None;
        self.is_prompt = false;
        self.by = 0;
    }
}

impl Life {
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().flatten()
    }

    /// Forgets what can make no difference any more, so that equal futures are one world.
    /// `earliest` is the earliest instant at which a decision can have been made that is still to
    /// be committed.
    pub(crate) fn forget(&mut self, earliest: Tick) {
        self.since = self.since.max(earliest);
        self.row.forget(earliest);
        let is_over = self.row.state.is_closed() && !self.row.has_open_attempt();
        for call in self.calls.iter_mut().flatten() {
            if call.done || call.wire != Wire::Ready && is_over && call.word.is_some_and(|word| word != Word::Delivered)
            {
                call.finish();
            }
        }
        for question in self.questions.iter_mut().flatten() {
            if question.answer != Answer::NotFound {
                question.is_current = false;
                if question.asked <= earliest {
                    question.asked = 0;
                }
            }
        }
        self.questions.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Recharges that were really executed.
    pub(crate) fn executed(&self) -> usize {
        self.calls().filter(|call| call.recharge == Some(Recharge::Executed)).count()
    }

    /// Refunded, executed, and no open case says that this may be so. A case of another matter, a second payment
    /// for example, tells nobody of it.
    pub(crate) fn is_refunded_in_silence(&self) -> bool {
        let telling = [CaseKind::InDoubt, CaseKind::FailedUnproven, CaseKind::LateSuccess];
        let telling = telling.iter().fold(0, |set, kind| set | kind.bit());
        self.row.refund && self.executed() > 0 && self.row.open & telling == 0
    }

    /// Its deadline has come, and the watchdog has nothing to say about it.
    pub(crate) fn is_forgotten(&self, now: Tick, judge: &Judge) -> bool {
        now >= self.row.deadline
            && !self.row.is_decided()
            && judge.decide(Some(self.row), Asked::Deadline, now).is_none_or(|decided| !decided.row.is_decided())
    }

    /// What a closed row says is so.
    pub(crate) fn is_honest(&self) -> bool {
        use recharged::domain::State;
        match self.row.state {
            State::Succeeded => self.executed() > 0,
            State::Failed => !self.row.has_open_attempt() && (self.row.refund || !self.row.paid),
            State::InDoubt => self.row.has_open_attempt() && self.row.open & CaseKind::InDoubt.bit() != 0,
            State::Cancelled => !self.row.paid || self.row.refund,
            State::AwaitingPayment => !self.row.paid,
            State::Queued | State::InFlight | State::RetryWait => self.row.sla != Some(Sla::Missed),
        }
    }

    /// The provider gets the bytes of a call. What a known reference means to it is its duplicate
    /// semantics; a new one it takes as `fate` says.
    pub(crate) fn arrive(&mut self, index: usize, fate: Fate, duplicates: DuplicateSemantics) {
        let Some(call) = self.calls[index] else { return };
        let known = self.known(call.attempt, duplicates);
        let (word, recharge) = match known {
            Some(word) => (word, None),
            None => match fate {
                Fate::Execute => (Word::Delivered, Some(Recharge::Executed)),
                Fate::Accept => (Word::Accepted, Some(Recharge::Pending)),
                Fate::Refuse => (Word::Refused, Some(Recharge::Failed)),
                Fate::Throttle => (Word::Throttled, None),
            },
        };
        if let Some(call) = &mut self.calls[index] {
            call.wire = Wire::Arrived;
            call.recharge = recharge;
            call.is_fresh = recharge.is_some();
            if !call.done {
                call.word = call.word.or(Some(word));
            }
        }
    }

    /// What the provider answers to a reference that it has seen before and does not take again.
    pub(crate) fn known(&self, attempt: u8, duplicates: DuplicateSemantics) -> Option<Word> {
        let all = || self.calls().filter(|call| call.attempt == attempt).filter_map(|call| call.recharge);
        let last = all().last();
        match duplicates {
            DuplicateSemantics::RejectsAlways => last.map(|_| Word::Duplicate),
            DuplicateSemantics::RejectsUnlessFailed => {
                all().any(|recharge| recharge != Recharge::Failed).then_some(Word::Duplicate)
            }
            DuplicateSemantics::ReplaysResult => last.map(|recharge| match recharge {
                Recharge::Executed => Word::Delivered,
                Recharge::Pending => Word::Accepted,
                Recharge::Failed => Word::Refused,
            }),
            DuplicateSemantics::NotDeduplicated => None,
        }
    }

    /// What the provider says about an attempt; `unseen` leaves out what has only just arrived.
    pub(crate) fn answer(&self, attempt: u8, unseen: bool) -> Answer {
        let all = || {
            let of_it = self.calls().filter(move |call| call.attempt == attempt && !(unseen && call.is_fresh));
            of_it.filter_map(|call| call.recharge)
        };
        if all().any(|recharge| recharge == Recharge::Executed) {
            Answer::Delivered
        } else if all().any(|recharge| recharge == Recharge::Pending) {
            Answer::InProgress
        } else if all().next().is_some() {
            Answer::Failed
        } else {
            Answer::NotFound
        }
    }
}

/// What a provider does with a reference that is new to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Execute,
    Accept,
    Refuse,
    Throttle,
}
