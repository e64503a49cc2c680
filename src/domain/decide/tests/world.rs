//! A small world around `decide`: processes that crash (never act again) and stall, bytes that are late without
//! bound, replies that get lost or are settled twice, queries whose answers are old, and a
//! provider that executes exactly what its [`DuplicateSemantics`] says and never lies.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::story::{TRY_AGAIN, arrived, at, claim_id, lane, new_order, no, policy, secs};
use crate::domain::decide::{Decision, Input, decide};
use crate::domain::*;

/// The length of a step; a deadline is three steps away, "not found" counts after one.
const STEP: i64 = 10;

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) claims: usize,
    /// The last step; the deadline is the third.
    pub(super) last: i64,
    /// Also what differs from another step by little: throttling (from "not sent"), and questions
    /// about older attempts.
    pub(super) thorough: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wire {
    /// Claimed; no byte has left.
    Ready,
    OnTheWay,
    Arrived,
    NeverSent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Word {
    Delivered,
    Accepted,
    Refused,
    Throttled,
    Duplicate,
    TimedOut,
    NotSent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Call {
    attempt: u16,
    claim: u128,
    reference: ClientRef,
    claimed: i64,
    wire: Wire,
    /// What its process has heard, or thinks. A process that never settles it has crashed.
    word: Option<Word>,
    /// Times that the word was settled: a settlement whose commit reply is lost is repeated.
    settled: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Recharge {
    Pending,
    Delivered,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Delivered,
    InProgress,
    Failed,
    NotFound,
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Claim,
    Send(usize),
    GiveUp(usize),
    /// The bytes arrive, and a provider that does not know the reference does this.
    Arrive(usize, Fate),
    Settle(usize),
    TimeOut(usize),
    CallerLost,
    /// A pending recharge of the n-th reference ends.
    Complete(usize, bool),
    Ask(u16),
    Hear,
    Deadline,
    Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Deliver,
    Accept,
    Refuse,
    Throttle,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    policy: std::sync::Arc<Policy>,
    pub(super) order: Order,
    step: i64,
    calls: Vec<Call>,
    provider: BTreeMap<ClientRef, Vec<Recharge>>,
    /// An answer under way: about which attempt, asked when.
    heard: Option<(u16, i64, Answer)>,
    pub(super) deliveries: u8,
}

impl World {
    pub(super) fn new(duplicates: DuplicateSemantics, on_unknown: OnUnknown) -> Self {
        let mut policy = policy(duplicates);
        policy.sla = secs(30);
        policy.on_unknown = on_unknown;
        policy.backoff_first = secs(1);
        let provider = policy.providers.get_mut(&lane()).unwrap();
        provider.capabilities.not_found_grace = secs(10);
        provider.capabilities.query_not_before = secs(0);
        provider.capabilities.call_timeout = secs(5);
        // Far shorter than a step.
        provider.send_window = secs(0);
        let Decision::Apply(first) = decide(None, &arrived(new_order(Some(at(0)))), at(0), &policy) else {
            panic!("a new order is stored")
        };
        Self {
            policy: std::sync::Arc::new(policy),
            order: first.after,
            step: 0,
            calls: Vec::new(),
            provider: BTreeMap::new(),
            heard: None,
            deliveries: 0,
        }
    }

    /// Everything that can happen now.
    pub(super) fn steps(&self, bounds: Bounds) -> Vec<Step> {
        let mut steps = Vec::new();
        let attempt = self.order.attempt.as_ref();
        if matches!(self.order.state, State::Queued | State::RetryWait) && self.calls.len() < bounds.claims {
            steps.push(Step::Claim);
        }
        for (index, call) in self.calls.iter().enumerate() {
            let timed_out = self.step > call.claimed;
            match call.wire {
                // The send window is far shorter than a step: no first byte after it.
                Wire::Ready if !timed_out => steps.extend([Step::Send(index), Step::GiveUp(index)]),
                Wire::Ready => steps.push(Step::GiveUp(index)),
                Wire::OnTheWay => {
                    let known = self.provider.get(&call.reference).is_some_and(|all| self.refuses_again(all));
                    let fates = [Fate::Deliver, Fate::Accept, Fate::Refuse, Fate::Throttle];
                    let choices = if known { 1 } else { 3 + usize::from(bounds.thorough) };
                    steps.extend(fates.into_iter().take(choices).map(|fate| Step::Arrive(index, fate)));
                }
                Wire::Arrived | Wire::NeverSent => {}
            }
            let repeats = match call.word {
                Some(Word::NotSent | Word::Throttled | Word::Refused | Word::TimedOut) => 2,
                Some(Word::Delivered | Word::Accepted | Word::Duplicate) => 1,
                None => 0,
            };
            if call.settled < repeats {
                steps.push(Step::Settle(index));
            }
            let was_sent = matches!(call.wire, Wire::OnTheWay | Wire::Arrived);
            if was_sent && timed_out && call.settled == 0 && call.word != Some(Word::TimedOut) {
                steps.push(Step::TimeOut(index));
            }
        }
        if attempt.is_some_and(|a| a.state == AttemptState::Sent && a.claimed_at < at(self.step * STEP)) {
            steps.push(Step::CallerLost);
        }
        for (index, all) in self.provider.values().enumerate() {
            if all.contains(&Recharge::Pending) {
                steps.extend([Step::Complete(index, true), Step::Complete(index, false)]);
            }
        }
        let current = self.order.attempt_number();
        let oldest = if bounds.thorough { 1 } else { current.max(1) };
        steps.extend((oldest..=current).map(Step::Ask));
        if self.heard.is_some() {
            steps.push(Step::Hear);
        }
        if at(self.step * STEP) >= self.order.deadline_at {
            steps.push(Step::Deadline);
        }
        if self.step < bounds.last {
            steps.push(Step::Tick);
        }
        steps
    }

    /// Takes one step; `false` if it changed nothing.
    pub(super) fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Claim => return self.claim(),
            Step::Send(i) => self.calls[i].wire = Wire::OnTheWay,
            Step::GiveUp(i) => {
                self.calls[i].wire = Wire::NeverSent;
                self.calls[i].word = Some(Word::NotSent);
            }
            Step::Arrive(i, fate) => self.arrive(i, fate),
            Step::Settle(i) => {
                self.calls[i].settled += 1;
                let Call { attempt, claim, word, .. } = self.calls[i].clone();
                let Some(word) = word else { return false };
                self.feed(&Input::SubmitReply { attempt, claim_id: claim_id(claim), outcome: outcome_of(word) });
            }
            Step::TimeOut(i) => self.calls[i].word = Some(Word::TimedOut),
            Step::CallerLost => return self.feed(&Input::CallerLost),
            Step::Complete(i, delivered) => {
                let pending =
                    self.provider.values_mut().nth(i).and_then(|all| all.iter_mut().find(|r| **r == Recharge::Pending));
                let Some(pending) = pending else { return false };
                *pending = if delivered { Recharge::Delivered } else { Recharge::Failed };
                self.deliveries += u8::from(delivered);
            }
            Step::Ask(attempt) => {
                self.heard = Some((attempt, self.step, self.answer(attempt)));
            }
            Step::Hear => {
                let Some((attempt, asked, answer)) = self.heard.take() else { return false };
                let outcome = match answer {
                    Answer::Delivered => QueryOutcome::Succeeded(Receipt::default()),
                    Answer::InProgress => QueryOutcome::InProgress,
                    Answer::Failed => QueryOutcome::Failed(no(FailureClass::ProviderDeclared, TRY_AGAIN)),
                    Answer::NotFound => QueryOutcome::NotFound,
                };
                self.feed(&Input::Reported { attempt, asked_at: at(asked * STEP), outcome });
            }
            Step::Deadline => return self.feed(&Input::Deadline),
            Step::Tick => self.step += 1,
        }
        true
    }

    fn feed(&mut self, input: &Input) -> bool {
        match decide(Some(&self.order), input, at(self.step * STEP), &self.policy) {
            Decision::Apply(transition) => self.order = transition.after,
            Decision::Keep(_) => return false,
        }
        true
    }

    fn claim(&mut self) -> bool {
        let claim = 1 + self.calls.len() as u128;
        if !self.feed(&Input::Claim { claim_id: claim_id(claim) }) {
            return false;
        }
        if let Some(attempt) = self.order.attempt.as_ref().filter(|a| a.claim_id == claim_id(claim)) {
            self.calls.push(Call {
                attempt: attempt.number,
                claim,
                reference: attempt.client_ref.clone(),
                claimed: self.step,
                wire: Wire::Ready,
                word: None,
                settled: 0,
            });
        }
        true
    }

    fn duplicates(&self) -> DuplicateSemantics {
        self.policy.providers[&lane()].capabilities.duplicates
    }

    /// Whether a provider that has this of a reference executes it no more.
    fn refuses_again(&self, all: &[Recharge]) -> bool {
        match self.duplicates() {
            DuplicateSemantics::RejectsAlways | DuplicateSemantics::ReplaysResult => !all.is_empty(),
            DuplicateSemantics::RejectsUnlessFailed => all.iter().any(|r| *r != Recharge::Failed),
            DuplicateSemantics::NotDeduplicated => false,
        }
    }

    fn arrive(&mut self, index: usize, fate: Fate) {
        let reference = self.calls[index].reference.clone();
        let known = self.provider.get(&reference).cloned().unwrap_or_default();
        let word = if self.refuses_again(&known) {
            match (self.duplicates(), known.last()) {
                (DuplicateSemantics::ReplaysResult, Some(Recharge::Delivered)) => Word::Delivered,
                (DuplicateSemantics::ReplaysResult, Some(Recharge::Pending)) => Word::Accepted,
                (DuplicateSemantics::ReplaysResult, Some(Recharge::Failed)) => Word::Refused,
                _ => Word::Duplicate,
            }
        } else {
            let (word, recharge) = match fate {
                Fate::Deliver => (Word::Delivered, Some(Recharge::Delivered)),
                Fate::Accept => (Word::Accepted, Some(Recharge::Pending)),
                Fate::Refuse => (Word::Refused, Some(Recharge::Failed)),
                Fate::Throttle => (Word::Throttled, None),
            };
            self.deliveries += u8::from(fate == Fate::Deliver);
            self.provider.entry(reference).or_default().extend(recharge);
            word
        };
        let call = &mut self.calls[index];
        call.wire = Wire::Arrived;
        call.word = call.word.or(Some(word));
    }

    fn answer(&self, attempt: u16) -> Answer {
        let reference = self.calls.iter().find(|call| call.attempt == attempt).map(|call| &call.reference);
        let all = reference.and_then(|reference| self.provider.get(reference)).map_or(&[][..], Vec::as_slice);
        if all.contains(&Recharge::Delivered) {
            Answer::Delivered
        } else if all.contains(&Recharge::Pending) {
            Answer::InProgress
        } else if all.is_empty() {
            Answer::NotFound
        } else {
            Answer::Failed
        }
    }

    /// What must hold in every world that can be reached.
    pub(super) fn verdict(&self) -> Result<(), &'static str> {
        let order = &self.order;
        if self.deliveries > 1 {
            return Err("recharged twice");
        }
        if order.refund_requested && self.deliveries > 0 && !order.has_cases() {
            return Err("refunded what was delivered, and no case says so");
        }
        if order.state == State::Succeeded && self.deliveries == 0 {
            return Err("called delivered what was not");
        }
        if order.state == State::Failed && order.has_open_attempt() {
            return Err("failed with an open attempt");
        }
        let now = at(self.step * STEP);
        let is_decided = matches!(order.state, State::Succeeded | State::Failed | State::InDoubt);
        if now >= order.deadline_at && !is_decided {
            let decided = decide(Some(order), &Input::Deadline, now, &self.policy);
            if matches!(decided, Decision::Keep(_)) {
                return Err("the deadline decides nothing");
            }
        }
        Ok(())
    }

    /// Two worlds of one fingerprint have the same future.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let order = &self.order;
        (order.state, order.declined, order.wake_at, order.sla, order.refund_requested, order.cases).hash(&mut hasher);
        if let Some(a) = &order.attempt {
            (a.number, a.state, a.claim_id, a.claimed_at).hash(&mut hasher);
            let inquiry = &a.inquiry;
            (inquiry.was_accepted, inquiry.not_found_at, inquiry.closed_by_not_found).hash(&mut hasher);
            (inquiry.earlier_suspected, inquiry.delivered_by).hash(&mut hasher);
        }
        (self.step, &self.calls, &self.provider, self.heard, self.deliveries).hash(&mut hasher);
        hasher.finish()
    }
}

fn outcome_of(word: Word) -> SubmitOutcome {
    match word {
        Word::Delivered => SubmitOutcome::Succeeded(Receipt::default()),
        Word::Accepted => SubmitOutcome::Accepted { provider_ref: None },
        Word::Refused => SubmitOutcome::Rejected(no(FailureClass::ProviderDeclared, TRY_AGAIN)),
        Word::Throttled => SubmitOutcome::Throttled { retry_after: None },
        Word::Duplicate => SubmitOutcome::Duplicate,
        Word::TimedOut => SubmitOutcome::Unknown(UnknownCause::Timeout),
        Word::NotSent => SubmitOutcome::NotSent(NotSentCause::WindowClosed),
    }
}
