//! A provider in memory. Requests arrive late or not at all, answers are lost, some recharges are
//! accepted first; its ledger says what it truly delivered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{
    Capabilities, DuplicateSemantics, Failure, FailureClass, NotSentCause, ProviderId, ProviderPolicy, QueryOutcome,
    Receipt, RefFormat, RetryAdvice, SubmitOutcome, Timestamp, UnknownCause, plus,
};
use recharged::ports::{Clock, QueryKey, RechargeProvider, SubmitRequest};

use crate::laws::{Findings, Law};
use crate::life::{Life, TrueTime};
use crate::weather::{Fault, Strikes};

#[derive(Debug)]
pub(crate) struct SimProvider {
    id: ProviderId,
    capabilities: Capabilities,
    time: Arc<TrueTime>,
    rng: Mutex<StdRng>,
    /// Of 1: how often a call goes wrong in each of the ways below.
    faults: f64,
    accepted: f64,
    strikes: Arc<Strikes>,
    findings: Arc<Findings>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// What stands under each reference.
    recharges: HashMap<String, Recharge>,
    /// How often each reference was executed.
    delivered: BTreeMap<String, u32>,
    /// Requests that are still on their way.
    on_the_way: Vec<(Timestamp, String)>,
    /// When each request arrived.
    arrivals: Vec<Timestamp>,
    /// When each reference was asked about last.
    asked: HashMap<String, Timestamp>,
    /// When each reference was first sent.
    first_sent: HashMap<String, Timestamp>,
    /// Orders of which a send is under way.
    under_way: HashMap<String, u32>,
    /// Orders of which a send went unheard, and of which nobody has heard since what became of it.
    unheard: HashMap<String, Unanswered>,
    /// When each reference came to its end, delivered or refused.
    ended: HashMap<String, Timestamp>,
    silent_until: Option<Timestamp>,
}

/// A send that nobody heard of.
#[derive(Debug, Clone)]
struct Unanswered {
    reference: String,
    sent_at: Timestamp,
    /// When it was first asked about so late that "not found" told something.
    not_found_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum Recharge {
    Executed,
    Refused(Failure),
    /// Decided then, for or against it.
    Accepted(Timestamp, bool),
}

/// A provider of one of the four ways to treat duplicates.
fn capabilities(duplicates: DuplicateSemantics) -> Capabilities {
    Capabilities {
        duplicates,
        query_not_before: Duration::from_secs(2),
        query_min_interval: Duration::from_secs(3),
        query_retention: Duration::from_secs(300),
        not_found_grace: Duration::from_secs(15),
        same_number_cooldown: None,
        client_ref: RefFormat { max_len: 64, alphanumeric_only: false },
        call_timeout: Duration::from_secs(8),
        callback_settles: false,
    }
}

/// What the service knows of it.
pub(crate) fn terms(duplicates: DuplicateSemantics) -> ProviderPolicy {
    ProviderPolicy {
        capabilities: capabilities(duplicates),
        expected_service: Duration::from_secs(2),
        send_window: SEND_WINDOW,
    }
}

impl SimProvider {
    pub(crate) fn new(
        time: Arc<TrueTime>,
        seed: u64,
        (faults, accepted): (f64, f64),
        capabilities: Capabilities,
        strikes: Arc<Strikes>,
        findings: Arc<Findings>,
    ) -> Self {
        let (id, rng, ledger) = (ProviderId::new("sim"), Mutex::new(StdRng::seed_from_u64(seed)), Mutex::default());
        Self { id, capabilities, time, rng, faults, accepted, strikes, findings, ledger }
    }

    /// Whether something goes wrong now.
    fn strikes(&self, of_one: f64, fault: Fault) -> bool {
        let hit = of_one > 0.0 && !self.strikes.is_healed() && self.rng.lock().unwrap().random_bool(of_one);
        if hit {
            self.strikes.hit(fault);
        }
        hit
    }

    fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.lock().unwrap().random_range(least..most))
    }

    /// It takes requests and answers none.
    pub(crate) fn fall_silent(&self, length: Duration) {
        self.strikes.hit(Fault::ProviderSilent);
        self.ledger.lock().unwrap().silent_until = Some(plus(self.time.now(), length));
    }

    /// How often each reference was executed.
    pub(crate) fn delivered(&self) -> BTreeMap<String, u32> {
        let now = self.time.now();
        self.catch_up(now);
        self.ledger.lock().unwrap().delivered.clone()
    }

    /// When a reference came to the end that it has, if it has one.
    pub(crate) fn ended_at(&self, reference: &str) -> Option<Timestamp> {
        let ledger = self.ledger.lock().unwrap();
        let is_ended = matches!(ledger.recharges.get(reference)?, Recharge::Executed | Recharge::Refused(_));
        ledger.ended.get(reference).copied().filter(|_| is_ended)
    }

    /// Whether bytes are still under way.
    pub(crate) fn is_awaited(&self) -> bool {
        self.catch_up(self.time.now());
        !self.ledger.lock().unwrap().on_the_way.is_empty()
    }

    pub(crate) fn arrivals(&self) -> Vec<Timestamp> {
        self.ledger.lock().unwrap().arrivals.clone()
    }

    /// What was on its way arrives, what was accepted is completed, each at its time.
    fn catch_up(&self, now: Timestamp) {
        let arrived: Vec<(Timestamp, String)> = {
            let mut ledger = self.ledger.lock().unwrap();
            let ledger = &mut *ledger;
            ledger.on_the_way.sort_by_key(|(at, _)| *at);
            let due = ledger.on_the_way.iter().take_while(|(at, _)| *at <= now).count();
            for (reference, recharge) in &mut ledger.recharges {
                if let Recharge::Accepted(at, delivers) = *recharge
                    && at <= now
                {
                    ledger.ended.insert(reference.clone(), at);
                    *recharge = if delivers {
                        *ledger.delivered.entry(reference.clone()).or_default() += 1;
                        Recharge::Executed
                    } else {
                        Recharge::Refused(declined(RetryAdvice::NewAttempt { after: Duration::from_secs(1) }))
                    };
                }
            }
            ledger.on_the_way.drain(..due).collect()
        };
        for (at, reference) in arrived {
            self.execute(&reference, at);
        }
    }

    /// What truly happens to a request that arrived.
    fn execute(&self, reference: &str, now: Timestamp) -> SubmitOutcome {
        if let Some(known) = self.known(reference) {
            return known;
        }
        let declines = self.strikes(self.faults, Fault::Declined);
        let finally = self.rng.lock().unwrap().random_bool(0.3);
        let accepts = !declines && self.strikes(self.accepted, Fault::AcceptedFirst);
        let fails_then = accepts && self.strikes(self.faults, Fault::AcceptedThenFailed);
        let takes = self.millis(500, 30_000);
        let mut ledger = self.ledger.lock().unwrap();
        if !accepts {
            ledger.ended.insert(reference.to_owned(), now);
        }
        if declines {
            let after = Duration::from_secs(1);
            let failure = declined(if finally { RetryAdvice::Never } else { RetryAdvice::NewAttempt { after } });
            ledger.recharges.insert(reference.to_owned(), Recharge::Refused(failure.clone()));
            return SubmitOutcome::Rejected(failure);
        }
        if accepts {
            ledger.recharges.insert(reference.to_owned(), Recharge::Accepted(plus(now, takes), !fails_then));
            return SubmitOutcome::Accepted { provider_ref: Some(format!("P{reference}")) };
        }
        *ledger.delivered.entry(reference.to_owned()).or_default() += 1;
        ledger.recharges.insert(reference.to_owned(), Recharge::Executed);
        SubmitOutcome::Succeeded(Receipt::default())
    }

    /// What is said of a reference that is known and not taken again.
    fn known(&self, reference: &str) -> Option<SubmitOutcome> {
        let ledger = self.ledger.lock().unwrap();
        match (self.capabilities.duplicates, ledger.recharges.get(reference)?) {
            (DuplicateSemantics::NotDeduplicated, _)
            | (DuplicateSemantics::RejectsUnlessFailed, Recharge::Refused(_)) => None,
            (DuplicateSemantics::ReplaysResult, known) => Some(match known {
                Recharge::Executed => SubmitOutcome::Succeeded(Receipt::default()),
                Recharge::Refused(failure) => SubmitOutcome::Rejected(failure.clone()),
                Recharge::Accepted(..) => SubmitOutcome::Accepted { provider_ref: Some(format!("P{reference}")) },
            }),
            (DuplicateSemantics::RejectsAlways | DuplicateSemantics::RejectsUnlessFailed, _) => {
                Some(SubmitOutcome::Duplicate)
            }
        }
    }

    /// A request leaves: what becomes of it, and when its sender hears of that.
    fn receive(&self, request: &SubmitRequest) -> (SubmitOutcome, Duration) {
        let (reference, now) = (request.client_ref.as_str(), self.time.now());
        self.catch_up(now);
        let window = SEND_WINDOW + self.time.precision() * 3;
        self.findings.hold(Law::SendWindow, now <= plus(request.sent_at, window), || {
            format!("{reference} left at {now}, and was claimed at {}", request.sent_at)
        });
        let is_silent = {
            let mut ledger = self.ledger.lock().unwrap();
            ledger.arrivals.push(now);
            ledger.first_sent.entry(reference.to_owned()).or_insert(now);
            let order = order_of(reference);
            let others = ledger.under_way.entry(order.to_owned()).or_default();
            *others += 1;
            self.findings.hold(Law::OneAtATime, *others == 1, || format!("{reference} was sent beside another send"));
            let unheard = ledger.unheard.get(order).cloned();
            self.findings.hold(Law::AskedBeforeSentAgain, unheard.is_none(), || {
                format!("{reference} was sent, and nobody had heard what became of {unheard:?}")
            });
            ledger.silent_until.is_some_and(|until| until > now)
        };
        if self.strikes(self.faults, Fault::Throttled) {
            return (SubmitOutcome::Throttled { retry_after: None }, self.millis(1, 300));
        }
        let lost = SubmitOutcome::Unknown(UnknownCause::Timeout);
        if self.strikes(self.faults / 2.0, Fault::LostBeforeExecution) {
            return (lost, self.capabilities.call_timeout);
        }
        if self.strikes(self.faults / 2.0, Fault::LateBytes) {
            // Mostly before "not found" tells anything, seldom long after it.
            let late = if self.rng.lock().unwrap().random_bool(0.8) { 12_000 } else { 200_000 };
            let arrives_at = plus(now, self.millis(1_000, late));
            self.ledger.lock().unwrap().on_the_way.push((arrives_at, reference.to_owned()));
            return (lost, self.capabilities.call_timeout);
        }
        let outcome = self.execute(reference, now);
        if is_silent {
            return (lost, self.capabilities.call_timeout);
        }
        if self.strikes(self.faults / 2.0, Fault::LostAfterExecution) {
            return (SubmitOutcome::Unknown(UnknownCause::Reset), self.millis(1, 3_000));
        }
        (outcome, self.millis(1, 2_000))
    }

    fn answer(&self, reference: &str, now: Timestamp) -> QueryOutcome {
        if self.strikes(self.faults, Fault::QueryUnavailable) {
            let retry_after = self.rng.lock().unwrap().random_bool(0.5).then_some(Duration::from_secs(1));
            return QueryOutcome::Unavailable { retry_after };
        }
        let ledger = self.ledger.lock().unwrap();
        if ledger.silent_until.is_some_and(|until| until > now) {
            return QueryOutcome::Unavailable { retry_after: None };
        }
        let known = ledger.recharges.get(reference).cloned();
        drop(ledger);
        // Unsure only of what it has heard of.
        if known.is_some() && self.strikes(self.faults / 2.0, Fault::ProviderUnknown) {
            return QueryOutcome::ProviderUnknown;
        }
        match known {
            Some(Recharge::Executed) => QueryOutcome::Succeeded(Receipt::default()),
            Some(Recharge::Refused(failure)) => QueryOutcome::Failed(failure),
            Some(Recharge::Accepted(..)) => QueryOutcome::InProgress,
            None => QueryOutcome::NotFound,
        }
    }

    /// The provider is asked at the times that it allows.
    fn is_asked(&self, reference: &str, now: Timestamp) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.arrivals.push(now);
        let interval = self.capabilities.query_min_interval;
        let last = ledger.asked.insert(reference.to_owned(), now);
        let slack = self.time.precision() * 2;
        let too_often = last.is_some_and(|last| now + slack < plus(last, interval));
        self.findings.hold(Law::AskedInTurn, !too_often, || format!("{reference} was asked about too often"));
        let sent = ledger.first_sent.get(reference).copied();
        let too_early = sent.is_some_and(|at| now + slack < plus(at, self.capabilities.query_not_before));
        self.findings.hold(Law::AskedInTurn, !too_early, || format!("{reference} was asked about too early"));
    }
}

