//! When to try again: as late as the back-off asks, as early as the deadline demands.

use std::time::Duration;

use super::Timestamp;
use super::ids::OrderId;
use super::policy::{Policy, ProviderPolicy};

/// Kept free behind a retry that was moved forward to fit: it wakes a little late (its tier, its
/// permit), and one that wakes at the last possible moment would only ever be too late.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// An attempt that is to follow others.
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    /// Of which order.
    pub order_id: &'a OrderId,
    /// Its deadline.
    pub deadline_at: Timestamp,
    /// The attempts so far.
    pub tries: u16,
    /// The least wait.
    pub at_least: Duration,
    /// Whether the order may make no further one after it. Where the back-off alone would spend it in the first half of
    /// the time, an outage that ends in the second would cost the order.
    pub is_last: bool,
}

/// When the next attempt should wake, or `None` if no call could end before the deadline.
///
/// The back-off grows by attempt and carries a jitter of ±20 % that is derived from the order,
/// so that a burst of declines does not come back as a burst and the rule stays pure. Where the
/// back-off does not fit, the largest wait that does is taken; `at_least` is never undercut. The last
/// attempt is held for the end of the time, less a jitter of up to a fifth of how long it is held beyond its back-off.
pub fn next_wake(next: Next<'_>, now: Timestamp, policy: &Policy, provider: &ProviderPolicy) -> Option<Timestamp> {
    let Next { order_id, tries, .. } = next;
    let slack = (next.deadline_at - now).to_std().ok()?;
    let latest = slack.checked_sub(provider.expected_service)?;
    // Waits are kept in whole microseconds: rounded up, since "at least" means it.
    let at_least = Duration::from_micros(u64::try_from(next.at_least.as_nanos().div_ceil(1000)).ok()?);
    let fits = latest.saturating_sub(ALLOWANCE);
    if at_least > fits {
        return None;
    }
    let asked = backoff(tries, policy);
    let mut wait = jittered(asked, order_id, tries);
    if next.is_last {
        let held = fits.saturating_sub(wait);
        wait += held.saturating_mul(1000 - permille(order_id, tries) / 2) / 1000;
    }
    Some(super::plus(now, wait.min(fits).max(at_least)))
}

fn backoff(tries: u16, policy: &Policy) -> Duration {
    let doublings = u32::from(tries.saturating_sub(1)).min(20);
    policy.backoff_first.saturating_mul(1 << doublings).min(policy.backoff_max)
}

fn jittered(wait: Duration, order_id: &OrderId, tries: u16) -> Duration {
    wait.saturating_mul(800 + permille(order_id, tries)) / 1000
}

