//! How many calls may be under way. A provider that grows slow because it has too much in hand grows slower with every
//! further call: fewer are begun then, down to a part, and more again as it recovers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many calls are looked at together,
const BATCH: u32 = 20;
/// or what ended within this time.
const BATCH_TIME: Duration = Duration::from_secs(2);
/// It is slow when calls take so many times what they take at best, and this much more.
const SLOW_TIMES: u32 = 2;
const SLOW_BY: Duration = Duration::from_millis(100);
/// Slow, it takes so much less of a hundred.
const LESS: usize = 20;
/// Never below this part.
const LEAST_PART: usize = 10;
/// What is best is forgotten by so much of a hundred each time, so that a provider that is slower for good is not throttled
/// for ever.
const FORGET: u32 = 1;

/// The calls of one lane in one process.
#[derive(Debug)]
pub(super) struct Tide {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// The mean of a batch at its best.
    best: Option<Duration>,
    calls: u32,
    took: Duration,
    began: Duration,
    /// The most calls that were under way at once since the last look.
    busiest: usize,
}

impl Tide {
    pub(super) fn new(most: usize) -> Self {
        let state = State {
            limit: most,
            best: None,
            calls: 0,
            took: Duration::ZERO,
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
        if state.calls == 0 {
            state.began = now;
        }
        state.calls += 1;
        state.took += took;
        state.busiest = state.busiest.max(in_use);
        if state.calls < BATCH && now < state.began + BATCH_TIME {
            return;
        }
        let mean = state.took / state.calls;
        let best = state.best.map_or(mean, |best| mean.min(best + best * FORGET / 100));
        state.best = Some(best);
        if mean > best * SLOW_TIMES + SLOW_BY {
            // With little under way it is not slow for our sake.
            let least = (self.most / LEAST_PART).max(1);
            let of = state.limit.min(state.busiest.max(least));
            state.limit = (of - of * LESS / 100).max(least).min(state.limit);
        } else {
            state.limit = (state.limit + (self.most / 20).max(1)).min(self.most);
        }
        (state.calls, state.took, state.busiest) = (0, Duration::ZERO, 0);
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
        let mut run = |at_once: usize, batches: u32| {
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
