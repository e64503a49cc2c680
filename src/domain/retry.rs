//! When to try again: as late as the back-off asks, as early as the deadline demands.

use std::time::Duration;

use super::Timestamp;
use super::ids::OrderId;
use super::policy::{Policy, ProviderPolicy};

/// When the next attempt should wake, or `None` if no call could end before the deadline.
///
/// The back-off grows by attempt and carries a jitter of ±20 % that is derived from the order,
/// so that a burst of declines does not come back as a burst and the rule stays pure. Where the
/// back-off does not fit, the largest wait that does is taken; `at_least` is never undercut.
pub fn next_wake(
    order_id: &OrderId,
    tries: u16,
    at_least: Duration,
    now: Timestamp,
    deadline_at: Timestamp,
    policy: &Policy,
    provider: &ProviderPolicy,
) -> Option<Timestamp> {
    let slack = (deadline_at - now).to_std().ok()?;
    let latest = slack.checked_sub(provider.expected_service)?;
    if at_least > latest {
        return None;
    }
    let wait = jittered(backoff(tries, policy), order_id, tries).max(at_least).min(latest);
    Some(super::to_micros(now + wait))
}

fn backoff(tries: u16, policy: &Policy) -> Duration {
    let doublings = u32::from(tries.saturating_sub(1)).min(20);
    policy.backoff_first.saturating_mul(1 << doublings).min(policy.backoff_max)
}

fn jittered(wait: Duration, order_id: &OrderId, tries: u16) -> Duration {
    // FNV-1a: spreads well enough for a jitter, and is the same in every process.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in order_id.as_str().bytes().chain(tries.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let permille = u32::try_from((hash >> 32) % 401).unwrap_or(200) + 800;
    wait.saturating_mul(permille) / 1000
}
