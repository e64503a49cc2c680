//! Providers over real sockets: the transport, the simulator's adapter, and the simulator.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the outcome that it expects")]

mod adapter;
mod admin;
mod ban;
mod callback_faults;
mod callbacks;
mod conformance;
mod dialects;
mod faults;
mod ledger;
mod outcomes;
pub(crate) mod peer;
mod questions;
mod receiver;
mod simulator;
mod throughput;
mod tls;
mod transport;
mod window;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use recharged::domain::route::{Product, ProductTable};
use recharged::domain::{ClientRef, Currency, Money, Msisdn, ProviderId, Timestamp};
use recharged::ports::{Clock, QueryKey, RechargeProvider, SubmitRequest};
use recharged::providers::simulator::{Latency, Profile, Simulator, SimulatorHandle, SimulatorOptions};
use recharged::providers::{ProviderKind, ProviderSettings, build};
use rustix::time::{ClockId, clock_gettime};

/// The machine's own clocks.
#[derive(Debug)]
struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let now = clock_gettime(ClockId::Realtime);
        Timestamp::from_timestamp(now.tv_sec, u32::try_from(now.tv_nsec).unwrap()).unwrap()
    }

    fn since_boot(&self) -> Duration {
        clock_gettime(ClockId::Boottime).try_into().unwrap()
    }
}

/// A window that does not close during a test.
fn wide_window() -> Duration {
    RealClock.since_boot() + Duration::from_mins(5)
}

fn settings(base_url: &str) -> ProviderSettings {
    let mut settings = ProviderSettings::new(ProviderKind::Simulator, base_url.parse().unwrap());
    settings.call_timeout = Duration::from_secs(10);
    settings
}

fn provider_with(settings: &ProviderSettings) -> Arc<dyn RechargeProvider> {
    build(&ProviderId::new("primary"), settings, Arc::new(RealClock)).unwrap()
}

fn provider(base_url: &str) -> Arc<dyn RechargeProvider> {
    provider_with(&settings(base_url))
}

/// Whatever the number and the carrier, 50.00 yuan is sold.
pub(crate) fn products_of_5000() -> ProductTable {
    let product = Product {
        country: "*".to_owned(),
        carrier: "*".to_owned(),
        amount_minor: 5_000,
        currency: Currency::parse("CNY").unwrap(),
        code: "5000".to_owned(),
        is_ranged: false,
    };
    ProductTable::new(vec![product])
}

pub(crate) fn submit_of(reference: &str) -> SubmitRequest {
    SubmitRequest {
        client_ref: ClientRef::from_stored(reference),
        msisdn: Msisdn::from_e164("+8613800000042").unwrap(),
        amount: Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() },
        carrier: None,
        callback_url: None,
        sent_at: RealClock.now(),
        send_by: wide_window(),
    }
}

fn query_of(reference: &str) -> QueryKey {
    QueryKey {
        client_ref: ClientRef::from_stored(reference),
        provider_ref: None,
        sent_at: RealClock.now(),
        give_up: false,
        send_by: wide_window(),
    }
}

/// A profile that answers at once.
fn quick() -> Profile {
    Profile { reply: Latency::Fixed(Duration::ZERO), ..Profile::default() }
}

async fn simulator(options: SimulatorOptions) -> SimulatorHandle {
    let options = SimulatorOptions { seed: options.seed.or(Some(42)), ..options };
    Simulator::start(options, Arc::new(RealClock)).await.unwrap()
}

/// Waits for a condition, longer than anything takes that works.
async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while !is_true() {
        assert!(tokio::time::Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
