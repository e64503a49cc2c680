//! When to ask the provider again what became of an attempt: early and ever more rarely, so that
//! most orders are settled by one of the first questions; once more right before the deadline;
//! and after it up to the end of what the provider remembers.

use std::time::Duration;

use super::Timestamp;
use super::order::{Attempt, Order};
use super::policy::ProviderPolicy;
use super::state::{AttemptState, CaseKind, State};

/// Between two questions at least, whatever the provider allows.
const LEAST: Duration = Duration::from_secs(1);
/// What could not be asked is asked again after this part of the attempt's age.
const SOON: u32 = 8;
/// The longest wait while the deadline lies ahead.
const MOST: Duration = Duration::from_secs(40);
/// After the deadline nobody waits by the minute.
const LATE_LEAST: Duration = Duration::from_secs(30);
const LATE_MOST: Duration = Duration::from_mins(30);
/// Kept free behind the last question before the deadline: its tier, its permit.
const ALLOWANCE: Duration = Duration::from_secs(2);
/// The last question comes so long before the provider forgets, or a tenth of the time it remembers.
const BEFORE_FORGOTTEN: Duration = Duration::from_hours(1);

/// When to ask next, after an answer at `now` that settled nothing; `at_least` is what the provider
/// asked for. `None` once it no longer remembers, or where nothing is left to ask.
pub fn next_query(order: &Order, at_least: Duration, now: Timestamp, provider: &ProviderPolicy) -> Option<Timestamp> {
    next(order, interval(provider).max(at_least), now, provider, 1)
}

/// When to ask what could not be asked at `now`. Nothing was learned, and the provider saw nothing, so it comes soon; not at
/// once, since it is being late with much that keeps questions from leaving. `None` as above.
pub fn ask_again(order: &Order, now: Timestamp, provider: &ProviderPolicy) -> Option<Timestamp> {
    next(order, LEAST, now, provider, SOON)
}

/// When to ask because the provider says that there is news: at once where nobody has asked yet, else when it may be asked
/// again, whenever it was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hastened {
    /// Where nobody has asked yet.
    pub first: Timestamp,
    /// Where somebody may just have asked.
    pub again: Timestamp,
}

/// When to ask because of news. `None` where nothing is asked, or the provider no longer remembers.
pub fn hastened(order: &Order, now: Timestamp, provider: &ProviderPolicy) -> Option<Hastened> {
    let claimed_at = order.attempt.as_ref().filter(|_| order.asks())?.claimed_at;
    let allowed = provider.after_send(claimed_at, provider.capabilities.query_not_before);
    // Before that moment nobody can have asked.
    let again = if now < allowed { allowed } else { super::plus(now, interval(provider)) };
    let first = allowed.max(now);
    (first <= last_query(claimed_at, provider)).then_some(Hastened { first, again })
}

/// What the provider wants between two questions.
fn interval(provider: &ProviderPolicy) -> Duration {
    provider.capabilities.query_min_interval.max(LEAST)
}

/// Spaced by one `part` of the attempt's age, and by `at_least`.
fn next(order: &Order, at_least: Duration, now: Timestamp, provider: &ProviderPolicy, part: u32) -> Option<Timestamp> {
    let attempt = order.attempt.as_ref().filter(|_| order.asks())?;
    let claimed_at = attempt.claimed_at;
    let capabilities = &provider.capabilities;
    let last = last_query(claimed_at, provider);
    let earliest = super::plus(now, at_least);
    let age = (now - claimed_at).to_std().unwrap_or_default();
    let spaced = if is_unproven(order) {
        last
    } else if now < order.deadline_at {
        let spaced = super::plus(now, (age / part).min(MOST));
        // From this moment on "not found" tells something.
        let telling = provider.after_send(claimed_at, capabilities.not_found_grace);
        let spaced = if now < telling && !attempt.inquiry.was_accepted { spaced.min(telling) } else { spaced };
        let reserve = before(order.deadline_at, provider.expected_service + ALLOWANCE);
        // One question is kept for the last moment at which its answer still comes in time: one that comes before it
        // must be answered, and the provider's interval be over, by then.
        let answered = super::plus(spaced.max(earliest), provider.expected_service);
        if earliest > reserve && part == SOON {
            // That very question could not be put: a late answer may still be in time.
            earliest
        } else if super::plus(answered, interval(provider)) > reserve && earliest <= reserve {
            reserve
        } else {
            spaced
        }
    } else {
        super::plus(now, (age / 2).clamp(LATE_LEAST, LATE_MOST))
    };
    let next = spaced.max(earliest).max(provider.after_send(claimed_at, capabilities.query_not_before));
    if next <= last { Some(next) } else { Some(last).filter(|last| *last >= earliest) }
}

/// The longest wait for a question to a provider that remembers an attempt for so long: the one
/// question about an order that "not found" has closed comes right before the provider forgets.
pub fn longest_wait(query_retention: Duration) -> Duration {
    query_retention.max(LATE_MOST)
}

/// The last moment at which the provider's answer still means something.
pub fn last_query(claimed_at: Timestamp, provider: &ProviderPolicy) -> Timestamp {
    let remembered = provider.capabilities.query_retention;
    super::plus(claimed_at, remembered.saturating_sub(BEFORE_FORGOTTEN.min(remembered / 10)))
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    chrono::TimeDelta::from_std(by).ok().and_then(|by| at.checked_sub_signed(by)).unwrap_or(at)
}

/// Closed by "not found" alone: its one question comes at the end.
fn is_unproven(order: &Order) -> bool {
    order.state == State::Failed
        && order.cases & CaseKind::FailedUnproven.bit() != 0
        && order.attempt.as_ref().is_some_and(|attempt| attempt.inquiry.closed_by_not_found)
}

impl Order {
    /// Whether the provider's word on the current attempt can still change something: an attempt
    /// that is open, also where an older one has closed the order, and one that only "not found"
    /// speaks for. Not while its caller may still hear the answer to the send itself.
    pub fn asks(&self) -> bool {
        match self.state {
            State::InFlight => {
                let is_sent = |attempt: &Attempt| attempt.state == AttemptState::Sent;
                self.has_open_attempt() && !self.attempt.as_ref().is_some_and(is_sent)
            }
            State::InDoubt | State::Succeeded => self.has_open_attempt(),
            State::Failed => self.has_open_attempt() || is_unproven(self),
            State::AwaitingPayment | State::Queued | State::RetryWait | State::Cancelled => false,
        }
    }
}
