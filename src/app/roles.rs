//! What each role is made of, in the order of an order's way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::running::Running;
use super::{BUDGET, Plan, Providers, Role, StartError};
use crate::clock::SystemClock;
use crate::config::{BreakerConfig, Config, tier_name};
use crate::domain::{ProviderId, Reason};
use crate::kafka::ProducerOptions;
use crate::metrics::{
    CallbackMetrics, DelayMetrics, IntakeMetrics, LaneMetrics, OutcomeMetrics, RelayMetrics, WatchdogMetrics,
};
use crate::ports::{CallbackDoor, LaneTopics, Publisher, Store};
use crate::roles::callback::{CallbackRules, Callbacks, Caller};
use crate::roles::commands::CommandWriter;
use crate::roles::delay::{Delay, DelayRules};
use crate::roles::delayed::DelayTiers;
use crate::roles::dispatch::{BreakerRules, Lane, LaneParts, LaneRules};
use crate::roles::intake::{Intake, IntakeRules, Source};
use crate::roles::relay::{Relay, RelayTopics};
use crate::roles::watchdog::{Watchdog, WatchdogRules};
use crate::roles::{LaneBoard, RoleError, RowsAtHand, StopSignals};

/// Rows in one statement at most, and statements of a kind under way at once. Larger batches and
/// more writers were measured to cost more than they bring (`docs/PERFORMANCE.md`).
const BATCH_MAX: usize = 500;
const WRITERS: usize = 3;
/// Commands of a topic that wait in a lane's heap at most.
const HEAP_MAX: usize = 5_000;
/// Rows that intake leaves for the lanes of its process: about what waits on the way between them.
const AT_HAND: usize = 2 * HEAP_MAX;
/// Records of a tier that its forwarder holds at most: as many as may be due at one instant and
/// still leave together.
const READ_AHEAD: usize = 24_000;
/// Records under way of all tiers together, and of those to one topic: half of what a tier may hold leaves
/// at once, and a topic that does not answer leaves room for others.
const FORWARDING: usize = 48_000;
const FORWARDING_TO_ONE: u32 = 12_000;
/// How long one try to forward may take; after a few the record goes to the dead letters.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(3);
/// Entries of the event log in one page.
const RELAY_PAGE: usize = 5_000;
/// A page takes milliseconds to hand over; with a shorter linger its beginning goes alone, and the
/// rest waits behind it (`docs/PERFORMANCE.md`).
const RELAY_LINGER: Duration = Duration::from_millis(8);
/// A call that has not ended so long after it should have was lost on its way.
const CALL_ENDS: Duration = Duration::from_secs(2);

/// A role, and where what it works on is handed in.
pub(super) type Doored = (Running, Arc<dyn CallbackDoor>);

/// What the roles share.
pub(super) struct Parts {
    pub(super) plan: Plan,
    /// Delay tiers that are no longer configured.
    pub(super) former_tiers: Vec<Duration>,
    /// No broker answered at the start.
    pub(super) broker_is_away: bool,
    pub(super) store: Arc<dyn Store>,
    pub(super) at_hand: Arc<RowsAtHand>,
    /// Which lanes take orders.
    pub(super) board: Arc<LaneBoard>,
    /// Woken by each write of this process to the store.
    pub(super) written: Arc<Notify>,
    pub(super) clock: Arc<SystemClock>,
    pub(super) providers: Providers,
    pub(super) outcomes: Arc<OutcomeMetrics>,
    pub(super) clients: Clients,
    /// Cancelled when the process drains.
    pub(super) drain: CancellationToken,
}

/// Room for what intake leaves to the lanes, in a process that has both.
pub(super) fn rows_at_hand(plan: &Plan) -> Arc<RowsAtHand> {
    Arc::new(RowsAtHand::new(if plan.roles.contains(&Role::Dispatch) { AT_HAND } else { 0 }))
}

/// `call` is how long a call may take from its claim on.
fn breaker_rules(config: &BreakerConfig, call: Duration) -> BreakerRules {
    BreakerRules {
        window: config.window.get(),
        calls_min: usize::from(config.calls_min),
        failing: config.failing,
        in_a_row: u32::from(config.in_a_row),
        account_in_a_row: u32::from(config.account_in_a_row),
        rest_first: config.rest_first.get(),
        rest_max: config.rest_max.get(),
        call_ends: call + CALL_ENDS,
    }
}

