//! Whether any broker can be reached, as this client sees it.
//!
//! Two things tell of an end: errors come at once, statistics now and then. Only statistics tell
//! of a beginning: a broker that is connected and answers. So one broker of several that goes away
//! changes nothing, and neither does a connection that was idle and was closed: it is open again
//! before the next statistics come, and the outage counts only after that.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::statistics::Statistics;
use super::sync::lock;

/// A client that has known no broker for this long will not learn of one any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);
/// An outage lasts so much longer than the time between two statistics: one of them could have
/// disproved it, also where it came late because the machine is busy.
const ALLOWANCE: Duration = Duration::from_millis(500);

/// Since when.
#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// A connection failed, of one broker or of all.
    failed: Option<Instant>,
    /// No broker is known to answer since then.
    lost: Option<Instant>,
    /// The client knows none to ask since then.
    forgotten: Option<Instant>,
}

/// What is known of the brokers.
#[derive(Debug)]
pub(super) struct Reach {
    state: Mutex<State>,
    confirmed_after: Duration,
}

impl Reach {
    /// For a client that tells its statistics so often.
    pub(super) fn new(statistics_every: Duration) -> Self {
        Self { state: Mutex::default(), confirmed_after: statistics_every + ALLOWANCE }
    }

    /// What the client's statistics show.
    pub(super) fn note(&self, statistics: &Statistics, now: Instant) {
        self.knows_a_broker(statistics.knows_a_broker(), now);
        match statistics.silence() {
            None => self.a_broker_answers(),
            Some(silence) => self.none_answers(silence, now),
        }
    }

    /// A connection failed; whether others are open, the next statistics tell.
    pub(super) fn a_connection_failed(&self, now: Instant) {
        lock(&self.state).failed.get_or_insert(now);
    }

    /// No broker is up, or none has answered for a while.
    pub(super) fn none_answers(&self, silence: Duration, now: Instant) {
        let mut state = lock(&self.state);
        let silent_since = now.checked_sub(silence).unwrap_or(now);
        let since = (*state.failed.get_or_insert(now)).min(silent_since);
        state.lost.get_or_insert(since);
    }

    /// The statistics show whether the client knows any broker to ask.
    fn knows_a_broker(&self, knows: bool, now: Instant) {
        let mut state = lock(&self.state);
        state.forgotten = if knows { None } else { state.forgotten.or(Some(now)) };
    }

    /// Whether only a new client can reach the brokers again. Says so once: the new one has its time.
    pub(super) fn take_forgotten(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let is_over = state.forgotten.is_some_and(|since| now.saturating_duration_since(since) >= FORGOTTEN_AFTER);
        if is_over {
            state.forgotten = None;
        }
        is_over
    }

    /// The statistics show one that does.
    fn a_broker_answers(&self) {
        *lock(&self.state) = State::default();
    }

    /// Whether no broker can be reached, for longer than a passing disconnection takes.
    pub(super) fn is_lost(&self, now: Instant) -> bool {
        lock(&self.state).lost.is_some_and(|since| now.saturating_duration_since(since) >= self.confirmed_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_counts_from_its_first_error() {
        let (reach, start) = (Reach::new(SECOND), Instant::now());
        reach.a_connection_failed(start);
        assert!(!reach.is_lost(start + 2 * SECOND), "others may be open");
        reach.none_answers(Duration::ZERO, start + SECOND);
        assert!(!reach.is_lost(start + SECOND));
        assert!(reach.is_lost(start + SECOND + ALLOWANCE));
        reach.none_answers(Duration::ZERO, start + 2 * SECOND);
        assert!(reach.is_lost(start + 2 * SECOND));
        reach.a_broker_answers();
        assert!(!reach.is_lost(start + 10 * SECOND));
    }

    #[test]
    fn a_client_that_says_that_all_are_down_is_believed_unless_the_next_statistics_differ() {
        let (reach, start) = (Reach::new(SECOND), Instant::now());
        reach.none_answers(Duration::ZERO, start);
        assert!(!reach.is_lost(start + SECOND), "an idle connection was closed and is open again at once");
        assert!(reach.is_lost(start + SECOND + ALLOWANCE));
        reach.a_broker_answers();
        assert!(!reach.is_lost(start + 2 * SECOND));
    }

    #[test]
    fn a_silence_that_has_lasted_needs_no_confirmation() {
        let (reach, now) = (Reach::new(SECOND), Instant::now());
        reach.none_answers(2 * SECOND, now);
        assert!(reach.is_lost(now));
    }

    #[test]
    fn a_client_that_knows_no_broker_for_long_is_given_up_once() {
        let (reach, start) = (Reach::new(SECOND), Instant::now());
        reach.knows_a_broker(false, start);
        reach.knows_a_broker(true, start + SECOND);
        reach.knows_a_broker(false, start + 2 * SECOND);
        reach.knows_a_broker(false, start + 4 * SECOND);
        assert!(!reach.take_forgotten(start + 4 * SECOND));
        assert!(reach.take_forgotten(start + 5 * SECOND));
        assert!(!reach.take_forgotten(start + 5 * SECOND));
    }

    #[test]
    fn one_broker_of_several_that_goes_away_changes_nothing() {
        let (reach, start) = (Reach::new(SECOND), Instant::now());
        for second in 0..5 {
            reach.a_connection_failed(start + second * SECOND);
            reach.a_broker_answers();
            assert!(!reach.is_lost(start + (second + 1) * SECOND));
        }
    }
}
