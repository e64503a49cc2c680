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

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::kafka::sync::lock;

/// How long a wave keeps others back at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// One for each topic: a topic that is not answered holds up no other.
#[derive(Debug, Default)]
pub(super) struct TopicWaves(Mutex<HashMap<Arc<str>, Arc<Waves>>>);

impl TopicWaves {
    pub(super) fn of(&self, topic: &Arc<str>) -> Arc<Waves> {
        let mut known = lock(&self.0);
        if let Some(waves) = known.get(topic) {
            return Arc::clone(waves);
        }
        Arc::clone(known.entry(Arc::clone(topic)).or_default())
    }
}

/// What is handed over and not answered.
#[derive(Debug, Default)]
pub(super) struct Waves {
    unanswered: AtomicUsize,
    /// Waves that were answered so far.
    over: AtomicU64,
    ended: Notify,
}

impl Waves {
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
        let waves = Arc::new(Waves::default());
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
        let waves = Waves::default();
        waves.handed_over();
        let began = Instant::now();
        waves.turn().await;
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
