//! The list of all metrics.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, with_recorder};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

impl Kind {
    /// As a scrape writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
    /// The upper bounds of its buckets.
    pub buckets: &'static [f64],
}

static METADATA: Metadata<'static> = Metadata::new("recharged", Level::INFO, None);

impl Metric {
    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let labels: Vec<Label> =
            self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        Key::from_parts(self.name, labels)
    }

    pub(super) fn counter(&self, values: &[&str]) -> Counter {
        with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    pub(super) fn gauge(&self, values: &[&str]) -> Gauge {
        with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    pub(super) fn histogram(&self, values: &[&str]) -> Histogram {
        with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help, buckets: &[] }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help, buckets: &[] }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help, buckets }
}

/// Around the three minutes.
const SLA: &[f64] = &[
    0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0, 150.0, 165.0, 175.0, 180.0, 185.0, 195.0, 210.0,
    240.0, 300.0, 600.0, 1800.0,
];
const SLACK: &[f64] = &[0.0, 5.0, 10.0, 15.0, 30.0, 45.0, 60.0, 90.0, 120.0, 150.0, 165.0, 180.0];
const RPC: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];
const LATE: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const DB: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 8.0];

// Intake.
pub(super) const ORDERS_RECEIVED: Metric =
    counter("recharge_orders_received_total", &["source"], "Records read from an input topic");
pub(super) const ORDERS_ACCEPTED: Metric =
    counter("recharge_orders_accepted_total", &["source"], "Records that were valid and new, and are stored");
pub(super) const ORDERS_REJECTED: Metric = counter(
    "recharge_orders_rejected_total",
    &["source", "reason"],
    "Records that went to the dead letters, and orders that failed on arrival, by reason",
);
pub(super) const ORDERS_DUPLICATE: Metric = counter(
    "recharge_orders_duplicate_total",
    &["source", "stage"],
    "Repetitions that had no effect, by the stage that noticed",
);
pub(super) const EARLY_EVENTS: Metric = counter(
    "recharge_intake_early_events_total",
    &["source", "result"],
    "Events of an order that is not there yet: put off once more (waits), or come back to find it (found)",
);
pub(super) const INTAKE_DELAY: Metric =
    histogram("recharge_intake_delay_seconds", &["source"], SLA, "From the event's own time until it was stored");
pub(super) const FUTURE_PAID_AT: Metric = counter(
    "recharge_orders_future_paid_at_total",
    &["source"],
    "Orders whose paid_at lay ahead of the database's clock: the shop's clock is wrong",
);

// Outcomes.
pub(super) const ORDERS_RESOLVED: Metric =
    counter("recharge_orders_resolved_total", &["outcome"], "Orders that were closed");
pub(super) const ORDER_RESOLUTION: Metric =
    histogram("recharge_order_resolution_seconds", &["outcome"], SLA, "From payment until the order was closed");
pub(super) const ORDER_ATTEMPTS: Metric =
    histogram("recharge_order_attempts", &["outcome"], ATTEMPTS, "Attempts of a closed order");
pub(super) const SLA_ORDERS: Metric = counter(
    "recharge_sla_orders_total",
    &["result"],
    "Paid orders, each counted once: met when closed by its deadline, missed at the deadline",
);
pub(super) const SLA_DEADLINE: Metric =
    gauge("recharge_sla_deadline_seconds", &[], "The configured time from payment to the deadline");
pub(super) const PENDING_ORDERS: Metric = gauge("recharge_pending_orders", &["state"], "Open orders");
pub(super) const OVERDUE_ORDERS: Metric =
    gauge("recharge_overdue_orders", &[], "Orders that are open past their deadline and not in doubt: stuck");
pub(super) const OPEN_CASES: Metric =
    gauge("recharge_open_cases", &["kind"], "Cases that a person or the provider has not ended yet");
pub(super) const ESCALATED_CASES: Metric =
    gauge("recharge_escalated_cases", &["kind"], "Open cases that have waited so long that a person must look");
pub(super) const OLDEST_PENDING: Metric = gauge(
    "recharge_oldest_pending_age_seconds",
    &[],
    "Time since the payment of the oldest order that is paid and open",
);

// Dispatch and providers.
pub(super) const DISPATCH_SLACK: Metric = histogram(
    "recharge_dispatch_slack_seconds",
    &["attempt"],
    SLACK,
    "Time left until the deadline when a call begins",
);
pub(super) const PROVIDER_REQUESTS: Metric =
    counter("recharge_provider_requests_total", &["provider", "operation", "result"], "Calls, by what became of them");