fn delay_tiers(config: &Config) -> DelayTiers {
    let topics = config.topics();
    DelayTiers::new(config.tiers().into_iter().map(|tier| (tier, topics.delay(tier))))
}

impl Parts {
    /// What carries commands, from intake to dispatch and from an attempt to the next.
    pub(super) fn commands(&mut self) -> Result<Arc<dyn Publisher>, StartError> {
        self.clients.producer(ProducerOptions::default())
    }

    /// From order events to stored orders and commands: one role for each topic that is read.
    pub(super) fn intake(&mut self, commands: &Arc<dyn Publisher>) -> Result<Vec<Running>, StartError> {
        let config = &self.plan.config;
        let (topics, groups) = (config.topics(), config.groups());
        let (table, board) = (config.route_table(), Arc::clone(&self.board));
        let rules = Arc::new(IntakeRules {
            policy: config.policy(),
            route: Box::new(move |new| {
                let number = new.recipient.msisdn().ok_or(Reason::InvalidPhone)?;
                let lanes = table.lanes(&new.order_id, number, new.carrier.as_deref(), new.amount)?;
                // Where none takes orders, it waits in the one that it belongs to.
                let chosen = lanes.clone().find(|lane| board.is_open(lane)).or_else(|| lanes.clone().next());
                chosen.cloned().ok_or(Reason::NoRoute)
            }),
            commands: self.command_writer()?,
            lanes: self.lane_topics(),
            dead_letters: Arc::clone(&topics.dead_letters),
            timers: Arc::clone(&topics.timers),
            retention: config.retention.closed_orders.get(),
            batch_max: BATCH_MAX,
            writers: WRITERS,
        });
        let inputs = [
            (topics.orders, groups.intake, Source::Orders),
            (topics.lifecycle, groups.intake_lifecycle, Source::Lifecycle),
            (topics.timers, groups.intake_timers, Source::Timers),
        ];
        let mut running = Vec::new();
        for (topic, group, source) in inputs {
            let name = source.as_str();
            let subscription = match source {
                Source::Orders => self.clients.consumer(&group, "intake", &topic)?,
                Source::Lifecycle => self.clients.consumer(&group, &format!("intake.{name}"), &topic)?,
                Source::Timers => self.clients.tier_consumer(&group, &format!("intake.{name}"), &topic)?,
            };
            let intake = Intake {
                store: self.store.clone(),
                at_hand: Arc::clone(&self.at_hand),
                publisher: Arc::clone(commands),
                clock: Arc::<SystemClock>::clone(&self.clock),
                rules: Arc::clone(&rules),
                source,
                metrics: Arc::new(IntakeMetrics::new(name)),
                outcomes: Arc::clone(&self.outcomes),
            };
            let stop = self.stop();
            let give_up = stop.abort.clone();
            let work = intake.run(subscription, stop);
            running.push(Running::new(format!("intake of {name}"), BUDGET, give_up, work));
        }
        Ok(running)
    }

    /// From a lane's commands to recharges.
    pub(super) fn lane(&mut self, lane: &ProviderId, commands: &Arc<dyn Publisher>) -> Result<Running, StartError> {
        let config = &self.plan.config;
        let missing = || StartError::Config(format!("providers.{lane}: there is no such provider"));
        let settings = config.providers.get(lane.as_str()).ok_or_else(missing)?;
        let provider = Arc::clone(self.providers.get(lane).ok_or_else(missing)?);
        let topics = config.topics().lane(lane);
        let rules = LaneRules {
            policy: config.policy(),
            dead_letters: config.topics().dead_letters,
            commands: self.command_writer()?,
            terms: settings.quota.terms(),
            in_flight_max: usize::try_from(settings.quota.in_flight_max).unwrap_or(usize::MAX),
            heap_max: HEAP_MAX,
            batch_max: BATCH_MAX,
            writers: WRITERS,
            send_window: settings.send_window.get(),
            callbacks: config.callback_links(lane, &self.plan.secrets),
            topics: topics.clone(),
            lanes: self.lane_topics(),
            breaker: breaker_rules(&settings.breaker, settings.call_timeout.get() + settings.send_window.get()),
        };
        let budget = settings.call_timeout.get() + Duration::from_secs(5);
        let (groups, role) = (config.groups(), format!("dispatch-{lane}"));
        let fresh = self.clients.consumer(&groups.dispatch(lane), &role, &topics.requests)?;
        let due = self.clients.consumer(&groups.dispatch_due(lane), &format!("{role}.due"), &topics.due)?;
        let dispatch = Lane::new(LaneParts {
            store: self.store.clone(),
            at_hand: Arc::clone(&self.at_hand),
            quota: self.store.clone(),
            questions: self.store.clone(),
            deadlines: self.store.clone(),
            read_marks: self.store.clone(),
            cooldowns: self.store.clone(),
            publisher: Arc::clone(commands),
            provider,
            clock: Arc::<SystemClock>::clone(&self.clock),
            rules,
            metrics: LaneMetrics::new(lane),
            outcomes: Arc::clone(&self.outcomes),
            board: Arc::clone(&self.board),
        });
        let stop = self.stop();
        let give_up = stop.abort.clone();
        Ok(Running::new(format!("dispatch to {lane}"), budget, give_up, dispatch.run(fresh, due, stop)))
    }