impl SimProvider {
    /// A process hears the answer to a question that was asked at `asked_at`: what became of an unheard send is known
    /// where the provider has spoken, or twice did not know it so late that this tells something.
    fn is_heard(&self, reference: &str, asked_at: Timestamp, answer: &QueryOutcome) {
        let mut ledger = self.ledger.lock().unwrap();
        let order = order_of(reference);
        let Some(unanswered) = ledger.unheard.get_mut(order).filter(|one| one.reference == reference) else { return };
        let slack = self.time.precision() * 2;
        let is_known = match answer {
            QueryOutcome::Succeeded(_) | QueryOutcome::Failed(_) | QueryOutcome::Reversed(_) => true,
            QueryOutcome::NotFound => {
                let tells = asked_at + slack >= plus(unanswered.sent_at, self.capabilities.not_found_grace);
                let first = unanswered.not_found_at;
                if tells {
                    unanswered.not_found_at = first.or(Some(asked_at));
                }
                tells && first.is_some_and(|first| asked_at > first)
            }
            QueryOutcome::InProgress
            | QueryOutcome::ProviderUnknown
            | QueryOutcome::NotAsked
            | QueryOutcome::Throttled { .. }
            | QueryOutcome::Banned { .. }
            | QueryOutcome::Unavailable { .. } => false,
        };
        if is_known {
            ledger.unheard.remove(order);
        }
    }
}

