//! Who acts first. Batches are written side by side, but what acts on a stored order (its payment, its
//! cancellation, the same order again) waits until all that was read before it is written: a payment
//! may be read, in a batch of its own, while its order is still on its way to the store.

use tokio::sync::watch;

/// Gives each batch its turn, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Turns {
    under_way: Vec<watch::Receiver<bool>>,
}

/// The place of one batch.
#[derive(Debug)]
pub(super) struct Turn {
    earlier: Vec<watch::Receiver<bool>>,
    written: watch::Sender<bool>,
}

impl Turns {
    /// That of the batch which was read last.
    pub(super) fn next(&mut self) -> Turn {
        self.under_way.retain(|earlier| !*earlier.borrow());
        let earlier = self.under_way.clone();
        let (written, is_written) = watch::channel(false);
        self.under_way.push(is_written);
        Turn { earlier, written }
    }
}

impl Turn {
    /// Waits until all that was read before is written; `false` if some of it was left.
    pub(super) async fn comes(&mut self) -> bool {
        for earlier in &mut self.earlier {
            if earlier.wait_for(|is_written| *is_written).await.is_err() {
                return false;
            }
        }
        true
    }

    /// This batch is written.
    pub(super) fn ends(self) {
        // Perhaps nobody waits for it.
        let _waiting = self.written.send(true);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_turn_comes_when_all_earlier_ones_have_ended_in_whatever_order() {
        let mut turns = Turns::default();
        let (first, second, mut third) = (turns.next(), turns.next(), turns.next());
        second.ends();
        assert_eq!(third.comes().now_or_never(), None);
        first.ends();
        assert_eq!(third.comes().now_or_never(), Some(true));
        third.ends();
        assert!(turns.next().earlier.is_empty(), "what has ended is forgotten");
    }

    #[tokio::test]
    async fn after_a_batch_that_was_left_nobody_acts() {
        let mut turns = Turns::default();
        let (first, mut second) = (turns.next(), turns.next());
        drop(first);
        assert!(!second.comes().await);
    }
}