    /// From callbacks to settled orders and questions; `None` where no provider can call back.
    pub(super) fn callback(&mut self, commands: &Arc<dyn Publisher>) -> Result<Option<Doored>, StartError> {
        let config = &self.plan.config;
        let mut callers = HashMap::new();
        for lane in config.lanes() {
            let links = config.callback_links(&lane, &self.plan.secrets);
            let signs = self.plan.secrets.callback_keys.get(lane.as_str()).is_some_and(|keys| !keys.is_empty());
            if let Some(provider) = self.providers.get(&lane).filter(|_| signs || links.is_some()) {
                let from = config.callback_networks(&lane);
                callers.insert(lane, Caller { provider: Arc::clone(provider), links, from });
            }
        }
        if callers.is_empty() {
            return Ok(None);
        }
        let names: Vec<ProviderId> = callers.keys().cloned().collect();
        let role = Callbacks {
            store: self.store.clone(),
            questions: self.store.clone(),
            book: self.store.clone(),
            publisher: Arc::clone(commands),
            clock: Arc::<SystemClock>::clone(&self.clock),
            rules: CallbackRules {
                policy: config.policy(),
                commands: self.command_writer()?,
                lanes: self.lane_topics(),
                callers,
                batch_max: BATCH_MAX,
                writers: WRITERS,
            },
            metrics: CallbackMetrics::new(&names),
            outcomes: Arc::clone(&self.outcomes),
            board: Arc::clone(&self.board),
        };
        let (open, door) = role.open();
        let stop = self.stop();
        let give_up = stop.abort.clone();
        Ok(Some((Running::new("callback".to_owned(), BUDGET, give_up, open.run(stop)), door)))
    }

    /// From the delay tiers to where each record is due: one role for each tier.
    pub(super) fn delay(&mut self) -> Result<Vec<Running>, StartError> {
        let (topics, groups) = (self.plan.config.topics(), self.plan.config.groups());
        // A record that is due is sent at once; those that come due meanwhile share the next request.
        let options = ProducerOptions {
            message_timeout: Some(FORWARD_TIMEOUT),
            max_in_flight_records: FORWARDING,
            topic_share: Some(FORWARDING_TO_ONE),
            linger: Duration::ZERO,
            in_order: false,
        };
        let publisher = self.clients.producer(options)?;
        // Not the shop's own topics: it may let us read them alone.
        let targets = HashSet::from([topics.timers.clone()]);
        let mut running = Vec::new();
        let configured = self.plan.config.tiers().into_iter().map(|tier| (tier, false));
        for (tier, is_former) in configured.chain(self.former_tiers.iter().map(|tier| (*tier, true))) {
            let name = tier_name(tier);
            let (group, role, topic) = (groups.delay(tier), format!("delay-{name}"), topics.delay(tier));
            let subscription = if is_former {
                self.clients.former_tier_consumer(&group, &role, &topic)?
            } else {
                self.clients.tier_consumer(&group, &role, &topic)?
            };
            let delay = Delay {
                publisher: Arc::clone(&publisher),
                clock: Arc::<SystemClock>::clone(&self.clock),
                rules: DelayRules {
                    tier,
                    tiers: delay_tiers(&self.plan.config),
                    targets: targets.clone(),
                    lanes: topics.lanes(),
                    dead_letters: Arc::clone(&topics.dead_letters),
                    read_ahead: READ_AHEAD,
                },
                metrics: DelayMetrics::new(&name),
            };
            let stop = self.stop();
            let give_up = stop.abort.clone();
            running.push(Running::new(format!("delay of {name}"), BUDGET, give_up, delay.run(subscription, stop)));
        }
        Ok(running)
    }

