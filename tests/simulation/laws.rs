//! The invariants. Some are looked at whenever something is written, the others when all is quiet.

use std::sync::Mutex;

use recharged::domain::Timestamp;

/// What must hold in every run, whatever goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Law {
    /// I1: every order of the shop is stored once and decided, and no partition is stuck.
    EveryOrderEnds,
    /// I2: no order is executed twice, and none is refunded that was executed, but with an open case.
    ExecutedOnce,
    /// I2: an order has one send under way at most.
    OneAtATime,
    /// I2: nothing leaves later than the send window after its claim.
    SendWindow,
    /// I2: what became of a send that nobody heard of is asked before anything is sent again.
    AskedBeforeSentAgain,
    /// I3: each committed transition is published, in its order, and nothing else.
    Published,
    /// I4: what is closed stays as it is; versions count; the log rebuilds the row.
    RowsAreLegal,
    /// I5: in no window the provider sees more than its rate and its burst.
    Quota,
    /// I6: nothing is decided before its deadline, and everything soon after it.
    Deadline,
    /// I7: nothing that was delayed arrives early.
    NeverEarly,
    /// I8: what is acknowledged is durable elsewhere.
    Offsets,
    /// A wait is announced before it is written: there is no moment at which a crash forgets it.
    HintFirst,
    /// The provider is asked as rarely as it wants.
    AskedInTurn,
    /// Exactly one refund for each failed order, none for any other.
    RefundedOnce,
    /// Exactly one notification for each order that asked for one, when its time has come and not much later.
    NotifiedOnce,
    /// A refund that is not confirmed in time, that nobody asked for, or that is made twice, is a case; no other is.
    RefundsFollowed,
    /// I11: every order is counted once.
    Counted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) law: Law,
    pub(crate) what: String,
}

/// What was found so far.
#[derive(Debug)]
pub(crate) struct Findings {
    found: Mutex<Vec<Violation>>,
    /// The order whose life is printed: `SIM_TRACE`.
    traced: Option<String>,
}

impl Default for Findings {
    fn default() -> Self {
        Self { found: Mutex::default(), traced: std::env::var("SIM_TRACE").ok() }
    }
}

impl Findings {
    /// Prints what happens to the order that is traced.
    pub(crate) fn trace(&self, now: Timestamp, order_id: &str, what: impl FnOnce() -> String) {
        if self.traced.as_deref() == Some(order_id) {
            eprintln!("{now} {}", what());
        }
    }

    pub(crate) fn hold(&self, law: Law, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let mut found = self.found.lock().unwrap();
            // A broken law is broken again and again; the first times tell the story.
            if found.len() < 20 {
                found.push(Violation { law, what: what() });
            }
        }
    }

    pub(crate) fn take(&self) -> Vec<Violation> {
        std::mem::take(&mut *self.found.lock().unwrap())
    }
}
