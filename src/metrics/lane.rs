//! A provider and its lane.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::catalogue as names;
use super::{Family, exact_size};
use crate::domain::ProviderId;
use crate::ports::PermitClass;

const OPERATIONS: [&str; 2] = ["submit", "query"];
const RESULTS: [&str; 7] = ["ok", "declined", "error", "timeout", "throttled", "in_doubt", "not_sent"];
const BREAKER_STATES: [&str; 3] = ["closed", "half_open", "open"];
const PERMIT_RESULTS: [&str; 3] = ["granted", "delayed", "denied"];

#[derive(Clone, Debug)]
struct Operation {
    results: Family<Counter>,
    duration: Histogram,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneMetrics {
    slack_first: Histogram,
    slack_retry: Histogram,
    operations: Family<Operation>,
    in_flight: Gauge,
    permits: Family<Counter>,
    permit_wait: Histogram,
    quota: Gauge,
    backlog: Family<Gauge>,
    breaker: Family<Gauge>,
}

impl LaneMetrics {
    /// For the lane of a provider.
    pub fn new(provider: &ProviderId) -> Self {
        let provider = provider.as_str();
        let classes = PermitClass::ALL.map(PermitClass::as_str);
        let metrics = Self {
            slack_first: names::DISPATCH_SLACK.histogram(&["first"]),
            slack_retry: names::DISPATCH_SLACK.histogram(&["retry"]),
            operations: Family::new(&OPERATIONS, |operation| Operation {
                results: Family::new(&RESULTS, |result| {
                    names::PROVIDER_REQUESTS.counter(&[provider, operation, result])
                }),
                duration: names::PROVIDER_REQUEST_DURATION.histogram(&[provider, operation]),
            }),
            in_flight: names::PROVIDER_IN_FLIGHT.gauge(&[provider]),
            permits: Family::new(&PERMIT_RESULTS, |result| names::PERMITS.counter(&[provider, result])),
            permit_wait: names::PERMIT_WAIT.histogram(&[provider]),
            quota: names::QUOTA.gauge(&[provider]),
            backlog: Family::new(&classes, |class| names::LANE_BACKLOG.gauge(&[provider, class])),
            breaker: Family::new(&BREAKER_STATES, |state| names::BREAKER_STATE.gauge(&[provider, state])),
        };
        metrics.breaker("closed");
        metrics
    }

    /// Where the breaker stands: `closed`, `half_open` (a call is tried) or `open`.
    pub fn breaker(&self, state: &'static str) {
        for known in BREAKER_STATES {
            if let Some(gauge) = self.breaker.get(known) {
                gauge.set(f64::from(u8::from(known == state)));
            }
        }
    }

    /// Time left until the deadline when a submit begins; of a first attempt or a further one.
    pub fn slack(&self, first: bool, slack: Duration) {
        let histogram = if first { &self.slack_first } else { &self.slack_retry };
        histogram.record(slack.as_secs_f64());
    }

    /// A call ended. `operation` is `submit` or `query`; `result` is `ok`, `declined`, `error`,
    /// `timeout`, `throttled`, `in_doubt` or `not_sent`, whose duration is not recorded.
    pub fn request(&self, operation: &'static str, result: &'static str, duration: Duration) {
        let Some(operation) = self.operations.get(operation) else { return };
        if let Some(counter) = operation.results.get(result) {
            counter.increment(1);
        }
        if result != "not_sent" {
            operation.duration.record(duration.as_secs_f64());
        }
    }

    /// Calls under way now.
    pub fn in_flight(&self, count: usize) {
        self.in_flight.set(exact_size(count));
    }

    /// Permits: `granted`, `delayed` (asked for, to be had later) or `denied` (expired unused).
    pub fn permits(&self, result: &'static str, count: u64) {
        if let Some(counter) = self.permits.get(result) {
            counter.increment(count);
        }
    }

    /// Time that a command waited for its permit.
    pub fn permit_wait(&self, wait: Duration) {
        self.permit_wait.record(wait.as_secs_f64());
    }

    /// The whole quota, in permits a second.
    pub fn quota(&self, permits_per_second: f64) {
        self.quota.set(permits_per_second);
    }

    /// Commands of a class that wait in this process.
    pub fn backlog(&self, class: PermitClass, count: usize) {
        if let Some(gauge) = self.backlog.get(class.as_str()) {
            gauge.set(exact_size(count));
        }
    }
}

/// What an adapter itself counts.
#[derive(Clone, Debug)]
pub struct ProviderMetrics {
    undocumented: Counter,
}

impl ProviderMetrics {
    /// Of one provider.
    pub fn new(provider: &ProviderId) -> Self {
        Self { undocumented: names::PROVIDER_UNDOCUMENTED.counter(&[provider.as_str()]) }
    }

    /// An answer with a code that no table of ours knows.
    pub fn undocumented(&self) {
        self.undocumented.increment(1);
    }
}
