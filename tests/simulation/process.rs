//! One process: the roles that `run` composes, on the ports of this simulation.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use recharged::domain::msisdn::PhoneKey;
use recharged::domain::{Policy, ProviderId};
use recharged::metrics::{DelayMetrics, IntakeMetrics, LaneMetrics, OutcomeMetrics, RelayMetrics, WatchdogMetrics};
use recharged::ports::{LaneTopics, Publisher, QuotaTerms};
use recharged::roles::commands::CommandWriter;
use recharged::roles::delay::{Delay, DelayRules};
use recharged::roles::delayed::DelayTiers;
use recharged::roles::dispatch::{BreakerRules, Lane, LaneParts, LaneRules};
use recharged::roles::intake::{Intake, IntakeRules, Source};
use recharged::roles::relay::{Relay, RelayTopics};
use recharged::roles::watchdog::{Watchdog, WatchdogRules};
use recharged::roles::{RoleError, RowsAtHand, StopSignals};
use tokio::task::JoinSet;

use crate::broker::{MemBroker, MemPublisher, PARTITIONS};
use crate::life::Life;
use crate::provider::{ProcessProvider, SEND_WINDOW, SimProvider};
use crate::store::{MemStore, ProcessStore};
use crate::weather::Sizes;

/// What all processes share.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) store: Arc<MemStore>,
    pub(crate) broker: Arc<MemBroker>,
    pub(crate) provider: Arc<SimProvider>,
    pub(crate) policy: Policy,
    pub(crate) terms: QuotaTerms,
    /// Whether anybody dispatches.
    pub(crate) dispatches: bool,
    pub(crate) sizes: Sizes,
}

/// Short ones, so that waits pass through several.
const TIERS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];

fn tiers() -> DelayTiers {
    DelayTiers::new(TIERS.map(|tier| (tier, tier_topic(tier).into())))
}

fn tier_topic(tier: Duration) -> String {
    format!("delay.{}s", tier.as_secs())
}

fn lane() -> ProviderId {
    ProviderId::new("sim")
}

fn topics() -> LaneTopics {
    LaneTopics { requests: "requests".into(), due: "due".into() }
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: Arc<Life>,
    tasks: JoinSet<Result<(), RoleError>>,
    stop: StopSignals,
}

impl Process {
    pub(crate) fn start(outside: &Outside, life: Arc<Life>) -> Self {
        let parts = Parts::new(outside, &life);
        let stop = StopSignals::default();
        let mut tasks = JoinSet::new();
        let subscribe = |topic: &str| outside.broker.subscribe(topic, &life);
        for source in [Source::Orders, Source::Lifecycle, Source::Timers] {
            tasks.spawn(parts.intake(source).run(Box::new(subscribe(source.as_str())), stop.clone()));
        }
        if outside.dispatches {
            let (fresh, due) = (subscribe("requests"), subscribe("due"));
            tasks.spawn(parts.lane().run(Box::new(fresh), Box::new(due), stop.clone()));
        }
        for tier in TIERS {
            let input = subscribe(&tier_topic(tier));
            tasks.spawn(parts.delay(tier).run(Box::new(input), stop.clone()));
        }
        tasks.spawn(parts.watchdog().run(stop.clone()));
        tasks.spawn(parts.relay().run(stop.clone()));
        Self { life, tasks, stop }
    }

    /// Ends as `kill -9` does: whatever was awaited is never resumed.
    pub(crate) async fn crash(mut self) {
        self.life.kill();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends as it is told to; whether it did so without an error.
    pub(crate) async fn drain(mut self) -> Result<(), String> {
        self.stop.drain.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What ended by itself, which nothing should.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let ended = self.tasks.try_join_next()?;
        Some(format!("a role of process {} ended by itself: {ended:?}", self.life.slot))
    }
}

/// What the roles of one process share.
struct Parts<'a> {
    outside: &'a Outside,
    life: Arc<Life>,
    store: Arc<ProcessStore>,
    publisher: Arc<dyn Publisher>,
    at_hand: Arc<RowsAtHand>,
    outcomes: Arc<OutcomeMetrics>,
    commands: CommandWriter,
}

impl<'a> Parts<'a> {
    fn new(outside: &'a Outside, life: &Arc<Life>) -> Self {
        let phone_key = PhoneKey::new(b"a key for tests only").unwrap();
        Self {
            outside,
            life: Arc::clone(life),
            store: Arc::new(ProcessStore { store: Arc::clone(&outside.store), life: Arc::clone(life), watches: false }),
            publisher: Self::publisher(outside, life, false),
            at_hand: Arc::new(RowsAtHand::new(2 * outside.sizes.intake_batch)),
            outcomes: Arc::new(OutcomeMetrics::new()),
            commands: CommandWriter { phone_key, tiers: tiers() },
        }
    }

