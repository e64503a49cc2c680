//! The breaker of a lane. A provider that does not answer gets no more orders until a single one has shown that it is
//! well again; one that refuses for the sake of our account (its balance, our login) likewise, since every further order would
//! only be refused too. A "no" about an order says nothing of the provider.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{FailureClass, NotSentCause, SubmitOutcome};

/// A trial that told nothing is followed by another after this long.
const SOON: Duration = Duration::from_millis(500);

/// What makes a breaker open.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerRules {
    /// Calls that are looked at: those of this long,
    pub window: Duration,
    /// where there are so many,
    pub calls_min: usize,
    /// and so many of them, of 1, ended without an answer.
    pub failing: f64,
    /// Or so many one behind the other.
    pub in_a_row: u32,
    /// After so many refusals in a row that are about our account.
    pub account_in_a_row: u32,
    /// The first rest, until one call is tried; each further one is twice as long.
    pub rest_first: Duration,
    /// The longest.
    pub rest_max: Duration,
    /// A call that was tried has ended by then.
    pub call_ends: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(30),
            calls_min: 20,
            failing: 0.6,
            in_a_row: 10,
            account_in_a_row: 3,
            rest_first: Duration::from_secs(2),
            rest_max: Duration::from_mins(1),
            call_ends: Duration::from_secs(20),
        }
    }
}

/// What a call tells of its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answers.
    Well,
    /// It cannot be reached, or does not answer as it should.
    Ill,
    /// It takes no orders of ours: our balance, or our login.
    Account,
    /// Nothing: the call was ours to make, and was not made.
    Nothing,
}

/// Why a breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Unanswered,
    Account,
}

impl Cause {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Account => "account",
        }
    }
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Opened(Cause, Duration),
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Closed,
    Open {
        until: Duration,
        cause: Cause,
    },
    /// A call is being tried, since then.
    Trying {
        since: Duration,
        cause: Cause,
    },
}

/// All moments are times since boot.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: BreakerRules,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// The calls of the window: when each ended, and whether it failed.
    calls: VecDeque<(Duration, bool)>,
    failed: usize,
    in_a_row: u32,
    account_in_a_row: u32,
    /// How often it has opened without having been well in between for the longest rest.
    openings: u32,
    closed_at: Duration,
}

impl Sign {
    pub(super) fn of(outcome: &SubmitOutcome) -> Self {
        match outcome {
            // Who is told to slow down was heard.
            SubmitOutcome::Succeeded(_)
            | SubmitOutcome::Accepted { .. }
            | SubmitOutcome::Duplicate
            | SubmitOutcome::Throttled { .. } => Self::Well,
            SubmitOutcome::Rejected(failure) => match failure.class {
                FailureClass::InsufficientFloat | FailureClass::AuthOrConfig => Self::Account,
                FailureClass::InvalidRecipient
                | FailureClass::RecipientBarred
                | FailureClass::AmountNotAllowed
                | FailureClass::LimitReached
                | FailureClass::CooldownActive
                | FailureClass::OperatorUnavailable
                | FailureClass::ProviderDeclared
                | FailureClass::Cancelled => Self::Well,
            },
            SubmitOutcome::NotSent(NotSentCause::Connect) | SubmitOutcome::Unknown(_) => Self::Ill,
            SubmitOutcome::NotSent(NotSentCause::WindowClosed | NotSentCause::NoPermit | NotSentCause::Unbuildable) => {
                Self::Nothing
            }
        }
    }
}

