//! The classes of trouble: what a profile rates, a script forces, and the strikes are counted by.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::profile::FaultKind;

/// Numbers that end in less are ordinary ones, but for the few that DT One's sandbox knows.
const FIRST_ENDING: usize = 50;

macro_rules! classes {
    ($(#[doc = $doc:literal] $name:ident = $text:literal),+ $(,)?) => {
        /// A class of trouble. Its name is the key of the profile that governs it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FaultClass {
            $(#[doc = $doc] $name,)+
        }

        impl FaultClass {
            /// Every class.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What happens, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => $doc.trim(),)+ }
            }
        }
    };
}

classes! {
    /// The connection is reset; not executed.
    ResetBefore = "faults.reset.before",
    /// The connection is reset; executed.
    ResetAfter = "faults.reset.after",
    /// No answer; not executed.
    HangBefore = "faults.hang.before",
    /// No answer; executed.
    HangAfter = "faults.hang.after",
    /// An answer of a byte a second; not executed.
    SlowDripBefore = "faults.slow_drip.before",
    /// An answer of a byte a second; executed.
    SlowDripAfter = "faults.slow_drip.after",
    /// Status 500; not executed.
    Error500Before = "faults.error_500.before",
    /// Status 500; executed.
    Error500After = "faults.error_500.after",
    /// Status 502; not executed.
    Error502Before = "faults.error_502.before",
    /// Status 502; executed.
    Error502After = "faults.error_502.after",
    /// Status 503; not executed.
    Error503Before = "faults.error_503.before",
    /// Status 503; executed.
    Error503After = "faults.error_503.after",
    /// Status 504; not executed.
    Error504Before = "faults.error_504.before",
    /// Status 504; executed.
    Error504After = "faults.error_504.after",
    /// JSON that ends in the middle; not executed.
    TruncatedBefore = "faults.truncated.before",
    /// JSON that ends in the middle; executed.
    TruncatedAfter = "faults.truncated.after",
    /// A code that is in no documentation; not executed.
    UnknownCodeBefore = "faults.unknown_code.before",
    /// A code that is in no documentation; executed.
    UnknownCodeAfter = "faults.unknown_code.after",
    /// A page of HTML with status 200; not executed.
    HtmlPageBefore = "faults.html_page.before",
    /// A page of HTML with status 200; executed.
    HtmlPageAfter = "faults.html_page.after",
    /// A gateway's page of HTML with status 502; not executed.
    HtmlErrorBefore = "faults.html_error.before",
    /// A gateway's page of HTML with status 502; executed.
    HtmlErrorAfter = "faults.html_error.after",
    /// Status 200 with "system error" in the body; not executed.
    Error200Before = "faults.error_200.before",
    /// Status 200 with "system error" in the body; executed.
    Error200After = "faults.error_200.after",
    /// The connection is reset, and for a while no new one is taken.
    Outage = "outage",
    /// Refused for good.
    Fatal = "declines.fatal",
    /// Refused with the advice to try again.
    Retryable = "declines.retryable",
    /// Refused with status 500 or 200 in place of 422.
    OddStatus = "declines.odd_status",
    /// Refused for pace although the pace was kept; not executed.
    Throttled = "declines.throttled",
    /// Our balance there is used up for a while: refused, not executed.
    EmptyFloat = "empty_float",
    /// Accepted and never completed.
    Never = "outcomes.never",
    /// Accepted, then failed.
    AcceptedThenFailed = "outcomes.accepted_then_failed",
    /// Told failed, then delivered.
    LateSuccess = "outcomes.late_success",
    /// Delivered, then taken back.
    Reversed = "outcomes.reversed",
    /// Delivered with another amount.
    WrongAmount = "outcomes.wrong_amount",
    /// Accepted; asked, the provider says for a while that it does not know.
    Unclear = "outcomes.unknown",
    /// A query answered by a 500.
    QueryFailing = "queries.failing",
    /// Queries answered by a 503 for a while.
    QueryOutage = "queries.outage",
    /// "Not found" for a while after the submit.
    NotFoundLag = "queries.not_found_lag",
    /// "In progress" for a while after the end.
    Stale = "queries.stale",
    /// Banned for a while: every request is refused, and nothing executed.
    Ban = "ban",
    /// Asked sooner after the submit than allowed.
    TooEarly = "queries.not_before",
    /// Asked more often than allowed.
    TooOften = "queries.min_interval",
    /// Asked after the provider has forgotten.
    Forgotten = "queries.retention",
    /// The same number was recharged a moment ago.
    Cooldown = "cooldown",
    /// Faster than the rate limit.
    Throttle = "throttle",
    /// Queries faster than their rate limit.
    QueryThrottle = "query_throttle",
    /// The balance does not cover the amount.
    Balance = "balance",
    /// A callback that comes much later than the end.
    CallbackLate = "callbacks.late",
    /// A callback that is never sent.
    CallbackLost = "callbacks.lost",
    /// A callback that is sent twice.
    CallbackDuplicated = "callbacks.duplicated",
    /// A callback that comes before the reply to the submit.
    CallbackEarly = "callbacks.early",
    /// Of two ends, the later one is told first.
    CallbackSwapped = "callbacks.swapped",
    /// A callback that says the opposite of the truth, with a wrong signature.
    CallbackForged = "callbacks.forged",
    /// A callback with a right signature and a timestamp an hour old.
    CallbackStale = "callbacks.stale",
    /// A callback that comes again some seconds later, byte for byte.
    CallbackReplayed = "callbacks.replayed",
    /// A callback with a right signature about a reference that nobody ever sent.
    CallbackUnknown = "callbacks.unknown_reference",
    /// A callback that says "in progress" before the end.
    CallbackInProgress = "callbacks.in_progress",
}

