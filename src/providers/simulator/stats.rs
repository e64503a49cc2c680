//! What the simulator counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)+
        }

        /// The same, while they grow.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $name: AtomicU64,)+
        }

        impl Counts {
            pub(super) fn stats(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counts! {
    /// Submits that arrived.
    submits,
    /// Queries that arrived.
    queries,
    /// Deliveries: lines of the ledger that this run wrote.
    executed,
    /// Submits of a reference that was known already.
    duplicates,
    /// Requests refused for pace.
    throttled,
    /// Requests refused by a ban.
    banned,
    /// Recharges accepted first.
    accepted,
    /// Recharges refused.
    refused,
    /// Queries for a reference that is not known.
    not_found,
    /// Requests with a wrong key or none.
    unauthorized,
    /// Requests that are none of the protocol.
    malformed,
    /// Connections reset in place of an answer.
    resets,
    /// Requests left without an answer.
    hangs,
    /// Answers of a byte a second.
    slow_drips,
    /// Answers with status 500 and no word of the protocol.
    errors_500,
    /// The same with status 502, 503 or 504.
    errors_50x,
    /// Answers cut in the middle.
    truncated,
    /// Answers with an undocumented code.
    unknown_codes,
    /// Pages of HTML.
    pages,
    /// Answers with status 200 that say "system error".
    system_errors,
    /// Deliveries taken back.
    reversed,
}

impl Stats {
    /// Requests that were left without a clear answer.
    pub fn unclear(&self) -> u64 {
        self.resets
            + self.hangs
            + self.slow_drips
            + self.errors_500
            + self.errors_50x
            + self.truncated
            + self.unknown_codes
            + self.pages
            + self.system_errors
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