/// A claim is so much older than its first byte at most.
pub(crate) const SEND_WINDOW: Duration = Duration::from_secs(1);

fn order_of(reference: &str) -> &str {
    reference.rsplit_once('-').map_or(reference, |(order, _)| order)
}

fn declined(advice: RetryAdvice) -> Failure {
    Failure { class: FailureClass::OperatorUnavailable, code: "down".into(), advice }
}

/// The provider as one process reaches it.
#[derive(Debug)]
pub(crate) struct ProcessProvider {
    pub(crate) provider: Arc<SimProvider>,
    pub(crate) life: Arc<Life>,
}

#[async_trait]
impl RechargeProvider for ProcessProvider {
    fn id(&self) -> &ProviderId {
        &self.provider.id
    }

    fn capabilities(&self) -> &Capabilities {
        &self.provider.capabilities
    }

    async fn connect(&self, wanted: usize) -> usize {
        self.life.pass().await;
        if self.provider.strikes(self.provider.faults / 2.0, Fault::ConnectionRefused) { 0 } else { wanted }
    }

    async fn submit(&self, request: &SubmitRequest) -> SubmitOutcome {
        self.life.pass().await;
        if self.life.since_boot() > request.send_by {
            return SubmitOutcome::NotSent(NotSentCause::WindowClosed);
        }
        if self.provider.strikes(self.provider.faults, Fault::NotSent) {
            return SubmitOutcome::NotSent(NotSentCause::Connect);
        }
        let (outcome, takes) = self.provider.receive(request);
        let reference = request.client_ref.as_str();
        let sent_at = self.provider.time.now();
        let mut unheard = Unheard { provider: &self.provider, reference, sent_at, heard: false };
        tokio::time::sleep(takes).await;
        unheard.heard = !matches!(outcome, SubmitOutcome::Unknown(_) | SubmitOutcome::Duplicate);
        drop(unheard);
        self.life.pass().await;
        outcome
    }

    async fn query(&self, key: &QueryKey) -> QueryOutcome {
        self.life.pass().await;
        if self.life.since_boot() > key.send_by {
            return QueryOutcome::NotAsked;
        }
        let (reference, now) = (key.client_ref.as_str(), self.provider.time.now());
        self.provider.catch_up(now);
        self.provider.is_asked(reference, now);
        let answer = self.provider.answer(reference, now);
        tokio::time::sleep(self.provider.millis(1, 500)).await;
        self.life.pass().await;
        self.provider.is_heard(reference, now, &answer);
        answer
    }

    fn read_callback(
        &self,
        _callback: &recharged::ports::RawCallback,
        _now: recharged::domain::Timestamp,
    ) -> Result<recharged::ports::CallbackNews, recharged::ports::CallbackRefusal> {
        Err(recharged::ports::CallbackRefusal::Forged)
    }
}

/// A send whose outcome its sender does not learn, since the answer was none or the sender died.
struct Unheard<'a> {
    provider: &'a SimProvider,
    reference: &'a str,
    sent_at: Timestamp,
    heard: bool,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        let mut ledger = self.provider.ledger.lock().unwrap();
        *ledger.under_way.get_mut(order_of(self.reference)).unwrap() -= 1;
        if !self.heard {
            let (reference, sent_at) = (self.reference.to_owned(), self.sent_at);
            let unanswered = Unanswered { reference, sent_at, not_found_at: None };
            ledger.unheard.insert(order_of(self.reference).to_owned(), unanswered);
        }
    }
}