impl Breaker {
    pub(super) fn new(rules: BreakerRules) -> Self {
        let state = State {
            standing: Standing::Closed,
            calls: VecDeque::new(),
            failed: 0,
            in_a_row: 0,
            account_in_a_row: 0,
            openings: 0,
            closed_at: Duration::ZERO,
        };
        Self { rules, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls may begin now.
    pub(super) fn room(&self, now: Duration) -> usize {
        match self.state().standing {
            Standing::Closed => usize::MAX,
            Standing::Open { until, .. } => usize::from(until <= now),
            // One that was lost on the way is tried once more.
            Standing::Trying { since, .. } => usize::from(since + self.rules.call_ends <= now),
        }
    }

    /// When a call may begin again, if none may now.
    pub(super) fn opens_at(&self, now: Duration) -> Option<Duration> {
        let at = match self.state().standing {
            Standing::Closed => return None,
            Standing::Open { until, .. } => until,
            Standing::Trying { since, .. } => since + self.rules.call_ends,
        };
        (at > now).then_some(at)
    }

    /// Calls begin; `true` if it is one that is tried.
    pub(super) fn tries(&self, now: Duration) -> bool {
        let mut state = self.state();
        let (Standing::Open { cause, .. } | Standing::Trying { cause, .. }) = state.standing else { return false };
        state.standing = Standing::Trying { since: now, cause };
        true
    }

    /// The call that was to be tried was not made.
    pub(super) fn was_not_tried(&self, now: Duration) {
        let mut state = self.state();
        if matches!(state.standing, Standing::Trying { .. }) {
            state.try_again(now);
        }
    }

    /// Notes what a call that began then tells.
    pub(super) fn note(&self, sign: Sign, began: Duration, now: Duration) -> Option<Turn> {
        let mut state = self.state();
        match (state.standing, sign) {
            // When it is open, of calls from before.
            (Standing::Closed, Sign::Nothing) | (Standing::Open { .. }, _) => None,
            (Standing::Closed, _) => state.count(sign, &self.rules, now),
            (Standing::Trying { since, .. }, _) if began < since => None,
            (Standing::Trying { .. }, Sign::Well) => Some(state.close(now)),
            (Standing::Trying { .. }, Sign::Nothing) => {
                state.try_again(now);
                None
            }
            (Standing::Trying { cause, .. }, Sign::Ill | Sign::Account) => {
                let cause = if sign == Sign::Account { Cause::Account } else { cause };
                Some(state.open(cause, &self.rules, now))
            }
        }
    }
}

impl State {
    fn count(&mut self, sign: Sign, rules: &BreakerRules, now: Duration) -> Option<Turn> {
        let is_failure = sign == Sign::Ill;
        self.calls.push_back((now, is_failure));
        self.failed += usize::from(is_failure);
        while let Some((at, failed)) = self.calls.front().copied()
            && (at + rules.window < now || self.calls.len() > rules.calls_min.max(1) * 50)
        {
            self.calls.pop_front();
            self.failed -= usize::from(failed);
        }
        self.in_a_row = if is_failure { self.in_a_row + 1 } else { 0 };
        self.account_in_a_row = if sign == Sign::Account { self.account_in_a_row + 1 } else { 0 };
        #[expect(clippy::cast_precision_loss, reason = "some thousands of calls")]
        let is_failing =
            self.calls.len() >= rules.calls_min && self.failed as f64 >= rules.failing * self.calls.len() as f64;
        if self.account_in_a_row >= rules.account_in_a_row {
            return Some(self.open(Cause::Account, rules, now));
        }
        (is_failing || self.in_a_row >= rules.in_a_row).then(|| self.open(Cause::Unanswered, rules, now))
    }

    fn open(&mut self, cause: Cause, rules: &BreakerRules, now: Duration) -> Turn {
        if self.standing == Standing::Closed && self.closed_at + rules.rest_max < now {
            self.openings = 0;
        }
        let rest = rules.rest_first.saturating_mul(1 << self.openings.min(16)).min(rules.rest_max);
        self.openings += 1;
        self.standing = Standing::Open { until: now + rest, cause };
        self.forget();
        Turn::Opened(cause, rest)
    }

    /// Nothing was learned: another call is tried soon.
    fn try_again(&mut self, now: Duration) {
        if let Standing::Trying { cause, .. } = self.standing {
            self.standing = Standing::Open { until: now + SOON, cause };
        }
    }

    fn close(&mut self, now: Duration) -> Turn {
        self.standing = Standing::Closed;
        self.closed_at = now;
        self.forget();
        Turn::Closed
    }

    fn forget(&mut self) {
        self.calls.clear();
        (self.failed, self.in_a_row, self.account_in_a_row) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerRules::default())
    }

    fn note(breaker: &Breaker, sign: Sign, at: Duration) -> Option<Turn> {
        breaker.note(sign, at, at)
    }

    fn fail(breaker: &Breaker, calls: usize, at: Duration) {
        for _ in 0..calls {
            let _turn = note(breaker, Sign::Ill, at);
        }
    }

    #[test]
    fn a_provider_that_answers_no_more_gets_no_more_calls_but_one_after_a_rest() {
        let (breaker, mut now) = (breaker(), Duration::from_secs(100));
        for _ in 0..9 {
            assert_eq!(note(&breaker, Sign::Ill, now), None);
        }
        let first = Duration::from_secs(2);
        assert_eq!(note(&breaker, Sign::Ill, now), Some(Turn::Opened(Cause::Unanswered, first)));
        assert_eq!((breaker.room(now), breaker.opens_at(now)), (0, Some(now + first)));
        // Those that were under way end as they like.
        assert_eq!(note(&breaker, Sign::Well, now), None);
        now += first;
        assert_eq!(breaker.room(now), 1);
        assert!(breaker.tries(now));
        assert_eq!((breaker.room(now), breaker.opens_at(now)), (0, Some(now + Duration::from_secs(20))));
        assert_eq!(breaker.note(Sign::Ill, now.saturating_sub(MS), now), None, "it began before the one that is tried");
        now += MS;
        assert_eq!(note(&breaker, Sign::Ill, now), Some(Turn::Opened(Cause::Unanswered, 2 * first)));
        now += 2 * first;
        assert!(breaker.tries(now));
        assert_eq!(note(&breaker, Sign::Well, now), Some(Turn::Closed));
        assert_eq!((breaker.room(now), breaker.opens_at(now)), (usize::MAX, None));
    }

    #[test]
    fn a_trial_that_told_nothing_is_followed_by_another_soon() {
        let (breaker, now) = (breaker(), Duration::from_secs(100));
        fail(&breaker, 10, now);
        let mut later = now + Duration::from_secs(2);
        for told_nothing in [true, false] {
            assert!(breaker.tries(later));
            if told_nothing {
                assert_eq!(note(&breaker, Sign::Nothing, later), None);
            } else {
                breaker.was_not_tried(later);
            }
            assert_eq!((breaker.room(later), breaker.room(later + SOON)), (0, 1));
            later += SOON;
        }
    }

    #[test]
    fn a_trial_that_was_lost_is_made_again() {
        let (breaker, now) = (breaker(), Duration::from_secs(100));
        fail(&breaker, 10, now);
        let later = now + Duration::from_secs(2);
        assert!(breaker.tries(later));
        assert_eq!(breaker.room(later + Duration::from_secs(19)), 0);
        assert_eq!(breaker.room(later + Duration::from_secs(20)), 1);
    }

    #[test]
    fn an_account_that_is_refused_opens_it_and_a_refusal_of_an_order_does_not() {
        let (breaker, now) = (breaker(), Duration::from_secs(100));
        for _ in 0..2 {
            assert_eq!(note(&breaker, Sign::Account, now), None);
        }
        assert_eq!(note(&breaker, Sign::Well, now), None);
        for _ in 0..2 {
            assert_eq!(note(&breaker, Sign::Account, now), None, "not in a row");
        }
        assert!(matches!(note(&breaker, Sign::Account, now), Some(Turn::Opened(Cause::Account, _))));
        let no = |class| {
            let failure = crate::domain::Failure { class, code: "x".into(), advice: crate::domain::RetryAdvice::Never };
            Sign::of(&SubmitOutcome::Rejected(failure))
        };
        for class in FailureClass::ALL {
            let is_ours = matches!(class, FailureClass::InsufficientFloat | FailureClass::AuthOrConfig);
            assert_eq!(no(*class), if is_ours { Sign::Account } else { Sign::Well }, "{class}");
        }
    }

    #[test]
    fn rests_grow_while_it_stays_ill_and_begin_anew_when_it_has_been_well() {
        let (breaker, mut now) = (breaker(), Duration::from_secs(100));
        let mut rests = Vec::new();
        fail(&breaker, 9, now);
        for _ in 0..7 {
            let Some(Turn::Opened(_, rest)) = note(&breaker, Sign::Ill, now) else { panic!("it did not open") };
            rests.push(rest.as_secs());
            now += rest;
            assert!(breaker.tries(now));
        }
        assert_eq!(rests, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(note(&breaker, Sign::Well, now), Some(Turn::Closed));
        now += Duration::from_secs(61);
        fail(&breaker, 9, now);
        assert_eq!(note(&breaker, Sign::Ill, now), Some(Turn::Opened(Cause::Unanswered, Duration::from_secs(2))));
    }

    proptest! {
        /// One call in five that fails is a provider's ordinary bad day, and no reason to rest.
        #[test]
        fn a_provider_that_fails_now_and_then_is_not_left_alone(offset in 0_usize..5, calls in 100_usize..2_000) {
            let breaker = breaker();
            for nth in 0..calls {
                let sign = if (nth + offset) % 5 == 0 { Sign::Ill } else { Sign::Well };
                let at = Duration::from_secs(100) + MS * u32::try_from(nth).unwrap() * 10;
                prop_assert_eq!(note(&breaker, sign, at), None);
            }
        }

        /// Whatever comes, it never stays shut for longer than its longest rest and a call that is tried.
        #[test]
        fn it_always_tries_again(signs in prop::collection::vec((0_u8..4, 0_u64..5_000), 1..300)) {
            let (breaker, rules) = (breaker(), BreakerRules::default());
            let mut now = Duration::from_secs(100);
            for (sign, wait_ms) in signs {
                now += MS * u32::try_from(wait_ms).unwrap();
                let sign = [Sign::Well, Sign::Ill, Sign::Account, Sign::Nothing][usize::from(sign)];
                if breaker.room(now) > 0 {
                    let _is_tried = breaker.tries(now);
                }
                let _turn = note(&breaker, sign, now);
                let opens_at = breaker.opens_at(now).unwrap_or(now);
                prop_assert!(opens_at <= now + rules.rest_max.max(rules.call_ends));
                prop_assert!(breaker.room(opens_at) > 0);
            }
        }
    }
}
