//! Finds a partition that stands still though nothing holds it.
//!
//! librdkafka has lost partitions to races of pausing and assigning. Where the log has more than
//! was fetched, nothing is paused, and nothing moved for half a minute while the broker answers,
//! a new client is the cure.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use crate::kafka::sync::lock;

use super::rebalance::GroupConsumer;
use super::shared::{Shared, Slot};

const STILL_LIMIT: Duration = Duration::from_secs(30);
/// How long the question may hold up the thread.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Whether a partition is stuck; asks the broker before it says so.
pub(super) fn is_stuck(shared: &Shared, consumer: &GroupConsumer) -> bool {
    let now = Instant::now();
    for topic in &shared.topics {
        let suspects: Vec<(i32, i64)> = lock(&topic.slots)
            .values_mut()
            .filter_map(|slot| Some((slot.held.partition, slot.suspect(now)?)))
            .collect();
        for (partition, fetched) in suspects {
            let Ok((_, high)) = consumer.fetch_watermarks(&topic.name, partition, ANSWER_LIMIT) else {
                // A broker that is away explains it.
                return false;
            };
            if high > fetched {
                tracing::error!(
                    group = %shared.group,
                    "{}/{partition} stands at {fetched} of {high} for {STILL_LIMIT:?}: making a new client",
                    topic.name
                );
                return true;
            }
        }
    }
    false
}

impl Slot {
    /// What was fetched so far, if the partition should have moved and did not. What is fetched
    /// counts, not what was delivered: transaction markers at the end are never delivered.
    fn suspect(&mut self, now: Instant) -> Option<i64> {
        let (Some(high), Some(fetched)) = (self.facts.high, self.facts.fetched) else {
            self.moved_at = now;
            return None;
        };
        if self.paused.is_some() || fetched >= high {
            self.moved_at = now;
            return None;
        }
        (now.duration_since(self.moved_at) >= STILL_LIMIT).then_some(fetched)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::assignment::Held;
    use super::super::shared::Paused;
    use super::*;

    #[test]
    fn only_a_partition_that_should_have_moved_for_long_is_suspect() {
        let mut slot = Slot::new(Arc::new(Held::new(Arc::from("t"), 0, None)));
        let start = slot.moved_at;
        let late = start + STILL_LIMIT;
        assert_eq!(slot.suspect(late), None, "nothing is known yet");
        slot.moved_at = start;
        (slot.facts.high, slot.facts.fetched) = (Some(10), Some(4));
        assert_eq!(slot.suspect(start + STILL_LIMIT / 2), None, "not long enough");
        assert_eq!(slot.suspect(late), Some(4));
        slot.facts.fetched = Some(10);
        assert_eq!(slot.suspect(late), None, "everything was fetched");
        (slot.facts.fetched, slot.paused, slot.moved_at) = (Some(4), Some(Paused::Full), start);
        assert_eq!(slot.suspect(late), None, "it is paused");
        slot.paused = None;
        assert_eq!(slot.suspect(late), None, "the time begins when the pause ends");
        assert_eq!(slot.suspect(late + STILL_LIMIT), Some(4));
    }
}
