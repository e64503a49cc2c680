//! The closed sets: what an order can be, what its attempt can be, and why it ended.

use serde::{Deserialize, Serialize};

/// Writes an enum whose members have one stable text each: in the database, JSON and labels.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every member, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The member's one text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The member of a text, if it is one.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use text_enum;

text_enum! {
    /// Where an order stands (`docs/STATE_MACHINE.md`).
    State {
        /// Created, not paid yet.
        AwaitingPayment = "awaiting_payment",
        /// Paid; a submit command is live.
        Queued = "queued",
        /// Attempt *n* is recorded as sent; its outcome is not known yet.
        InFlight = "in_flight",
        /// Attempt *n* definitely had no effect; the next one waits for its time.
        RetryWait = "retry_wait",
        /// The deadline passed with an open attempt; a case is open and inquiries go on.
        InDoubt = "in_doubt",
        /// The provider confirmed delivery.
        Succeeded = "succeeded",
        /// Definitely not delivered, or decided so by a person; a refund is requested.
        Failed = "failed",
        /// Never paid, or cancelled before payment.
        Cancelled = "cancelled",
    }
}

impl State {
    /// Closed states never change.
    pub const fn is_closed(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::AwaitingPayment | Self::Queued | Self::InFlight | Self::RetryWait | Self::InDoubt => false,
        }
    }
}

text_enum! {
    /// Where the current attempt stands.
    AttemptState {
        /// Nothing has left under this reference, or what left provably had no effect: the same
        /// reference may be sent.
        Prepared = "prepared",
        /// The claim is committed; the request may have left.
        Sent = "sent",
        /// The provider has taken it and will tell the outcome later.
        Accepted = "accepted",
        /// It may have been executed; only the provider knows.
        Unknown = "unknown",
        /// Delivered.
        Succeeded = "succeeded",
        /// Definitely not delivered, and never will be under this reference.
        Failed = "failed",
        /// Provably without effect, and its reference is not used again.
        NotExecuted = "not_executed",
        /// A person decided without the provider's word.
        WrittenOff = "written_off",
    }
}

impl AttemptState {
    /// An open attempt may still deliver.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Sent | Self::Accepted | Self::Unknown => true,
            Self::Prepared | Self::Succeeded | Self::Failed | Self::NotExecuted | Self::WrittenOff => false,
        }
    }
}

text_enum! {
    /// Why an order failed or was cancelled, or was refunded (`interface.md` section 6).
    Reason {
        /// The phone number cannot exist.
        InvalidPhone = "invalid_phone",
        /// No product for this amount.
        AmountNotSupported = "amount_not_supported",
        /// No lane serves this country, carrier and amount.
        NoRoute = "no_route",
        /// The provider refused, finally.
        ProviderDeclined = "provider_declined",
        /// The recipient may not be recharged.
        RecipientBarred = "recipient_barred",
        /// Every attempt that the policy or the time allowed was declined.
        AttemptsExhausted = "attempts_exhausted",
        /// A call could no longer have ended before the deadline, so none was made.
        DeadlineUnreachable = "deadline_unreachable",
        /// The deadline came with nothing open at a provider.
        DeadlinePassed = "deadline_passed",
        /// The provider took the delivery back before the order was closed.
        Reversed = "reversed",
        /// Paid after it had been cancelled.
        PaidAfterCancel = "paid_after_cancel",
        /// Not paid in time.
        Unpaid = "unpaid",
        /// Cancelled by the shop before payment.
        CancelledUpstream = "cancelled_upstream",
        /// A person decided, with evidence.
        ResolvedByOperator = "resolved_by_operator",
    }
}

text_enum! {
    /// Whether an order was decided by its deadline. Each order is counted once.
    Sla {
        /// Closed before the deadline.
        Met = "met",
        /// Still open at the deadline.
        Missed = "missed",
    }
}

text_enum! {
    /// What a person has to look at. An order has at most one case of each kind.
    CaseKind {
        /// The deadline passed with an open attempt.
        InDoubt = "in_doubt",
        /// The same order id came again with another phone, amount, currency or payment.
        PayloadConflict = "payload_conflict",
        /// The provider delivered after the order had failed, or after its refund was requested.
        LateSuccess = "late_success",
        /// The provider says failed after it had said succeeded.
        Conflict = "conflict",
        /// The provider reversed a delivery after the order had succeeded.
        ReversedAfterSuccess = "reversed_after_success",
        /// An older attempt that had been called failed was delivered after all.
        ProviderFlipped = "provider_flipped",
        /// Two attempts of one order were delivered.
        DoubleSuccess = "double_success",
        /// The provider delivered another amount than was ordered.
        AmountMismatch = "amount_mismatch",
        /// Failed and refunded although only "not found" speaks for it.
        FailedUnproven = "failed_unproven",
        /// A callback contradicts what is known of an attempt, and the provider did not confirm it when asked.
        Unconfirmed = "unconfirmed",
        /// The payment side confirmed a refund that nobody had requested.
        UnrequestedRefund = "unrequested_refund",
        /// The payment side confirmed a second refund.
        RefundedTwice = "refunded_twice",
        /// The payment side has not confirmed a refund in time.
        RefundUnconfirmed = "refund_unconfirmed",
    }
}

impl CaseKind {
    /// This kind's bit in an order's set of cases.
    pub const fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_reads_back_as_its_member() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(*state));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(State::parse("paid"), None);
    }

    #[test]
    fn every_kind_of_case_has_a_bit_of_its_own() {
        let all = CaseKind::ALL.iter().fold(0, |set, kind| set | kind.bit());
        assert_eq!(usize::try_from(all.count_ones()).ok(), Some(CaseKind::ALL.len()));
    }
}
