//! What is checked: which provider, how large a world, and which rules hold in it.

use std::collections::HashMap;
use std::time::Duration;

use recharged::domain::{Capabilities, DuplicateSemantics, OnUnknown, Policy, ProviderPolicy};

use crate::row::{FAR, REF_FORMAT, SECONDS, Tick, lane};

pub(crate) const ALL: [DuplicateSemantics; 4] = [
    DuplicateSemantics::RejectsAlways,
    DuplicateSemantics::ReplaysResult,
    DuplicateSemantics::RejectsUnlessFailed,
    DuplicateSemantics::NotDeduplicated,
];

/// The rules of the design, each of which can be turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// No first byte later than the send window after the claim was issued.
    SendWindow,
    /// What one send did counts only while the row carries that send's claim.
    WhoseClaim,
    /// The same without looking at the attempt's number either.
    WhoseAttempt,
    /// "Not found" counts only as long after the claim as bytes can be under way.
    Grace,
    /// "Not found" must be heard twice.
    Twice,
    /// "Not found" is judged by when it was asked, not by when it is heard.
    AskedAt,
    /// "Not found" that loses the fence is thrown away.
    Fence,
    /// After "not found" the same reference is sent again only where that is safe.
    SafeResend,
    /// What "not found" closed once gets no new reference, and a case where it fails.
    Remembered,
    /// Who asks holds the order meanwhile.
    Hold,
    /// A send is adopted only once its call must have ended.
    AdoptLate,
}

impl Rule {
    pub(crate) const ALL: [Self; 11] = [
        Self::SendWindow,
        Self::WhoseClaim,
        Self::WhoseAttempt,
        Self::Grace,
        Self::Twice,
        Self::AskedAt,
        Self::Fence,
        Self::SafeResend,
        Self::Remembered,
        Self::Hold,
        Self::AdoptLate,
    ];
}

/// Who is slow, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slowness {
    /// Every claim, call, question and scan is a process of its own, that may be slow, or stop for
    /// ever, at any point.
    Anybody,
    /// Two processes that do at once what they have to do, but for one crash of one of them and
    /// one long pause of one of them, at any point.
    OneCrashOnePause,
}

/// A world to check.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that may happen, independent of the others")]
pub(crate) struct Setting {
    pub(crate) duplicates: DuplicateSemantics,
    pub(crate) on_unknown: OnUnknown,
    pub(crate) slowness: Slowness,
    pub(crate) orders: usize,
    /// Claims of an order at most.
    pub(crate) claims: usize,
    /// Questions under way at once at most.
    pub(crate) questions: usize,
    /// Instants that may pass between a decision and its commit.
    pub(crate) commit_lag: u8,
    /// Also throttling, and a provider that says that it does not know.
    pub(crate) thorough: bool,
    /// Begins with what the shop says, instead of with a paid order.
    pub(crate) shop: bool,
    /// A provider that accepts and tells later, and questions that miss what has only just arrived.
    pub(crate) hesitant: bool,
    /// One process may crash; one may stop for long.
    pub(crate) crash: bool,
    pub(crate) pause: bool,
    /// The last instant.
    pub(crate) last: Tick,
    /// Commit replies that get lost.
    pub(crate) lost_replies: bool,
    /// Bytes stay under way for as long as they like; else they arrive at once, or never.
    pub(crate) late_bytes: bool,
    /// The rules that are turned off.
    pub(crate) off: &'static [Rule],
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = match self.slowness {
            Slowness::Anybody => "anybody slow",
            Slowness::OneCrashOnePause => match (self.crash, self.pause) {
                (true, true) => "two processes, one crash, one pause",
                (true, false) => "two processes, one crash",
                (false, true) => "two processes, one pause",
                (false, false) => "two processes",
            },
        };
        write!(f, "{:?}, {:?}, {who}, {} order(s) of ", self.duplicates, self.on_unknown, self.orders)?;
        write!(f, "{} claim(s) and {} question(s), ", self.claims, self.questions)?;
        write!(f, "to {} s, commits {} late", SECONDS[usize::from(self.last)], self.commit_lag)?;
        let extras = [
            (self.lost_replies, "lost replies"),
            (!self.late_bytes, "no late bytes"),
            (self.hesitant, "hesitant"),
            (self.thorough, "thorough"),
            (self.shop, "shop"),
        ];
        extras.iter().filter(|(is_on, _)| *is_on).try_for_each(|(_, name)| write!(f, ", {name}"))?;
        self.off.iter().try_for_each(|rule| write!(f, ", without {rule:?}"))
    }
}

impl Setting {
    pub(crate) fn new(duplicates: DuplicateSemantics) -> Self {
        Self {
            duplicates,
            on_unknown: OnUnknown::Hold,
            slowness: Slowness::Anybody,
            orders: 1,
            claims: 2,
            questions: 1,
            commit_lag: 1,
            thorough: false,
            shop: false,
            hesitant: true,
            crash: true,
            pause: true,
            last: FAR,
            lost_replies: true,
            late_bytes: true,
            off: &[],
        }
    }

    pub(crate) fn holds(&self, rule: Rule) -> bool {
        !self.off.contains(&rule)
    }

    /// A deadline of 30 s; a call takes 6 s, "not found" counts after 10.
    pub(crate) fn policy(&self) -> Policy {
        let secs = Duration::from_secs;
        let capabilities = Capabilities {
            duplicates: if self.holds(Rule::SafeResend) { self.duplicates } else { DuplicateSemantics::RejectsAlways },
            query_not_before: Duration::ZERO,
            query_min_interval: secs(5),
            query_retention: secs(1000),
            not_found_grace: if self.holds(Rule::Grace) { secs(10) } else { Duration::ZERO },
            same_number_cooldown: None,
            client_ref: REF_FORMAT,
            call_timeout: secs(5),
            callback_settles: true,
        };
        // The send window is a part of the call's tick.
        let provider = ProviderPolicy { capabilities, expected_service: secs(5), send_window: Duration::ZERO };
        Policy {
            sla: secs(30),
            unpaid_timeout: secs(30),
            notify_after: secs(60),
            notify_at_end: false,
            refund_confirm_within: Some(Duration::from_hours(24)),
            on_unknown: self.on_unknown,
            reconcile_within: secs(72 * 3600),
            // One more than there are claims: the last one would be held for a moment that the modelled time has not.
            max_attempts: 4,
            backoff_first: Duration::ZERO,
            backoff_max: secs(30),
            providers: HashMap::from([(lane(), provider)]),
            routes: std::sync::Arc::default(),
            shut: Vec::new(),
        }
    }
}
