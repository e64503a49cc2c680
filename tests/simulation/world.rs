//! One simulated life of the service: its processes, what happens to them, and the reckoning.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::inquiry::last_query;
use recharged::domain::{DuplicateSemantics, OnUnknown, Order, OrderId, Policy, ProviderId, State, Timestamp, plus};
use recharged::ports::{Clock, QuotaTerms};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::broker::MemBroker;
use crate::laws::{Findings, Law};
use crate::life::{JUMP, Life, MEASURED_EVERY, News, PRECISION, TrueTime};
use crate::oracle::{Report, judge};
use crate::payments::{CONFIRM_WITHIN, Payments};
use crate::process::{Outside, Process};
use crate::provider::{SimProvider, terms};
use crate::shop::{NOTIFY_AFTER, Plan, Saying, UNPAID_TIMEOUT, order_id};
use crate::store::{MemStore, is_undecided};
use crate::weather::{Fault, Incident, Strikes, Weather};

/// Permits that may be used at once.

pub(crate) struct World {
    pub(crate) weather: Weather,
    pub(crate) outside: Outside,
    pub(crate) findings: Arc<Findings>,
    pub(crate) strikes: Arc<Strikes>,
    /// From when on nothing went wrong any more.
    pub(crate) healed_at: Duration,
    /// Since when nobody is in a place.
    absent_since: Vec<Option<Duration>>,
    pub(crate) shop: Plan,
    rng: StdRng,
    pub(crate) time: Arc<TrueTime>,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    slots: Vec<Option<Process>>,
    agenda: BinaryHeap<Reverse<(Duration, usize)>>,
    events: Vec<Event>,
}

#[derive(Debug, Clone)]
enum Event {
    Say(Saying),
    Happen(Incident),
    Restart(usize),
    Measured(usize),
}

