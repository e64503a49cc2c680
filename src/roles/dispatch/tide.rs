//! How many calls may be under way. A provider that grows slow because it has too much in hand grows slower with every
//! further call: fewer are begun then, down to a part, and more again as it recovers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many calls are looked at together: the middle one of fewer says too little where a provider's times differ widely.
const BATCH: usize = 100;
/// What has taken longer to come together says nothing of now, and a lane that is called so rarely needs no limit.
const BATCH_TIME: Duration = Duration::from_mins(1);
/// It is slow when a call takes so many times what it takes at best, and this much more.
const SLOW_TIMES: u32 = 3;
const SLOW_BY: Duration = Duration::from_millis(100);
/// Slow, it gets so much less of a hundred.
const LESS: usize = 20;
/// Never less than this part.
const LEAST_PART: usize = 10;
/// What is best is forgotten by so much of a hundred after this long, so that a provider that is slower for good is not
/// throttled for ever.
const FORGET: u32 = 2;
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// The calls of one lane in one process.
#[derive(Debug)]
pub(super) struct Tide {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// The middle of a batch at its best.
    best: Option<Duration>,
    forgot_at: Duration,
    took: Vec<Duration>,
    began: Duration,
    /// The most calls that were under way at once since the last look.
    busiest: usize,
}

impl Tide {
    pub(super) fn new(most: usize) -> Self {
        let state = State {
            limit: most,
            best: None,
            forgot_at: Duration::ZERO,
            took: Vec::new(),
            began: Duration::ZERO,
            busiest: 0,
        };
        Self { most, state: Mutex::new(state) }
    }

    /// How many may be under way.
    pub(super) fn limit(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).limit
    }

    /// A call has ended, with an answer or without, at `now` since boot; `in_use` were under way with it.
    pub(super) fn note(&self, took: Duration, in_use: usize, now: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.took.is_empty() || now > state.began + BATCH_TIME {
            if !state.took.is_empty() {
                // So few calls are no load: what was learned of one is forgotten.
                state.limit = (state.limit + (self.most / 20).max(1)).min(self.most);
            }
            state.took.clear();
            (state.began, state.busiest) = (now, 0);
        }
        state.took.push(took);
        state.busiest = state.busiest.max(in_use);
        if state.took.len() == BATCH {
            state.look(self.most, now);
        }
    }
}

impl State {
    fn look(&mut self, most: usize, now: Duration) {
        let (_, middle, _) = self.took.select_nth_unstable(BATCH / 2);
        let middle = *middle;
        let mut best = self.best.unwrap_or(middle);
        if now >= self.forgot_at + FORGET_EVERY {
            self.forgot_at = now;
            best += best * FORGET / 100;
        }
        let best = best.min(middle);
        self.best = Some(best);
        let least = (most / LEAST_PART).max(1);
        // With little under way it is not slow for our sake.
        let is_ours = self.busiest * 2 >= self.limit;
        if middle > best * SLOW_TIMES + SLOW_BY && is_ours {
            self.limit = (self.limit - self.limit * LESS / 100).max(least);
        } else {
            self.limit = (self.limit + (most / 20).max(1)).min(most);
        }
        self.took.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A provider that works on `at_once` calls, each for `each`: more of them wait for each other.
    fn took(in_use: usize, at_once: usize, each: Duration) -> Duration {
        each * u32::try_from(in_use.div_ceil(at_once).max(1)).unwrap()
    }

    #[test]
    fn a_provider_that_is_overloaded_is_given_fewer_calls_and_gets_them_back_when_it_is_well() {
        let (tide, each, mut now) = (Tide::new(200), Duration::from_millis(200), Duration::from_secs(9));
        let mut run = |at_once: usize, batches: usize| {
            for _ in 0..batches * BATCH {
                now += Duration::from_millis(10);
                let in_use = tide.limit();
                tide.note(took(in_use, at_once, each), in_use, now);
            }
            tide.limit()
        };
        assert_eq!(run(400, 20), 200, "it is well");
        let overloaded = run(30, 40);
        assert!((20..=90).contains(&overloaded), "{overloaded}: no more than it can do in about twice its best");
        assert_eq!(run(400, 40), 200);
    }

    #[test]
    fn one_that_is_slower_for_good_is_not_throttled_for_ever() {
        let (tide, mut now) = (Tide::new(100), Duration::from_secs(9));
        for each in [200, 900] {
            for _ in 0..400 * BATCH {
                now += Duration::from_millis(10);
                tide.note(Duration::from_millis(each), tide.limit(), now);
            }
            assert_eq!(tide.limit(), 100, "{each} ms");
        }
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_its_least_and_its_most(most in 1_usize..1_000, calls in prop::collection::vec((1_u64..20_000, 0_usize..1_000), 1..500)) {
            let (tide, mut now) = (Tide::new(most), Duration::from_secs(9));
            for (ms, in_use) in calls {
                now += Duration::from_millis(50);
                tide.note(Duration::from_millis(ms), in_use, now);
                prop_assert!(((most / LEAST_PART).max(1)..=most).contains(&tide.limit()), "{}", tide.limit());
            }
        }
    }
}
