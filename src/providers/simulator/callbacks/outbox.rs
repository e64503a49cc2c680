//! Messages that wait for their time, and where they go to by default.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{CallbackUrl, Message};
use crate::providers::Secret;

/// So many may wait, at about 500 bytes each; what is too much is never sent.
const WAITING_MAX: usize = 100_000;

/// There was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Overflow;

/// What waits to be sent.
#[derive(Debug)]
pub(in super::super) struct Outbox {
    /// For those whose submit named no address.
    pub(in super::super) default: Option<CallbackUrl>,
    /// What callbacks are signed with, if not with what callers show.
    pub(in super::super) key: Option<Secret>,
    waiting: Mutex<Waiting>,
    max: usize,
    /// The first one that waits is another one now.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    heap: BinaryHeap<Due>,
    last: u64,
    /// Taken out, and not done with.
    under_way: usize,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    /// Of those that are due at once, whichever was put first is first.
    number: u64,
    message: Message,
}

impl Outbox {
    pub(in super::super) fn new(default: Option<CallbackUrl>, key: Option<Secret>) -> Self {
        Self { default, key, waiting: Mutex::default(), max: WAITING_MAX, changed: Notify::new() }
    }

    /// Sends it then.
    pub(in super::super) fn put(&self, at: Instant, message: Message) -> Result<(), Overflow> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.heap.len() >= self.max {
            return Err(Overflow);
        }
        waiting.last += 1;
        let number = waiting.last;
        waiting.heap.push(Due { at, number, message });
        if waiting.heap.peek().is_some_and(|first| first.number == number) {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The first one whose time has come.
    pub(super) fn due(&self, now: Instant) -> Option<Message> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.heap.peek().filter(|first| first.at <= now)?;
        let due = waiting.heap.pop()?;
        waiting.under_way += 1;
        Some(due.message)
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).heap.peek().map(|first| first.at)
    }

    /// One that was taken out is done with; what follows from it is in here already.
    pub(super) fn done(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.under_way = waiting.under_way.saturating_sub(1);
    }

    /// How many wait or are under way.
    pub(in super::super) fn open(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.heap.len() + waiting.under_way
    }
}

impl Ord for Due {
    /// The earliest is the greatest: a heap gives that.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::dialect::Letter;
    use super::super::{Content, Kind};
    use super::*;
    use crate::domain::ClientRef;

    fn message(about: &str) -> Message {
        let letter = Letter { content_type: "text/plain", headers: Vec::new(), body: "".into() };
        let to = CallbackUrl::parse("http://127.0.0.1:9/").unwrap();
        Message::new(&to, &ClientRef::from_stored(about), Kind::End, Content::Again(letter))
    }

    #[test]
    fn messages_come_out_when_they_are_due_in_the_order_of_their_times() {
        let (outbox, now) = (Outbox::new(None, None), Instant::now());
        for (about, seconds) in [("c", 3), ("a", 1), ("b", 1), ("d", 9)] {
            outbox.put(now + Duration::from_secs(seconds), message(about)).unwrap();
        }
        let due = |seconds| {
            let at = now + Duration::from_secs(seconds);
            std::iter::from_fn(|| outbox.due(at)).map(|message| message.about.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((due(0), due(2), due(8)), (vec![], vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
        assert_eq!((outbox.open(), outbox.next_at()), (4, Some(now + Duration::from_secs(9))));
        outbox.done();
        assert_eq!(outbox.open(), 3, "two are under way, and one waits");
    }

    #[test]
    fn what_is_too_much_is_not_taken() {
        let outbox = Outbox { max: 2, ..Outbox::new(None, None) };
        let taken: Vec<_> = (0..4).map(|_| outbox.put(Instant::now(), message("a"))).collect();
        assert_eq!(taken, [Ok(()), Ok(()), Err(Overflow), Err(Overflow)]);
        assert!(outbox.due(Instant::now()).is_some());
        assert_eq!(outbox.put(Instant::now(), message("a")), Ok(()), "one has left");
    }
}