impl World {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (time, strikes) = (Arc::new(TrueTime::new(weather.precision())), Arc::new(Strikes::default()));
        let findings = Arc::new(Findings::default());
        let semantics = [
            DuplicateSemantics::RejectsAlways,
            DuplicateSemantics::RejectsUnlessFailed,
            DuplicateSemantics::ReplaysResult,
            DuplicateSemantics::NotDeduplicated,
        ][rng.random_range(0..4)];
        let terms = terms(semantics);
        let provider = Arc::new(SimProvider::new(
            Arc::clone(&time),
            rng.random(),
            (weather.rates.provider, weather.rates.accepted),
            terms.capabilities.clone(),
            Arc::clone(&strikes),
            Arc::clone(&findings),
        ));
        let policy = Policy {
            sla: weather.sla,
            unpaid_timeout: UNPAID_TIMEOUT,
            notify_after: NOTIFY_AFTER,
            notify_at_end: rng.random_bool(0.3),
            refund_confirm_within: Some(CONFIRM_WITHIN),
            on_unknown: if rng.random_bool(0.8) { OnUnknown::Hold } else { OnUnknown::RefundFlagged },
            reconcile_within: Duration::from_secs(72 * 3600),
            max_attempts: 4,
            backoff_first: Duration::from_millis([50, 1_000][rng.random_range(0..2)]),
            backoff_max: Duration::from_secs(20),
            providers: HashMap::from([(ProviderId::new("sim"), terms.clone())]),
            routes: std::sync::Arc::default(),
            shut: Vec::new(),
        };
        let store = Arc::new(MemStore::new(
            Arc::clone(&time),
            rng.random(),
            weather.rates.clone(),
            Arc::clone(&strikes),
            Arc::clone(&findings),
            terms,
        ));
        let payments = Payments::new(rng.random(), weather.rates.payments, Arc::clone(&strikes));
        let broker = MemBroker::new(
            Arc::clone(&time),
            payments,
            rng.random(),
            weather.rates.clone(),
            Arc::clone(&strikes),
            Arc::clone(&store),
            Arc::clone(&findings),
        );
        let quota = QuotaTerms {
            interval: Duration::from_secs_f64(1.0 / weather.permits_per_second),
            burst: weather.burst,
            query_share: 0.2,
            retry_share: 0.2,
        };
        let dispatches = weather.dispatches;
        if !dispatches {
            strikes.hit(Fault::NobodyDispatches);
        }
        let (tell, news) = mpsc::channel(100);
        let shop = Plan::new(&weather, &strikes, &mut rng);
        let mut world = Self {
            outside: Outside { store, broker, provider, policy, terms: quota, dispatches, sizes: weather.sizes },
            findings,
            strikes,
            healed_at: Duration::MAX,
            absent_since: vec![Some(Duration::ZERO); weather.processes],
            shop,
            rng,
            time,
            tell,
            news,
            slots: Vec::new(),
            agenda: BinaryHeap::new(),
            events: Vec::new(),
            weather,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        for (at, saying) in std::mem::take(&mut self.shop.sayings) {
            self.at(at, Event::Say(saying));
        }
        for (at, incident) in self.weather.incidents.clone() {
            self.at(at + Duration::from_secs(1), Event::Happen(incident));
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.agenda.push(Reverse((at, self.events.len())));
        self.events.push(event);
    }

    pub(crate) async fn run(mut self) -> Report {
        self.outside.store.state.lock().unwrap().no_inserts_until =
            self.weather.cut_off.map(|length| recharged::domain::plus(self.time.now(), length));
        for slot in 0..self.weather.processes {
            let process = self.start(slot);
            self.slots.push(Some(process));
        }
        let heals_at = self.weather.heals_at();
        let began = Instant::now();
        loop {
            let next = self.agenda.peek().map(|Reverse((at, _))| *at);
            let until = next.unwrap_or(heals_at);
            tokio::select! {
                biased;
                Some(news) = self.news.recv() => self.hear(news).await,
                () = tokio::time::sleep_until(began + until) => {
                    match self.agenda.pop() {
                        Some(Reverse((_, event))) => self.happen(self.events[event].clone()).await,
                        None => break,
                    }
                }
            }
        }
        self.heal().await;
        let is_at_rest = self.settle().await;
        self.findings.hold(Law::EveryOrderEnds, is_at_rest, || {
            format!("the line did not come to rest: {}", self.outside.broker.undrained())
        });
        for process in self.slots.drain(..).flatten() {
            let ended = process.drain().await;
            self.findings.hold(Law::EveryOrderEnds, ended.is_ok(), || format!("at the end: {ended:?}"));
        }
        let report = judge(&self);
        self.outside.broker.forget();
        report
    }

    /// Everybody is back, and nothing goes wrong any more. One process sees to what is left: the others
    /// are told to end.
    async fn heal(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            self.hear(news).await;
        }
        self.strikes.heal();
        self.healed_at = self.time.since_boot();
        for slot in 0..self.slots.len() {
            match &self.slots[slot] {
                Some(process) => process.life.spare(),
                None => self.slots[slot] = Some(self.start(slot)),
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        for slot in 1..self.slots.len() {
            self.strikes.held_up(slot, self.time.since_boot(), Duration::MAX);
        }
        for process in self.slots.drain(1..).flatten().collect::<Vec<_>>() {
            let ended = process.drain().await;
            self.findings.hold(Law::EveryOrderEnds, ended.is_ok(), || format!("told to end: {ended:?}"));
        }
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Say(saying) => self.outside.broker.append(saying.record(self.time.now())),
            Event::Restart(slot) => {
                if self.slots[slot].is_none() {
                    self.slots[slot] = Some(self.start(slot));
                }
            }
            Event::Measured(slot) => self.measures(slot),
            Event::Happen(incident) => self.incident(incident).await,
        }
    }

    async fn incident(&mut self, incident: Incident) {
        let now = self.time.since_boot();
        match incident {
            Incident::Crash { slot, away } => {
                if let Some(process) = self.slots[slot].take() {
                    self.strikes.hit(Fault::Crash);
                    self.outside.broker.is_silent(&process.life);
                    process.crash().await;
                    self.is_absent(slot, away);
                }
            }
            Incident::CrashAtAnOperation { slot, in_operations, .. } => {
                if let Some(process) = &self.slots[slot] {
                    process.life.kill_in(in_operations);
                }
            }
            Incident::Stall { slot, length } => {
                if let Some(process) = &self.slots[slot] {
                    self.strikes.hit(Fault::Stall);
                    process.life.stand_still(length);
                    self.stopped(slot, length);
                }
            }
            Incident::StallAtAnOperation { slot, in_operations, length } => {
                if let Some(process) = &self.slots[slot] {
                    process.life.stop_in(in_operations, length);
                }
            }
            Incident::CutOffFromTheStore { slot, length } => {
                if let Some(process) = &self.slots[slot] {
                    self.strikes.hit(Fault::CutOffFromTheStore);
                    process.life.cut_off(length);
                }
            }
            Incident::Rebalance => self.outside.broker.shuffle(),
            Incident::SlowPartition { partition, length } => self.outside.broker.silence(partition, length),
            Incident::StoreAway { length } => self.outside.store.stay_away(length),
            Incident::BrokerAway { length } => self.outside.broker.stay_away(length),
            Incident::ProviderSilent { length } => self.outside.provider.fall_silent(length),
            Incident::ClockStep { slot } => {
                if self.slots[slot].is_some() {
                    self.strikes.hit(Fault::ClockStep);
                    self.measures(slot);
                }
            }
            Incident::ClockJump { slot, forth } => {
                if let Some(process) = &self.slots[slot] {
                    self.strikes.hit(Fault::ClockJump);
                    let jump = i64::try_from(JUMP.as_micros()).unwrap();
                    process.life.set_skew(if forth { jump } else { -jump });
                    // Whoever has gone to sleep by such a clock sleeps too long by as much.
                    self.strikes.held_up(slot, now, now + MEASURED_EVERY + JUMP * 2);
                    self.at(now + MEASURED_EVERY, Event::Measured(slot));
                }
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Died(slot) => self.bury(slot).await,
            News::Stopped(slot, length) => self.stopped(slot, length),
        }
    }

    /// A process learns what time it is, as well as it can.
    fn measures(&mut self, slot: usize) {
        let skew = self.rng.random_range(-1..=1) * i64::try_from(PRECISION.as_micros()).unwrap();
        if let Some(process) = &self.slots[slot] {
            process.life.set_skew(skew);
        }
    }

    /// Nobody is in a place for so long.
    fn is_absent(&mut self, slot: usize, away: Duration) {
        let now = self.time.since_boot();
        self.absent_since[slot] = Some(now);
        self.at(now + away, Event::Restart(slot));
    }

    fn stopped(&mut self, slot: usize, length: Duration) {
        let now = self.time.since_boot();
        self.strikes.held_up(slot, now, now + length);
        if let Some(process) = &self.slots[slot] {
            self.outside.broker.is_silent(&process.life);
        }
    }

    /// A process has died in the middle of an operation.
    async fn bury(&mut self, slot: usize) {
        let Some(process) = self.slots[slot].take_if(|process| process.life.is_dead()) else { return };
        let away = Duration::from_millis(self.rng.random_range(0..20_000));
        self.outside.broker.is_silent(&process.life);
        process.crash().await;
        self.is_absent(slot, away);
    }

    fn start(&mut self, slot: usize) -> Process {
        // A watchdog that has just started lets others end first what they were at.
        const QUIET: Duration = Duration::from_millis(2_100);
        let now = self.time.since_boot();
        self.strikes.held_up(slot, self.absent_since[slot].take().unwrap_or(now), now + QUIET);
        let precision = i64::try_from(PRECISION.as_micros()).unwrap();
        let skew = self.rng.random_range(-precision..=precision);
        let life = Life::new(slot, Arc::clone(&self.time), skew, self.tell.clone(), Arc::clone(&self.strikes));
        Process::start(&self.outside, life)
    }

    /// Waits until nothing moves by itself any more: for as long as calls and the relay may still
    /// be at it, since a call that ends late may ask for another.
    async fn settle(&mut self) -> bool {
        const AT_REST: u32 = 14;
        let mut at_rest = 0;
        for _ in 0..1_500 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some(ended) = self.slots.iter_mut().flatten().find_map(Process::ended) {
                self.findings.hold(Law::EveryOrderEnds, false, || ended);
                return false;
            }
            let now = self.time.now();
            let open = {
                let state = self.outside.store.state.lock().unwrap();
                !state.timers.is_empty()
                    || !state.followed.is_empty()
                    || state.rows.values().any(|row| is_undecided(row) || self.is_asked_about(row, now))
            };
            let moves = open || self.outside.provider.is_awaited() || !self.outside.broker.is_drained();
            at_rest = if moves { 0 } else { at_rest + 1 };
            if at_rest == AT_REST {
                return true;
            }
        }
        false
    }

    /// Whether the provider may still be asked, or it may still be noticed that it was not.
    fn is_asked_about(&self, row: &Order, now: Timestamp) -> bool {
        const NOTICED: Duration = Duration::from_secs(75);
        let open = row.attempt.as_ref().filter(|_| row.asks() && row.state != State::InFlight);
        open.is_some_and(|attempt| now < plus(self.last_query(attempt.claimed_at), NOTICED))
    }

    /// The last moment at which the provider is asked about what was claimed then.
    pub(crate) fn last_query(&self, claimed_at: Timestamp) -> Timestamp {
        last_query(claimed_at, self.outside.store.provider_terms())
    }

    /// The orders that the shop has sold.
    pub(crate) fn sold(&self) -> impl Iterator<Item = OrderId> {
        (0..self.weather.orders).map(order_id)
    }
}
