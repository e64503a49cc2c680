//! What surrounds a reader in every run: fixed clocks, the keys, a provider of each kind, and an ear for the log.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;

use crate::domain::route::{Product, ProductTable};
use crate::domain::{ClientRef, Currency, Money, Msisdn, ProviderId, Timestamp};
use crate::ports::{Clock, QueryKey, RechargeProvider, SubmitRequest};
use crate::providers::{ProviderKind, ProviderSettings, Secret, build};

/// Nobody's number. What is said of an input that holds it does not hold it.
pub(super) const NUMBER: &str = "+8613800000042";
/// Its digits, as some providers write it.
pub(super) const DIGITS: &str = "13800000042";
/// Our reference at a provider: attempt 1 of order `R01J8ZK4T7A1`.
pub(super) const REFERENCE: &str = "R01J8ZK4T7A1-1";
/// A provider's own reference, where one is known.
pub(super) const THEIRS: &str = "12345";
/// What calls are signed with.
pub(super) const KEY: &str = "canary-key-of-calls";
/// What callbacks are signed with, the newer first.
pub(super) const CALLBACK_KEYS: [&str; 2] = ["canary-key-of-callbacks", "canary-key-of-old-callbacks"];

/// When all of it happens.
pub(super) fn now() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap()
}

/// Stands still unless it is moved.
#[derive(Debug)]
pub(super) struct StillClock {
    boot_millis: AtomicU64,
}

impl StillClock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { boot_millis: AtomicU64::new(1_000_000) })
    }

    pub(super) fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let saturating = |at: u64| Some(at.saturating_add(millis).min(u64::MAX / 4));
        self.boot_millis.fetch_update(Ordering::Relaxed, Ordering::Relaxed, saturating).unwrap();
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        now()
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.boot_millis.load(Ordering::Relaxed))
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    static SAID: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static EAR: Dispatch = Dispatch::new(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .without_time()
            .with_ansi(false)
            .with_writer(Ear)
            .finish(),
    );
}

/// Runs a future to its end. Waits take no time.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

#[derive(Debug, Clone, Copy)]
struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SAID.with_borrow_mut(|said| said.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Ear {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// Runs something, and checks that no line of its log holds the number or a key.
pub(super) fn silently<T>(run: impl FnOnce() -> T) -> T {
    SAID.with_borrow_mut(Vec::clear);
    let made = EAR.with(|ear| tracing::dispatcher::with_default(ear, run));
    SAID.with_borrow(|said| keeps_secrets(&String::from_utf8_lossy(said)));
    made
}

/// What is said to people or to the log holds neither the number nor a key.
pub(super) fn keeps_secrets(said: &str) {
    assert!(!said.contains(DIGITS), "what is said holds the number of the input");
    assert!(!said.contains("canary"), "what is said holds a key");
}

/// What is kept of a provider's words is short and plain, since it stands in rows, commands, logs and on screens.
pub(super) fn is_plain(text: &str) -> bool {
    text.len() <= 512 && !text.chars().any(char::is_control)
}

pub(super) fn settings(kind: ProviderKind) -> ProviderSettings {
    let mut settings = ProviderSettings::new(kind, "http://provider.example/api".parse().unwrap());
    settings.account = Some("our-account".to_owned());
    settings.key = Some(Secret::new(KEY));
    settings.callback_keys = CALLBACK_KEYS.iter().map(|key| Secret::new(key)).collect();
    settings.products = ProductTable::new(vec![Product {
        country: "CN".to_owned(),
        carrier: "*".to_owned(),
        amount_minor: 5_000,
        currency: Currency::CNY,
        code: "4001".to_owned(),
        is_ranged: false,
    }]);
    settings
}

/// An adapter that has heard nothing yet.
pub(super) fn provider(kind: ProviderKind) -> Arc<dyn RechargeProvider> {
    provider_with(&settings(kind), StillClock::new())
}

pub(super) fn provider_with(settings: &ProviderSettings, clock: Arc<dyn Clock>) -> Arc<dyn RechargeProvider> {
    build(&ProviderId::new("one"), settings, clock).unwrap()
}

/// Long after every run.
const SEND_BY: Duration = Duration::from_secs(u64::MAX / 1_000);

pub(super) fn order() -> SubmitRequest {
    SubmitRequest {
        client_ref: ClientRef::from_stored(REFERENCE),
        msisdn: Msisdn::from_e164(NUMBER).unwrap(),
        amount: Money { minor: 5_000, currency: Currency::CNY },
        carrier: None,
        callback_url: Some("https://us.example/cb".to_owned()),
        sent_at: now(),
        send_by: SEND_BY,
    }
}

pub(super) fn question(provider_ref: Option<&str>, give_up: bool) -> QueryKey {
    QueryKey {
        client_ref: ClientRef::from_stored(REFERENCE),
        provider_ref: provider_ref.map(str::to_owned),
        sent_at: now(),
        give_up,
        send_by: SEND_BY,
    }
}