pub(super) const PROVIDER_REQUEST_DURATION: Metric = histogram(
    "recharge_provider_request_duration_seconds",
    &["provider", "operation"],
    RPC,
    "Duration of calls that left this process",
);
pub(super) const PROVIDER_UNDOCUMENTED: Metric = counter(
    "recharge_provider_undocumented_codes_total",
    &["provider"],
    "Answers with a code that its table does not have: they count as unknown, and the table needs a row",
);
pub(super) const CALLBACKS: Metric = counter(
    "recharge_callbacks_total",
    &["provider", "result"],
    "Callbacks: dealt with (settled, asked, confirming, known), to be sent again (not_now), or turned away (the others)",
);
pub(super) const BREAKER_STATE: Metric = gauge(
    "recharge_provider_breaker_state",
    &["provider", "state"],
    "1 for where this process's breaker of the provider stands (closed, half_open, open), 0 for the others",
);
pub(super) const LANE_PAUSED: Metric =
    gauge("recharge_lane_paused", &["provider"], "1 while an operator has paused the lane for the whole fleet");
pub(super) const PROVIDER_IN_FLIGHT: Metric =
    gauge("recharge_provider_in_flight_requests", &["provider"], "Calls under way");
pub(super) const LANE_BACKLOG: Metric =
    gauge("recharge_lane_backlog_commands", &["provider", "class"], "Commands that wait in this process for a permit");

// Rate limit.
pub(super) const PERMITS: Metric =
    counter("recharge_rate_limit_permits_total", &["provider", "result"], "Permits that were asked for");
pub(super) const PERMIT_WAIT: Metric =
    histogram("recharge_rate_limit_wait_seconds", &["provider"], LATE, "Time that a command waited for its permit");
pub(super) const QUOTA: Metric = gauge(
    "recharge_rate_limit_quota_permits_per_second",
    &["provider"],
    "The provider's whole quota; the same in every process, so never sum it",
);

// Delay tiers.
pub(super) const DELAY_FORWARDED: Metric = counter(
    "recharge_delay_forwarded_total",
    &["tier"],
    "Records that left a delay topic, to their target or into a smaller tier",
);
pub(super) const DELAY_EARLY: Metric = counter(
    "recharge_delay_early_total",
    &["tier"],
    "Records that were handed over to their target before their due time: must stay 0",
);
pub(super) const DELAY_LATENESS: Metric = histogram(
    "recharge_delay_lateness_seconds",
    &["tier"],
    LATE,
    "From a record's due time until its target had it, by the tier that it came from",
);
pub(super) const DELAY_PENDING: Metric = gauge(
    "recharge_delay_pending_records",
    &["tier"],
    "Delayed records that this process has in hand, those on their way to a target or to the dead letters included",
);
pub(super) const DELAY_FARTHEST: Metric = gauge(
    "recharge_delay_farthest_due_timestamp_seconds",
    &["tier"],
    "The latest due time among the delayed records that wait in hand, at most a second ago; 0 without any",
);

// The watchdog.
pub(super) const WATCHDOG_ACTIONS: Metric =
    counter("recharge_watchdog_actions_total", &["action"], "What the watchdog did about orders");
pub(super) const WATCHDOG_SCAN: Metric =
    histogram("recharge_watchdog_scan_duration_seconds", &[], DB, "Duration of a look at what is due");
pub(super) const WATCHDOG_LAST_SUCCESS: Metric = gauge(
    "recharge_watchdog_last_success_timestamp_seconds",
    &[],
    "When the watchdog last looked at everything that was due",
);

// Relay and dead letters.
pub(super) const RELAY_PUBLISHED: Metric =
    counter("recharge_relay_published_total", &["topic", "result"], "Events of the log that were written to Kafka");
pub(super) const RELAY_PENDING: Metric =
    gauge("recharge_relay_pending_rows", &[], "Entries of the log that are read and not yet acknowledged");
pub(super) const RELAY_OLDEST: Metric =
    gauge("recharge_relay_oldest_age_seconds", &[], "Age of the oldest entry that is not yet published");
pub(super) const DEAD_LETTERS: Metric =
    counter("recharge_dead_letter_messages_total", &["topic", "reason"], "Records that went to the dead letters");

// Kafka's client.
pub(super) const KAFKA_CONSUMED: Metric = counter("recharge_kafka_messages_consumed_total", &["topic"], "Records read");
pub(super) const KAFKA_PRODUCED: Metric =
    counter("recharge_kafka_messages_produced_total", &["topic", "result"], "Records written");
pub(super) const KAFKA_LAG_RECORDS: Metric = gauge(
    "recharge_kafka_consumer_lag_records",
    &["topic", "partition"],
    "Records not read yet, of the partitions that this process holds",
);
pub(super) const KAFKA_LAG_SECONDS: Metric =
    gauge("recharge_kafka_consumer_lag_seconds", &["topic"], "Age of the oldest record that is not yet read");
