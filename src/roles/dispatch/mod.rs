//! Dispatch: the rate-limited consumer that performs recharges. One [`Lane`] per provider, with
//! its own topics, quota, heap and in-flight limit, so that a sick provider holds up no other.
//!
//! A command's way: `heap` (by deadline) → a permit from the store (`permits`) → `claim`
//! (intent committed before the first byte leaves) → `call` → `settle`. A question about an attempt
//! that is open goes through `question` in place of claim and call. The loop that owns all of a
//! lane's state is in `lane`, what it starts next in `start`.

mod adopt;
mod arrivals;
mod breaker;
mod call;
mod claim;
mod cooling;
mod heap;
mod hints;
mod lane;
mod pending;
mod permits;
mod put_off;
mod question;
mod queue;
mod reading;
mod reroute;
mod rest;
mod service_time;
mod settle;
mod slots;
mod start;
#[cfg(test)]
mod tests;
mod tide;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::domain::{CallbackLinks, Policy, ProviderId};
use crate::metrics::{LaneMetrics, OutcomeMetrics};
use crate::ports::{
    Clock, Cooldowns, DeadlineBook, LaneTopics, OrderStore, Publisher, Questions, Quota, QuotaTerms, ReadMarks,
    RechargeProvider,
};
use crate::roles::commands::CommandWriter;
use crate::roles::{LaneBoard, RowsAtHand};

use breaker::Breaker;
pub use breaker::BreakerRules;
#[cfg(any(test, fuzzing))]
pub(crate) use reading::held_until;
pub(crate) use reading::read_command;
use rest::Rest;
use service_time::ServiceTime;
use tide::Tide;

/// What a lane goes by.
#[derive(Debug)]
pub struct LaneRules {
    /// For `decide`.
    pub policy: Policy,
    /// The lane's topics.
    pub topics: LaneTopics,
    /// Those of all lanes, for orders that go on in another one.
    pub lanes: HashMap<ProviderId, LaneTopics>,
    /// When the lane rests.
    pub breaker: BreakerRules,
    /// For retries and questions.
    pub commands: CommandWriter,
    /// Where unusable records go.
    pub dead_letters: Arc<str>,
    /// The provider's quota.
    pub terms: QuotaTerms,
    /// Calls at once in this process.
    pub in_flight_max: usize,
    /// Commands held of each topic.
    pub heap_max: usize,
    /// Rows in one statement at most.
    pub batch_max: usize,
    /// Statements under way at once, of each kind.
    pub writers: usize,
    /// From the claim to the first byte, at most.
    pub send_window: Duration,
    /// Where the provider is told to report outcomes, if it can reach us.
    pub callbacks: Option<CallbackLinks>,
}

/// The role, for one provider.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The orders.
    pub store: Arc<dyn OrderStore>,
    /// Those that intake has just stored in this process.
    pub at_hand: Arc<RowsAtHand>,
    /// The permits.
    pub quota: Arc<dyn Quota>,
    /// Who may ask the provider about an order.
    pub questions: Arc<dyn Questions>,
    /// The orders by deadline, to find sends whose caller is gone.
    pub deadlines: Arc<dyn DeadlineBook>,
    /// How far the lane has read.
    pub read_marks: Arc<dyn ReadMarks>,
    /// Numbers that the provider refuses for a while.
    pub cooldowns: Arc<dyn Cooldowns>,
    /// For retries and dead letters.
    pub publisher: Arc<dyn Publisher>,
    /// The provider.
    pub provider: Arc<dyn RechargeProvider>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules.
    pub rules: Arc<LaneRules>,
    /// The numbers.
    pub metrics: Arc<LaneMetrics>,
    /// What became of orders.
    pub outcomes: Arc<OutcomeMetrics>,
    /// Which lanes take orders.
    pub board: Arc<LaneBoard>,
    /// Whether this lane's provider does.
    breaker: Arc<Breaker>,
    /// How much the provider bears.
    tide: Arc<Tide>,
    /// On some route another lane stands behind this one.
    leads_on: bool,
    /// Until when no questions are asked.
    no_questions: Arc<Rest>,
    /// How long calls take, as learned.
    service_time: Arc<ServiceTime>,
    /// Orders whose claim was sent to the store and whose outcome is not written yet.
    unsettled: Arc<AtomicUsize>,
}

/// What a lane needs from outside; see [`Lane`] for each.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is documented at Lane")]
pub struct LaneParts {
    pub store: Arc<dyn OrderStore>,
    pub at_hand: Arc<RowsAtHand>,
    pub quota: Arc<dyn Quota>,
    pub questions: Arc<dyn Questions>,
    pub deadlines: Arc<dyn DeadlineBook>,
    pub read_marks: Arc<dyn ReadMarks>,
    pub cooldowns: Arc<dyn Cooldowns>,
    pub publisher: Arc<dyn Publisher>,
    pub provider: Arc<dyn RechargeProvider>,
    pub clock: Arc<dyn Clock>,
    pub rules: LaneRules,
    pub metrics: LaneMetrics,
    pub outcomes: Arc<OutcomeMetrics>,
    pub board: Arc<LaneBoard>,
}

impl Lane {
    /// A lane that has learned nothing yet.
    pub fn new(parts: LaneParts) -> Self {
        let floor = parts
            .rules
            .policy
            .provider(parts.provider.id())
            .map_or(Duration::ZERO, |provider| provider.expected_service);
        let leads_on = parts.rules.policy.routes.leads_on(parts.provider.id());
        Self {
            board: parts.board,
            breaker: Arc::new(Breaker::new(parts.rules.breaker.clone())),
            tide: Arc::new(Tide::new(parts.rules.in_flight_max)),
            leads_on,
            store: parts.store,
            at_hand: parts.at_hand,
            quota: parts.quota,
            questions: parts.questions,
            deadlines: parts.deadlines,
            read_marks: parts.read_marks,
            cooldowns: parts.cooldowns,
            publisher: parts.publisher,
            provider: parts.provider,
            clock: parts.clock,
            rules: Arc::new(parts.rules),
            metrics: Arc::new(parts.metrics),
            outcomes: parts.outcomes,
            no_questions: Arc::default(),
            service_time: Arc::new(ServiceTime::new(floor)),
            unsettled: Arc::default(),
        }
    }

    /// The policy with what was learned about this provider's service time.
    fn policy(&self) -> Policy {
        let mut policy = self.rules.policy.clone();
        if let Some(provider) = policy.providers.get_mut(self.provider.id()) {
            provider.expected_service = self.service_time.expected();
        }
        policy.shut = self.board.shut();
        policy
    }
}