/// From 0 to 400.
fn permille(order_id: &OrderId, tries: u16) -> u32 {
    // FNV-1a: spreads well enough for a jitter, and is the same in every process.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in order_id.as_str().bytes().chain(tries.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    u32::try_from((hash >> 32) % 401).unwrap_or(200)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::outcome::{Capabilities, DuplicateSemantics, RefFormat};
    use crate::domain::policy::OnUnknown;

    fn provider(expected_service: Duration) -> ProviderPolicy {
        let capabilities = Capabilities {
            duplicates: DuplicateSemantics::RejectsAlways,
            query_not_before: Duration::ZERO,
            query_min_interval: Duration::ZERO,
            query_retention: Duration::ZERO,
            not_found_grace: Duration::ZERO,
            same_number_cooldown: None,
            client_ref: RefFormat { max_len: 32, alphanumeric_only: true },
            call_timeout: Duration::ZERO,
            callback_settles: false,
        };
        ProviderPolicy { capabilities, expected_service, send_window: Duration::ZERO }
    }

    fn policy(backoff_first: Duration, backoff_max: Duration) -> Policy {
        Policy {
            sla: Duration::ZERO,
            unpaid_timeout: Duration::ZERO,
            notify_after: Duration::ZERO,
            notify_at_end: false,
            refund_confirm_within: Some(Duration::from_hours(24)),
            on_unknown: OnUnknown::Hold,
            reconcile_within: Duration::ZERO,
            max_attempts: 3,
            backoff_first,
            backoff_max,
            providers: std::collections::HashMap::new(),
            routes: std::sync::Arc::default(),
            shut: Vec::new(),
        }
    }

    fn moment(micros: i64) -> Timestamp {
        Timestamp::from_timestamp_micros(1_790_000_000_000_000 + micros).unwrap()
    }

    fn next(order_id: &OrderId, tries: u16, at_least: Duration, slack_us: i64) -> Next<'_> {
        Next { order_id, deadline_at: moment(slack_us), tries, at_least, is_last: false }
    }

    proptest! {
        #[test]
        fn a_retry_never_wakes_too_early_nor_too_late_to_fit(
            tries in any::<u16>(), at_least in 0_u64..200_000_000_000, slack in -10_000_000_i64..200_000_000,
            service in 0_u64..30_000_000, first in 1_u64..10_000, longest in 1_u64..60_000, id in "[a-z]{1,8}",
            is_last in any::<bool>(),
        ) {
            let policy = policy(Duration::from_millis(first), Duration::from_millis(longest));
            let provider = provider(Duration::from_micros(service));
            let at_least = Duration::from_nanos(at_least);
            let (now, deadline) = (moment(0), moment(slack));
            let order = OrderId::parse(&id).unwrap();
            let wake = next_wake(Next { is_last, ..next(&order, tries, at_least, slack) }, now, &policy, &provider);
            // What would wake at the very end is shed when it comes: it is not waited for. What need not wait is tried.
            let room = Duration::from_micros(slack.max(0).unsigned_abs()).checked_sub(provider.expected_service);
            let fits = room.filter(|_| slack >= 0).is_some_and(|room| at_least <= room.saturating_sub(ALLOWANCE));
            prop_assert_eq!(wake.is_some(), fits);
            let Some(wake) = wake else { return Ok(()) };
            let wait = (wake - now).to_std().unwrap();
            if !wait.is_zero() {
                prop_assert!(super::super::plus(wake, provider.expected_service + ALLOWANCE) <= deadline);
            }
            prop_assert!(wait >= at_least, "{:?} before {:?}", wait, at_least);
            prop_assert!(super::super::plus(wake, provider.expected_service) <= deadline);
            let asked = backoff(tries, &policy);
            if is_last {
                let fits = room.unwrap_or_default().saturating_sub(ALLOWANCE);
                prop_assert!(wait + Duration::from_micros(2) >= fits * 8 / 10, "{:?} of {:?}", wait, fits);
                return Ok(());
            }
            prop_assert!(wait <= (asked * 12 / 10).max(at_least + Duration::from_micros(1)), "{:?} for {:?}", wait, asked);
            let room = Duration::from_micros(slack.unsigned_abs()).saturating_sub(provider.expected_service);
            if room >= asked * 12 / 10 + ALLOWANCE {
                prop_assert!(wait + Duration::from_micros(1) >= asked * 8 / 10, "{:?} for {:?}", wait, asked);
            }
        }

        #[test]
        fn the_back_off_grows_and_stays_within_its_limit(
            tries in 0_u16..u16::MAX, first in 1_u64..10_000, longest in 1_u64..60_000,
        ) {
            let policy = policy(Duration::from_millis(first), Duration::from_millis(longest));
            prop_assert!(backoff(tries, &policy) <= backoff(tries + 1, &policy));
            prop_assert!(backoff(tries + 1, &policy) <= policy.backoff_max);
        }
    }

    #[test]
    fn two_orders_of_one_burst_do_not_come_back_together() {
        let (policy, provider) = (policy(Duration::from_secs(10), Duration::from_mins(1)), provider(Duration::ZERO));
        for is_last in [false, true] {
            let wakes: std::collections::HashSet<_> = (0..100)
                .filter_map(|n| {
                    let order = OrderId::parse(&format!("order-{n}")).ok()?;
                    next_wake(
                        Next { is_last, ..next(&order, 1, Duration::ZERO, 180_000_000) },
                        moment(0),
                        &policy,
                        &provider,
                    )
                })
                .collect();
            assert!(wakes.len() > 80, "{} different moments for 100 orders", wakes.len());
        }
    }

    #[test]
    fn a_retry_that_was_moved_forward_leaves_room_to_be_late() {
        let (policy, provider) =
            (policy(Duration::from_mins(1), Duration::from_mins(1)), provider(Duration::from_secs(5)));
        let order = OrderId::parse("order-1").unwrap();
        let wake = next_wake(next(&order, 1, Duration::ZERO, 20_000_000), moment(0), &policy, &provider);
        assert_eq!(wake, Some(moment(14_000_000)));
    }

    #[test]
    fn a_wait_that_would_only_end_too_late_is_none() {
        let (policy, provider) =
            (policy(Duration::from_secs(1), Duration::from_mins(1)), provider(Duration::from_secs(5)));
        let order = OrderId::parse("order-1").unwrap();
        let wake = |at_least| next_wake(next(&order, 1, at_least, 20_000_000), moment(0), &policy, &provider);
        assert_eq!(wake(Duration::from_secs(14)), Some(moment(14_000_000)));
        assert_eq!(wake(Duration::from_millis(14_001)), None, "it would wake to be shed");
    }
}