    /// Decides every order at its deadline, whoever else is away.
    pub(super) fn watchdog(&self, commands: &Arc<dyn Publisher>) -> Result<Running, StartError> {
        let config = &self.plan.config;
        let watchdog = Watchdog {
            store: self.store.clone(),
            deadlines: self.store.clone(),
            cases: self.store.clone(),
            timers: self.store.clone(),
            refunds: self.store.clone(),
            read_marks: self.store.clone(),
            cooldowns: self.store.clone(),
            publisher: Arc::clone(commands),
            clock: Arc::<SystemClock>::clone(&self.clock),
            rules: WatchdogRules {
                policy: config.policy(),
                commands: self.command_writer()?,
                lanes: self.lane_topics(),
                intervals: config
                    .providers
                    .iter()
                    .map(|(name, provider)| (ProviderId::new(name), provider.quota.terms().interval))
                    .collect(),
                partitions: usize::from(config.kafka.topics.partitions),
                batch_max: BATCH_MAX,
            },
            outcomes: Arc::clone(&self.outcomes),
            metrics: WatchdogMetrics::new(),
        };
        let stop = self.stop();
        let give_up = stop.abort.clone();
        Ok(Running::new("watchdog".to_owned(), BUDGET, give_up, watchdog.run(stop)))
    }

    /// From the event log to public events.
    pub(super) fn relay(&mut self) -> Result<Running, StartError> {
        // Without a time-out: giving up on one version would let the next one overtake it.
        let options = ProducerOptions {
            message_timeout: None,
            max_in_flight_records: 4 * RELAY_PAGE,
            topic_share: None,
            linger: RELAY_LINGER,
            in_order: true,
        };
        let publisher = self.clients.producer(options)?;
        let names = self.plan.config.topics();
        let topics = RelayTopics {
            order_events: names.order_events,
            refunds: names.refunds,
            notifications: names.notifications,
        };
        let relay = Relay {
            log: self.store.clone(),
            publisher,
            clock: Arc::<SystemClock>::clone(&self.clock),
            metrics: RelayMetrics::new(&topics.all()),
            topics,
            written: Arc::clone(&self.written),
            page_max: RELAY_PAGE,
        };
        // It is told to end when its turn has come, after the roles whose last events it tells.
        let abort = CancellationToken::new();
        let (give_up, log) = (abort.clone(), Arc::clone(&self.store));
        Ok(Running::in_turn("relay".to_owned(), BUDGET, give_up, |turn| async move {
            let dropped = abort.clone();
            tokio::select! {
                biased; // An end of its own counts.
                ended = relay.run(StopSignals { drain: turn, abort }) => ended?,
                // A store that hangs may hold it for long; nothing is lost with it.
                () = dropped.cancelled() => {}
            }
            // A relay ends without a word when it cannot go on; here it says whether it could.
            let readable = tokio::select! {
                cursor = log.cursor() => cursor.is_ok(),
                () = dropped.cancelled() => false,
            };
            if dropped.is_cancelled() || !readable {
                let left = "the event log may not be told to its end: the next relay goes on from its cursor";
                return Err(RoleError::Left(left.to_owned()));
            }
            Ok(())
        }))
    }

    /// How a role is told to end: to drain with all others, to drop everything when its time is over.
    fn stop(&self) -> StopSignals {
        StopSignals { drain: self.drain.clone(), abort: CancellationToken::new() }
    }

    fn command_writer(&self) -> Result<CommandWriter, StartError> {
        let missing = || StartError::Config("security.phone_key_file: is missing".to_owned());
        let phone_key = self.plan.secrets.phone_key.clone().ok_or_else(missing)?;
        Ok(CommandWriter { phone_key, tiers: delay_tiers(&self.plan.config) })
    }

    fn lane_topics(&self) -> HashMap<ProviderId, LaneTopics> {
        let (config, topics) = (&self.plan.config, self.plan.config.topics());
        config.lanes().into_iter().map(|lane| (lane.clone(), topics.lane(&lane))).collect()
    }
}
