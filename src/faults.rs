//! Points at which a test may crash, stop or delay the process. Without the feature `failpoints`
//! they are nothing.
//!
//! `FAILPOINTS='dispatch::claimed=1*return(abort)'` ends the process without any clean-up at the
//! first claim; `return(stop)` stops it as SIGSTOP does; `sleep(200)` delays.

/// A point that the fault tests can name.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "failpoints")]
    armed::point(name);
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

#[cfg(feature = "failpoints")]
mod armed {
    #[expect(clippy::print_stderr, reason = "the last word before an abrupt end, for the test that asked for it")]
    pub(super) fn point(name: &str) {
        fail::fail_point!(name, |action| {
            eprintln!("failpoint {name}: {action:?}");
            match action.as_deref() {
                Some("abort") => std::process::abort(),
                Some("stop") => {
                    let _sent = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
                    // Another thread may be the one that takes the signal, a moment later; this
                    // one must not go on meanwhile.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                _ => {}
            }
        });
    }
}

/// Bugs that the simulation must find, each a rule of the design left out (`docs/PROOF.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A write does not look at the row's version.
    SkipTheFence,
    /// Offsets are acknowledged before their orders are stored.
    AcknowledgeBeforeStored,
    /// The highest offset that is done is committed, whatever is open before it.
    CommitTheHighest,
    /// An order that comes again does not get its command again.
    ForgetTheCommand,
    /// Batches do not wait for each other: a payment is read while its order is still being stored.
    PayBeforeStored,
    /// The log is read by sequence alone, also past transactions that are still running.
    SequenceAsCursor,
    /// The relay moves its cursor before its events are acknowledged.
    CursorBeforeEvents,
    /// A time-out is taken for a refusal.
    TimeOutIsFailure,
    /// What nobody heard of is sent again.
    ResendTheUnknown,
    /// The same reference is sent again where that is not safe.
    UnsafeResend,
    /// A reply counts for whatever claim the attempt carries by now.
    WhoseClaim,
    /// What "not found" closed is forgotten: no case, new references.
    ForgetNotFound,
    /// A claim that was overtaken is sent all the same.
    SendTheOvertaken,
    /// A send leaves however long ago it was claimed.
    ZombieSends,
    /// Permits do not grow old.
    StalePermits,
    /// A wait is announced after it was written.
    HintAfterState,
    /// A command that is ahead of its row is dropped.
    DropTheAhead,
    /// A question that was not answered is not asked again.
    ForgetTheQuestion,
    /// Questions are asked whoever else asks them.
    AskUnheld,
    /// An order's deadline is judged twice in the figures.
    CountTwice,
    /// An order that misses its deadline is in no figure.
    ForgetMissed,
    /// Deadlines come a second early.
    DeadlineTooEarly,
    /// An open attempt is refunded at the deadline.
    RefundTheUnknown,
    /// An order whose refund was requested at its deadline is refunded again when it fails.
    RefundAgain,
    /// An order whose send is under way is claimed once more.
    ClaimBeside,
    /// The low-water mark rises past what is still being written.
    MarkTooEarly,
    /// Notifications are asked for two seconds early.
    NotifyTooEarly,
    /// A notification is asked for whether it was asked for before or not.
    NotifyAgain,
    /// An event whose order is not there yet is forgotten.
    ForgetTheEarly,
    /// Nobody follows a refund.
    ForgetTheRefund,
    /// What was to be told later is told after the end as well.
    TellAfterTheEnd,
    /// Delayed records leave a tenth of a second early.
    ForwardTooEarly,
    /// Delayed records are acknowledged before they are forwarded.
    AcknowledgeBeforeForwarded,
}

/// Whether this thread's product has a bug. Without the feature `failpoints` none has any.
#[inline]
pub fn is_planted(bug: Bug) -> bool {
    #[cfg(feature = "failpoints")]
    {
        planted::is(bug)
    }
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = bug;
        false
    }
}

#[cfg(feature = "failpoints")]
pub use planted::plant;

#[cfg(feature = "failpoints")]
mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whatever this thread runs from now on has this bug, and no other.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(super) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
