//! What the simulator counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counts {
    (
        $(#[$about:meta])* $stats:ident, $counts:ident
        $(, $(#[$inner_doc:meta])* $inner:ident: $inner_stats:ident, $inner_counts:ident)?;
        $($(#[$doc:meta])* $name:ident),+ $(,)?
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        pub struct $stats {
            $($(#[$doc])* pub $name: u64,)+
            $($(#[$inner_doc])* pub $inner: $inner_stats,)?
        }

        /// The same, while they grow.
        #[derive(Debug, Default)]
        pub(super) struct $counts {
            $(pub(super) $name: AtomicU64,)+
            $(pub(super) $inner: $inner_counts,)?
        }

        impl $counts {
            pub(super) fn stats(&self) -> $stats {
                $stats {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    $($inner: self.$inner.stats(),)?
                }
            }
        }
    };
}

counts! {
    /// What became of callbacks, since the start. Every one that was sent was acknowledged, refused
    /// or left unanswered, or is still under way.
    CallbackStats, CallbackCounts;
    /// Requests that went out, resends and those of the kinds below among them.
    sent,
    /// Of these, the ones that were acknowledged as the protocol wants it.
    acknowledged,
    /// Answered by a status of 200 to 299, and not acknowledged all the same: the body was wrong.
    refused_2xx,
    /// Answered by a redirect, which is not followed.
    refused_3xx,
    /// Answered by a status of 400 to 499.
    refused_4xx,
    /// Answered by any other status.
    refused_5xx,
    /// No answer in time, or no connection.
    unanswered,
    /// Never acknowledged, however often they were sent.
    given_up,
    /// Never sent, because too many waited.
    overflowed,
    /// Never sent, because there was no address that they could be sent to.
    unaddressed,
    /// Sent with a wrong signature.
    forged_sent,
    /// Of these, the ones that were acknowledged.
    forged_acknowledged,
    /// Sent with an old timestamp.
    stale_sent,
    /// Of these, the ones that were acknowledged.
    stale_acknowledged,
    /// Sent again, byte for byte.
    replayed_sent,
    /// Of these, the ones that were acknowledged.
    replayed_acknowledged,
    /// Sent about a reference that nobody has.
    unknown_sent,
    /// Of these, the ones that were acknowledged.
    unknown_acknowledged,
}

counts! {
    /// Counts since the start.
    Stats, Counts,
    /// Callbacks.
    callbacks: CallbackStats, CallbackCounts;
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
