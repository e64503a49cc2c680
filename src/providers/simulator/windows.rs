//! What strikes everybody for a while: outages, an empty float, a ban, a freeze.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The state of the provider as a whole.
#[derive(Debug)]
pub(super) struct Windows {
    /// While it lies ahead, nothing listens.
    outage: watch::Sender<Option<Instant>>,
    /// Everything hangs, but the administration.
    frozen: watch::Sender<bool>,
    rest: Mutex<Rest>,
}

#[derive(Debug, Default)]
struct Rest {
    queries_down_until: Option<Instant>,
    float_empty_until: Option<Instant>,
    banned_until: Option<Instant>,
    /// Our balance at the provider, in minor units of whatever currency; `None`: without end.
    balance: Option<i64>,
}

/// Why our money there does not cover a recharge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncovered {
    /// For a while it covers nothing.
    Empty,
    /// The balance is too low.
    Balance,
}

impl Windows {
    pub(super) fn new(balance: Option<i64>) -> Self {
        let rest = Mutex::new(Rest { balance, ..Rest::default() });
        Self { outage: watch::Sender::new(None), frozen: watch::Sender::new(false), rest }
    }

    fn rest<T>(&self, with: impl FnOnce(&mut Rest) -> T) -> T {
        with(&mut self.rest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets nothing listen for so long. One that is under way already ends when the later one does.
    pub(super) fn open_outage(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.outage.send_modify(|open| *open = Some(open.map_or(until, |open| open.max(until))));
    }

    /// Hears of outages.
    pub(super) fn outages(&self) -> watch::Receiver<Option<Instant>> {
        self.outage.subscribe()
    }

    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Returns at once, unless frozen.
    pub(super) async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        // Its sender lives as long as we do.
        let _closed = frozen.wait_for(|frozen| !frozen).await;
    }

    pub(super) fn open_query_outage(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.rest(|rest| rest.queries_down_until = rest.queries_down_until.max(Some(until)));
    }

    pub(super) fn queries_are_down(&self) -> bool {
        self.rest(|rest| rest.queries_down_until.is_some_and(|until| Instant::now() < until))
    }

    pub(super) fn empty_float(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.rest(|rest| rest.float_empty_until = rest.float_empty_until.max(Some(until)));
    }

    /// Refuses everything for so long. One that is under way already ends when the later one does.
    pub(super) fn ban(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        self.rest(|rest| rest.banned_until = rest.banned_until.max(Some(until)));
    }

    pub(super) fn lift_ban(&self) {
        self.rest(|rest| rest.banned_until = None);
    }

    /// How much of a ban is left.
    pub(super) fn banned_for(&self) -> Option<Duration> {
        let until = self.rest(|rest| rest.banned_until)?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    pub(super) fn balance(&self) -> Option<i64> {
        self.rest(|rest| rest.balance)
    }

    /// Raising it also ends a time in which it covers nothing.
    pub(super) fn set_balance(&self, balance: Option<i64>) {
        self.rest(|rest| (rest.balance, rest.float_empty_until) = (balance, None));
    }

    /// Takes the price of a recharge, or says why not. A script sees no empty float.
    pub(super) fn hold(&self, minor: i64, is_scripted: bool) -> Result<(), Uncovered> {
        self.rest(|rest| {
            if !is_scripted && rest.float_empty_until.is_some_and(|until| Instant::now() < until) {
                return Err(Uncovered::Empty);
            }
            match &mut rest.balance {
                Some(balance) if *balance < minor => Err(Uncovered::Balance),
                Some(balance) => {
                    *balance -= minor;
                    Ok(())
                }
                None => Ok(()),
            }
        })
    }

    /// Takes a price, covered or not: what was delivered is to be paid for.
    pub(super) fn charge(&self, minor: i64) {
        self.rest(|rest| rest.balance = rest.balance.map(|balance| balance.saturating_sub(minor)));
    }

    /// Gives it back.
    pub(super) fn release(&self, minor: i64) {
        self.rest(|rest| rest.balance = rest.balance.map(|balance| balance.saturating_add(minor)));
    }
}