pub(super) const KAFKA_ASSIGNED: Metric =
    gauge("recharge_kafka_assigned_partitions", &["topic"], "Partitions that this process holds");
pub(super) const KAFKA_REBALANCES: Metric =
    counter("recharge_kafka_rebalances_total", &["topic", "event"], "Changes of the assignment");
pub(super) const KAFKA_COMMIT_FAILURES: Metric =
    counter("recharge_kafka_commit_failures_total", &["topic"], "Commits of offsets that failed");
pub(super) const KAFKA_POLL_AGE: Metric =
    gauge("recharge_kafka_poll_age_seconds", &["topic"], "Time since the poll loop last turned");

// The store.
pub(super) const DB_QUERY_DURATION: Metric =
    histogram("recharge_db_query_duration_seconds", &["operation"], DB, "Duration of store operations");
pub(super) const DB_ERRORS: Metric =
    counter("recharge_db_errors_total", &["operation", "kind"], "Store operations that failed");
pub(super) const DB_POOL: Metric = gauge("recharge_db_pool_connections", &["state"], "Connections to the store");
pub(super) const DB_POOL_MAX: Metric =
    gauge("recharge_db_pool_max_connections", &[], "The most connections that this process may open");

// The process.
pub(super) const BUILD_INFO: Metric =
    gauge("recharge_build_info", &["version", "revision", "rustc"], "What this process was built from; always 1");
pub(super) const CONFIG_INFO: Metric =
    gauge("recharge_config_info", &["config_hash"], "Fingerprint of the effective configuration; always 1");
pub(super) const CLOCK_SKEW: Metric =
    gauge("recharge_clock_skew_seconds", &["peer"], "How far another clock is ahead of this machine's");

/// All of the service's own metrics.
pub(super) const OWN: &[Metric] = &[
    ORDERS_RECEIVED,
    ORDERS_ACCEPTED,
    ORDERS_REJECTED,
    ORDERS_DUPLICATE,
    EARLY_EVENTS,
    INTAKE_DELAY,
    FUTURE_PAID_AT,
    ORDERS_RESOLVED,
    ORDER_RESOLUTION,
    ORDER_ATTEMPTS,
    SLA_ORDERS,
    SLA_DEADLINE,
    PENDING_ORDERS,
    OVERDUE_ORDERS,
    OLDEST_PENDING,
    OPEN_CASES,
    ESCALATED_CASES,
    DISPATCH_SLACK,
    PROVIDER_REQUESTS,
    PROVIDER_REQUEST_DURATION,
    PROVIDER_UNDOCUMENTED,
    CALLBACKS,
    BREAKER_STATE,
    LANE_PAUSED,
    PROVIDER_IN_FLIGHT,
    LANE_BACKLOG,
    PERMITS,
    PERMIT_WAIT,
    QUOTA,
    DELAY_FORWARDED,
    DELAY_EARLY,
    DELAY_LATENESS,
    DELAY_PENDING,
    DELAY_FARTHEST,
    WATCHDOG_ACTIONS,
    WATCHDOG_SCAN,
    WATCHDOG_LAST_SUCCESS,
    RELAY_PUBLISHED,
    RELAY_PENDING,
    RELAY_OLDEST,
    DEAD_LETTERS,
    KAFKA_CONSUMED,
    KAFKA_PRODUCED,
    KAFKA_LAG_RECORDS,
    KAFKA_LAG_SECONDS,
    KAFKA_ASSIGNED,
    KAFKA_REBALANCES,
    KAFKA_COMMIT_FAILURES,
    KAFKA_POLL_AGE,
    DB_QUERY_DURATION,
    DB_ERRORS,
    DB_POOL,
    DB_POOL_MAX,
    BUILD_INFO,
    CONFIG_INFO,
    CLOCK_SKEW,
];

/// What the library for process metrics adds, in the words of Prometheus' own clients.
const PROCESS: &[Metric] = &[
    counter("process_cpu_seconds_total", &[], "Total user and system CPU time spent in seconds."),
    gauge("process_open_fds", &[], "Number of open file descriptors."),
    gauge("process_max_fds", &[], "Maximum number of open file descriptors."),
    gauge("process_virtual_memory_bytes", &[], "Virtual memory size in bytes."),
    gauge("process_virtual_memory_max_bytes", &[], "Maximum amount of virtual memory available in bytes."),
    gauge("process_resident_memory_bytes", &[], "Resident memory size in bytes."),
    gauge("process_start_time_seconds", &[], "Start time of the process since unix epoch in seconds."),
    gauge("process_threads", &[], "Number of OS threads in the process."),
];

/// Every metric that a scrape may hold.
pub fn catalogue() -> impl Iterator<Item = &'static Metric> {
    OWN.iter().chain(PROCESS)
}
