//! Records go to librdkafka in waves: the next is handed over once the last is answered.
//!
//! An idempotent producer of librdkafka has one request per partition under way, whatever it is
//! allowed. Records that are due behind it make its thread turn without a pause until the answer
//! comes (a fifth of the service's time went there); records that wait here cost nothing, and
//! share the next request. A wave that is not answered soon holds up nobody any longer: it may
//! concern one partition whose broker is away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::kafka::sync::lock;

/// How long a wave keeps others back at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// From so many topics on those with which nothing is under way are forgotten: names may be anybody's.
const TOPICS_MAX: usize = 256;

/// One for each topic: a topic that is not answered holds up no other.
#[derive(Debug)]
pub(super) struct TopicWaves {
    known: Mutex<HashMap<Arc<str>, Arc<Waves>>>,
    /// What one topic may have under way.
    share: Option<u32>,
}

impl TopicWaves {
    pub(super) fn new(share: Option<u32>) -> Self {
        Self { known: Mutex::default(), share }
    }

    pub(super) fn of(&self, topic: &Arc<str>) -> Arc<Waves> {
        let mut known = lock(&self.known);
        if let Some(waves) = known.get(topic) {
            return Arc::clone(waves);
        }
        if known.len() >= TOPICS_MAX {
            // Whatever is under way holds its own.
            known.retain(|_, waves| Arc::strong_count(waves) > 1);
        }
        Arc::clone(known.entry(Arc::clone(topic)).or_insert_with(|| Arc::new(Waves::new(self.share))))
    }
}

/// What is handed over and not answered.
#[derive(Debug)]
pub(super) struct Waves {
    /// What is left of its topic's share, and all of it, where there is one.
    share: Option<(Semaphore, u32)>,
    unanswered: AtomicUsize,
    /// Waves that were answered so far.
    over: AtomicU64,
    ended: Notify,
}

impl Waves {
    fn new(share: Option<u32>) -> Self {
        let share = share.map(|share| (Semaphore::new(usize::try_from(share).unwrap_or(usize::MAX)), share));
        Self { share, unanswered: AtomicUsize::new(0), over: AtomicU64::new(0), ended: Notify::new() }
    }

    /// What a record of so many bytes takes of the share: one for each KiB that it begins.
    pub(super) fn weight(&self, bytes: usize) -> u32 {
        let Some((_, all)) = &self.share else { return 0 };
        u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, *all)
    }

    /// Takes it, if it is free.
    pub(super) fn try_take(&self, weight: u32) -> bool {
        let Some((free, _)) = &self.share else { return true };
        free.try_acquire_many(weight).map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Waits for it until then; `false` if it was not free by then.
    pub(super) async fn take(&self, weight: u32, give_up_at: Option<Instant>) -> bool {
        let Some((free, _)) = &self.share else { return true };
        let acquire = free.acquire_many(weight);
        let acquired = match give_up_at {
            Some(at) => timeout_at(at, acquire).await.ok().and_then(Result::ok),
            None => acquire.await.ok(),
        };
        acquired.map(tokio::sync::SemaphorePermit::forget).is_some()
    }

    pub(super) fn give_back(&self, weight: u32) {
        if let Some((free, _)) = &self.share {
            free.add_permits(usize::try_from(weight).unwrap_or(0));
        }
    }

    /// Waits until what was handed over before is answered. Whoever waits for the same wave goes
    /// on together, into the next one.
    pub(super) async fn turn(&self) {
        let give_up_at = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Listening comes before the look, so that no end is missed between the two.
            ended.as_mut().enable();
            let over = self.over.load(Ordering::Acquire);
            let is_next = *before.get_or_insert(over) != over;
            if is_next || self.unanswered.load(Ordering::Acquire) == 0 {
                return;
            }
            if timeout_at(give_up_at, ended).await.is_err() {
                return;
            }
        }
    }

    /// A record is about to be handed over.
    pub(super) fn handed_over(&self) {
        self.unanswered.fetch_add(1, Ordering::AcqRel);
    }

    /// A record was answered, or was not taken.
    pub(super) fn answered(&self) {
        if self.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.fetch_add(1, Ordering::AcqRel);
            self.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_next_wave_begins_when_the_last_record_of_the_one_before_is_answered() {
        let waves = Arc::new(Waves::new(None));
        waves.turn().await;
        waves.handed_over();
        waves.handed_over();
        let (mut first, mut second) = (Box::pin(waves.turn()), Box::pin(waves.turn()));
        waves.answered();
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        waves.answered();
        first.await;
        // It has begun the next wave, of which the second is a part.
        waves.handed_over();
        second.await;
        assert!(waves.turn().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wave_that_is_not_answered_holds_up_others_for_a_moment_only() {
        let waves = Waves::new(None);
        waves.handed_over();
        let began = Instant::now();
        waves.turn().await;
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_has_its_share_and_no_more_whatever_its_records_weigh() {
        let topics = TopicWaves::new(Some(10));
        let (ill, well) = (topics.of(&Arc::from("ill")), topics.of(&Arc::from("well")));
        assert_eq!([0, 1, 1024, 1025, 1 << 30].map(|bytes| ill.weight(bytes)), [1, 1, 1, 2, 10]);
        assert!(ill.try_take(9) && !ill.try_take(2) && well.try_take(10));
        let give_up_at = Instant::now() + PATIENCE;
        assert!(!ill.take(2, Some(give_up_at)).await);
        assert_eq!(Instant::now(), give_up_at);
        ill.give_back(1);
        assert!(ill.take(2, None).await);
    }

    #[test]
    fn topics_with_which_nothing_is_under_way_are_forgotten() {
        let topics = TopicWaves::new(Some(10));
        let kept = topics.of(&Arc::from("kept"));
        assert!(kept.try_take(10));
        for number in 0..10 * TOPICS_MAX {
            topics.of(&Arc::from(number.to_string()));
        }
        assert!(lock(&topics.known).len() <= TOPICS_MAX);
        assert!(!topics.of(&Arc::from("kept")).try_take(1), "its share was given twice");
    }
}
