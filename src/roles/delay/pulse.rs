//! Whether the broker as a whole answers. A topic that takes nothing looks like a broker that stands still for some
//! seconds (a disk that writes back, a long collection of garbage), and what fails in such a time tells nothing
//! of its topic: thousands of records would be given up that could go a moment later.

use std::time::Duration;

use tokio::time::Instant;

/// An answer that took longer says nothing of how the broker is now.
pub(super) const PROMPT: Duration = Duration::from_secs(1);
/// The last prompt answer speaks for so long: shorter than a record waits for its own.
const SPEAKS_FOR: Duration = Duration::from_secs(2);

/// The prompt answers of a broker, whatever they were to.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Since when they have come without a pause of more than [`PROMPT`].
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Pulse {
    /// Something that was handed over then is acknowledged now.
    pub(super) fn answered(&mut self, began_at: Instant, now: Instant) {
        if now > began_at + PROMPT {
            return;
        }
        if self.last.is_none_or(|last| now > last + PROMPT) {
            self.since = Some(now);
        }
        self.last = Some(now);
    }

    /// Whether something was answered promptly of late.
    pub(super) fn beats(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now <= last + SPEAKS_FOR)
    }

    /// Whether the broker answered all the while: then it is not its fault that something has waited in vain.
    pub(super) fn has_beaten_since(&self, began_at: Instant, now: Instant) -> bool {
        self.beats(now) && self.since.is_some_and(|since| since <= began_at)
    }
}