impl FaultClass {
    /// Those that a script or a phone number can call for: all but the limits, which a caller
    /// meets only by what it does, and those of callbacks, which strike no request: these a script
    /// can call for as well, and a number cannot.
    pub fn scriptable() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|class| !class.is_limit() && !class.is_of_callbacks())
    }

    /// The last two digits of a number that call for it, where numbers decide.
    pub fn number_ending(self) -> Option<usize> {
        Self::scriptable().position(|class| class == self).map(|place| FIRST_ENDING + place)
    }

    /// What the last two digits of a number call for, where numbers decide.
    pub fn of_number_ending(ending: usize) -> Option<Self> {
        Self::scriptable().nth(ending.checked_sub(FIRST_ENDING)?)
    }

    /// A limit: a caller meets it by what it does, and never by chance.
    pub const fn is_limit(self) -> bool {
        matches!(
            self,
            Self::TooEarly
                | Self::TooOften
                | Self::Forgotten
                | Self::Cooldown
                | Self::Throttle
                | Self::QueryThrottle
                | Self::Balance
        )
    }

    /// What a ban punishes: a caller that knows the limits need not meet it. That a number has
    /// not cooled down, a reference is forgotten or the money used up is no abuse.
    pub(super) const fn is_abuse(self) -> bool {
        matches!(self, Self::TooEarly | Self::TooOften | Self::Throttle | Self::QueryThrottle)
    }

    /// Whether it strikes queries.
    pub const fn is_of_queries(self) -> bool {
        matches!(self, Self::QueryFailing | Self::QueryOutage | Self::NotFoundLag | Self::Stale)
    }

    /// Whether it strikes callbacks.
    pub const fn is_of_callbacks(self) -> bool {
        matches!(
            self,
            Self::CallbackLate
                | Self::CallbackLost
                | Self::CallbackDuplicated
                | Self::CallbackEarly
                | Self::CallbackSwapped
                | Self::CallbackForged
                | Self::CallbackStale
                | Self::CallbackReplayed
                | Self::CallbackUnknown
                | Self::CallbackInProgress
        )
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.as_str() == text)
    }

    /// The fault of a submit that it is, and whether it strikes after the execution.
    pub(super) fn fault(self) -> Option<(FaultKind, Moment)> {
        FaultKind::ALL.into_iter().find_map(|kind| {
            let (before, after) = kind.classes();
            let at = |class, moment| (class == self).then_some((kind, moment));
            at(before, Moment::BeforeExecution).or(at(after, Moment::AfterExecution))
        })
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FaultClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for FaultClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is no class of trouble{}", near(&text))))
    }
}

/// The nearest name there is.
pub(super) fn near(text: &str) -> String {
    let nearest =
        FaultClass::ALL.iter().filter(|class| !class.is_limit()).map(|class| class.as_str()).max_by(|a, b| {
            let likeness = |name: &str| strsim::jaro_winkler(text, name);
            likeness(a).total_cmp(&likeness(b))
        });
    nearest.map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    BeforeExecution,
    AfterExecution,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_reads_back_from_its_name_and_every_fault_has_its_two() {
        for class in FaultClass::ALL {
            assert_eq!(FaultClass::parse(class.as_str()), Some(*class));
        }
        let faults = FaultClass::ALL.iter().filter(|class| class.fault().is_some()).count();
        assert_eq!(faults, 2 * FaultKind::ALL.len());
        for class in FaultClass::scriptable() {
            let ending = class.number_ending().unwrap();
            assert!(ending < 100 && FaultClass::of_number_ending(ending) == Some(class), "{class}: {ending}");
        }
        assert_eq!(FaultClass::ResetAfter.fault(), Some((FaultKind::Reset, Moment::AfterExecution)));
    }

    #[test]
    fn a_wrong_name_is_told_with_the_nearest_right_one() {
        let error = serde_json::from_str::<FaultClass>("\"fault.reset.before\"").unwrap_err().to_string();
        assert!(error.contains("did you mean \"faults.reset.before\""), "{error}");
    }
}
