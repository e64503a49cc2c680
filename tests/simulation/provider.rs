//! A provider in memory with a ledger of what it truly delivered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{
    Capabilities, DuplicateSemantics, Failure, FailureClass, NotSentCause, ProviderId, QueryOutcome, Receipt,
    RefFormat, RetryAdvice, SubmitOutcome, Timestamp, UnknownCause,
};
use recharged::ports::{Clock, QueryKey, RechargeProvider, SubmitRequest};

#[derive(Debug)]
pub(crate) struct SimProvider {
    id: ProviderId,
    capabilities: Capabilities,
    clock: Arc<dyn Clock>,
    rng: Mutex<StdRng>,
    /// Of 1: how often a call goes wrong in each of the ways below.
    faults: f64,
    pub(crate) ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How often each reference was executed.
    pub(crate) delivered: HashMap<String, u32>,
    /// References that were answered "definitely not".
    refused: HashMap<String, Failure>,
    /// When each request arrived.
    pub(crate) arrivals: Vec<Timestamp>,
    /// When each reference was asked about last.
    asked: HashMap<String, Timestamp>,
    /// Questions that came sooner after the last one than the contract allows.
    pub(crate) asked_too_often: u32,
}

impl SimProvider {
    pub(crate) fn new(clock: Arc<dyn Clock>, seed: u64, faults: f64, duplicates: DuplicateSemantics) -> Self {
        Self {
            id: ProviderId::new("sim"),
            capabilities: Capabilities {
                duplicates,
                query_not_before: Duration::from_secs(2),
                query_min_interval: Duration::from_secs(5),
                query_retention: Duration::from_secs(900),
                not_found_grace: Duration::from_secs(60),
                same_number_cooldown: None,
                client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
                call_timeout: Duration::from_secs(15),
                callback_signed: false,
                can_cancel: false,
            },
            clock,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            faults,
            ledger: Mutex::default(),
        }
    }

    fn roll(&self, of_one: f64) -> bool {
        self.rng.lock().unwrap().random_bool(of_one)
    }

    /// What truly happens to a request that arrived.
    fn execute(&self, reference: &str) -> SubmitOutcome {
        let declines = self.roll(self.faults);
        let finally = self.roll(0.3);
        let mut ledger = self.ledger.lock().unwrap();
        let known = ledger.delivered.contains_key(reference);
        let refused = ledger.refused.get(reference).cloned();
        match (self.capabilities.duplicates, known, refused) {
            (DuplicateSemantics::RejectsAlways, true, _) | (DuplicateSemantics::RejectsAlways, _, Some(_)) => {
                return SubmitOutcome::Duplicate;
            }
            (DuplicateSemantics::RejectsUnlessFailed, true, _) => return SubmitOutcome::Duplicate,
            (DuplicateSemantics::ReplaysResult, true, _) => return SubmitOutcome::Succeeded(Receipt::default()),
            (DuplicateSemantics::ReplaysResult, _, Some(failure)) => return SubmitOutcome::Rejected(failure),
            _ => {}
        }
        if declines {
            let advice =
                if finally { RetryAdvice::Never } else { RetryAdvice::NewAttempt { after: Duration::from_secs(1) } };
            let failure = Failure { class: FailureClass::OperatorUnavailable, code: "down".into(), advice };
            ledger.refused.insert(reference.to_owned(), failure.clone());
            return SubmitOutcome::Rejected(failure);
        }
        *ledger.delivered.entry(reference.to_owned()).or_default() += 1;
        SubmitOutcome::Succeeded(Receipt::default())
    }
}

#[async_trait]
impl RechargeProvider for SimProvider {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn connect(&self, wanted: usize) -> usize {
        if self.roll(self.faults / 2.0) { 0 } else { wanted }
    }

    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome {
        if self.clock.since_boot() > request.send_by {
            return SubmitOutcome::NotSent(NotSentCause::WindowClosed);
        }
        if self.roll(self.faults) {
            return SubmitOutcome::NotSent(NotSentCause::Connect);
        }
        self.ledger.lock().unwrap().arrivals.push(self.clock.now());
        if self.roll(self.faults) {
            return SubmitOutcome::Throttled { retry_after: None };
        }
        let lost_before = self.roll(self.faults / 2.0);
        let lost_after = self.roll(self.faults / 2.0);
        if lost_before {
            tokio::time::sleep(self.capabilities.call_timeout).await;
            return SubmitOutcome::Unknown(UnknownCause::Timeout);
        }
        let outcome = self.execute(request.client_ref.as_str());
        let takes = self.rng.lock().unwrap().random_range(1..3_000);
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if lost_after { SubmitOutcome::Unknown(UnknownCause::Reset) } else { outcome }
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        if self.clock.since_boot() > key.send_by {
            return QueryOutcome::Unavailable { retry_after: None };
        }
        let now = self.clock.now();
        {
            let mut ledger = self.ledger.lock().unwrap();
            ledger.arrivals.push(now);
            let last = ledger.asked.insert(key.client_ref.as_str().to_owned(), now);
            let interval = self.capabilities.query_min_interval;
            if last.is_some_and(|last| (now - last).to_std().is_ok_and(|passed| passed < interval)) {
                ledger.asked_too_often += 1;
            }
        }
        let takes = self.rng.lock().unwrap().random_range(1..500);
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if self.roll(self.faults) {
            let retry_after = self.roll(0.5).then_some(Duration::from_secs(1));
            return QueryOutcome::Unavailable { retry_after };
        }
        if self.roll(self.faults / 2.0) {
            return QueryOutcome::ProviderUnknown;
        }
        let ledger = self.ledger.lock().unwrap();
        let reference = key.client_ref.as_str();
        if ledger.delivered.contains_key(reference) {
            return QueryOutcome::Succeeded(Receipt::default());
        }
        match ledger.refused.get(reference) {
            Some(failure) => QueryOutcome::Failed(failure.clone()),
            None => QueryOutcome::NotFound,
        }
    }
}