    fn publisher(outside: &Outside, life: &Arc<Life>, forwards: bool) -> Arc<dyn Publisher> {
        Arc::new(MemPublisher { broker: Arc::clone(&outside.broker), life: Arc::clone(life), forwards })
    }

    fn intake(&self, source: Source) -> Intake {
        Intake {
            store: self.store.clone(),
            at_hand: self.at_hand.clone(),
            publisher: self.publisher.clone(),
            clock: self.life.clone(),
            rules: Arc::new(IntakeRules {
                policy: self.outside.policy.clone(),
                route: Box::new(|_| Ok(lane())),
                commands: self.commands.clone(),
                lanes: HashMap::from([(lane(), topics())]),
                dead_letters: "dead".into(),
                timers: "timers".into(),
                retention: Duration::from_secs(90 * 86_400),
                batch_max: self.outside.sizes.intake_batch,
                writers: 4,
            }),
            source,
            metrics: Arc::new(IntakeMetrics::new(source.as_str())),
            outcomes: self.outcomes.clone(),
        }
    }

    fn lane(&self) -> Lane {
        let provider =
            Arc::new(ProcessProvider { provider: Arc::clone(&self.outside.provider), life: Arc::clone(&self.life) });
        Lane::new(LaneParts {
            store: self.store.clone(),
            at_hand: self.at_hand.clone(),
            quota: self.store.clone(),
            questions: self.store.clone(),
            deadlines: self.store.clone(),
            read_marks: self.store.clone(),
            cooldowns: self.store.clone(),
            publisher: self.publisher.clone(),
            provider,
            clock: self.life.clone(),
            metrics: LaneMetrics::new(&lane()),
            outcomes: self.outcomes.clone(),
            board: Arc::default(),
            rules: LaneRules {
                policy: self.outside.policy.clone(),
                topics: topics(),
                lanes: HashMap::from([(lane(), topics())]),
                breaker: BreakerRules::default(),
                dead_letters: "dead".into(),
                commands: self.commands.clone(),
                terms: self.outside.terms,
                in_flight_max: self.outside.sizes.in_flight,
                heap_max: self.outside.sizes.heap,
                batch_max: self.outside.sizes.batch,
                writers: 4,
                send_window: SEND_WINDOW,
                callbacks: None,
            },
        })
    }

    fn delay(&self, tier: Duration) -> Delay {
        Delay {
            publisher: Self::publisher(self.outside, &self.life, true),
            clock: self.life.clone(),
            rules: DelayRules {
                tier,
                tiers: tiers(),
                targets: HashSet::from([topics().due, "timers".into()]),
                lanes: "requests.".into(),
                dead_letters: "dead".into(),
                read_ahead: 30,
            },
            metrics: DelayMetrics::new("a tier"),
        }
    }

    fn watchdog(&self) -> Watchdog {
        let (store, life) = (Arc::clone(&self.outside.store), Arc::clone(&self.life));
        let watching = Arc::new(ProcessStore { store, life, watches: true });
        Watchdog {
            store: watching.clone(),
            deadlines: watching.clone(),
            cases: self.store.clone(),
            timers: watching.clone(),
            refunds: watching.clone(),
            read_marks: self.store.clone(),
            cooldowns: self.store.clone(),
            publisher: self.publisher.clone(),
            clock: self.life.clone(),
            rules: WatchdogRules {
                policy: self.outside.policy.clone(),
                commands: self.commands.clone(),
                lanes: HashMap::from([(lane(), topics())]),
                intervals: HashMap::from([(lane(), self.outside.terms.interval)]),
                partitions: PARTITIONS,
                batch_max: 20,
            },
            outcomes: self.outcomes.clone(),
            metrics: WatchdogMetrics::new(),
        }
    }

    fn relay(&self) -> Relay {
        let topics = RelayTopics {
            order_events: "events".into(),
            refunds: "refunds".into(),
            notifications: "notifications".into(),
        };
        Relay {
            log: self.store.clone(),
            publisher: self.publisher.clone(),
            clock: self.life.clone(),
            metrics: RelayMetrics::new(&topics.all()),
            topics,
            written: Arc::default(),
            page_max: self.outside.sizes.page,
        }
    }
}
