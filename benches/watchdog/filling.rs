//! A store as it is after some weeks: orders that the service's own rules have moved to their ends, and open
//! ones whose deadlines are near.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use recharged::clock::SystemClock;
use recharged::config::Config;
use recharged::domain::{
    ClaimId, Currency, Decision, Input, Money, NewOrder, Order, OrderId, Policy, ProviderId, Receipt, Recipient,
    SubmitOutcome, Timestamp, Transition, decide, plus,
};
use recharged::ports::{Inserted, Store, Written};
use recharged::store::{StoreOptions, open};
use sqlx::Row as _;

use crate::common::scratch::{LANE, Scratch};

/// So many closed orders come due in a second: a busy shop's.
const CLOSED_PER_SECOND: i64 = 500;
/// Nearly every order is closed long before its deadline, so closed ones come due as long as this from now, and the
/// watchdog passes over them; the older ones lie as far back as they are many.
const AHEAD: Duration = Duration::from_secs(180);
const BEHIND: Duration = Duration::from_secs(60);
/// Rows of one statement.
const CHUNK: i64 = 250_000;
const BATCH: usize = 500;
/// What tells one closed order from the next; everything else is as in the order that they are copies of.
const OWN: [&str; 7] = ["order_id", "payment_id", "created_at", "paid_at", "deadline_at", "claimed_at", "closed_at"];

/// Fills one store.
pub(crate) struct Filling<'a> {
    scratch: &'a Scratch,
    store: Arc<dyn Store>,
    policy: Policy,
    sla: Duration,
    /// When it began, and the deadline up to which there are closed orders.
    began_at: Timestamp,
    filled_to: Timestamp,
    /// Closed orders that come due before it began, and all.
    old: i64,
    filled: i64,
}

impl<'a> Filling<'a> {
    pub(crate) async fn begin(scratch: &'a Scratch, config: &Config) -> Result<Self> {
        let store = open(config.store.url.expose(), &StoreOptions::default()).await.context("the store")?;
        let began_at = minus(SystemClock::local(), BEHIND)?;
        let (policy, sla) = (config.policy(), config.sla.deadline.get());
        let filling = Self { scratch, store, policy, sla, began_at, filled_to: began_at, old: 0, filled: 0 };
        filling.template().await?;
        Ok(filling)
    }

    /// One order that was paid, sent and delivered, by the rules themselves.
    async fn template(&self) -> Result<()> {
        let now = self.store.now().await?;
        let arrived = self.arrive("20260101110000000", now)?;
        self.insert(std::slice::from_ref(&arrived)).await?;
        let claimed = self.step(&arrived.after, &Input::Claim { claim_id: ClaimId::random() }, now)?;
        self.apply(std::slice::from_ref(&claimed)).await?;
        let attempt = claimed.after.attempt.as_ref().context("an attempt")?;
        let receipt = Receipt { provider_ref: Some("p-20260101110000000-1".to_owned()), ..Receipt::default() };
        let reply = Input::SubmitReply {
            attempt: attempt.number,
            claim_id: attempt.claim_id,
            outcome: SubmitOutcome::Succeeded(receipt),
        };
        let done = self.step(&claimed.after, &reply, now)?;
        self.apply(std::slice::from_ref(&done)).await
    }

    /// Copies the template until there are about `closed` of it; returns how long that took.
    pub(crate) async fn fill(&mut self, closed: i64) -> Result<Duration> {
        let began = Instant::now();
        let copied = self.copied_columns().await?;
        let mut left = closed - self.filled - self.lately();
        while left > 0 {
            let chunk = left.min(CHUNK);
            self.copy(&copied, chunk, self.began_at, -1, self.old).await?;
            self.old += chunk;
            left -= chunk;
        }
        // Last, since time has passed meanwhile.
        let until = plus(SystemClock::local(), AHEAD);
        self.copy(&copied, self.lately(), self.filled_to, 1, 0).await?;
        self.filled_to = until;
        self.scratch.run("analyze orders").await?;
        // Pages are written and their rows known to be visible, as they are after weeks.
        self.scratch.run("vacuum orders").await?;
        self.scratch.checkpoint().await?;
        Ok(began.elapsed())
    }

    /// Closed orders that come due around now, and are not there yet.
    fn lately(&self) -> i64 {
        (plus(SystemClock::local(), AHEAD) - self.filled_to).num_seconds().max(0) * CLOSED_PER_SECOND
    }

    /// How many closed orders there are.
    pub(crate) const fn filled(&self) -> i64 {
        self.filled
    }

    async fn copied_columns(&self) -> Result<String> {
        let statement = "select column_name::text from information_schema.columns \
                         where table_name = 'orders' order by ordinal_position";
        let columns = self.scratch.rows(statement).await?;
        let columns: Vec<String> = columns.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let copied: Vec<&str> = columns.iter().map(String::as_str).filter(|column| !OWN.contains(column)).collect();
        ensure!(copied.len() + OWN.len() == columns.len(), "the table of orders has other columns: {columns:?}");
        Ok(copied.join(", "))
    }

    /// So many orders, due one after the other from `from` on, forwards or backwards, `skip` of them left out.
    async fn copy(&mut self, copied: &str, count: i64, from: Timestamp, sign: i64, skip: i64) -> Result<()> {
        let (own, sla, first) = (OWN.join(", "), self.sla.as_secs(), self.filled);
        let from = from.to_rfc3339();
        let statement = format!(
            "insert into orders ({copied}, {own}) \
             select {copied}, '3026' || lpad((n + {first})::text, 14, '0'), 'pay-3026' || lpad((n + {first})::text, 14, '0'), \
                    due - within, due - within, due, due - within, due - within + interval '2 seconds' \
             from (select * from orders where order_id = '20260101110000000') as template, \
                  (select n, interval '{sla} seconds' as within, \
                          date_trunc('milliseconds', timestamptz '{from}' \
                              + interval '1 second' * ({sign} * (n + {skip}) / {CLOSED_PER_SECOND}.0)) as due \
                   from generate_series(1, {count}) as n) as own"
        );
        self.scratch.run(&statement).await.context("the closed orders")?;
        self.filled += count;
        Ok(())
    }

    /// The mark where a watchdog that has run until now would have it.
    pub(crate) async fn set_mark(&self) -> Result<()> {
        self.scratch.run("update watchdog set low_water = clock_timestamp() - interval '6 seconds'").await
    }

    /// Open orders whose deadlines come one after the other: nine of ten wait in their lane, of the rest half
    /// are with the provider and half are not paid. Returns their deadlines by their numbers.
    pub(crate) async fn open(&self, count: usize, first_in: Duration, within: Duration) -> Result<Vec<Timestamp>> {
        let first = plus(SystemClock::local(), first_in);
        let step = within.div_f64(crate::common::round::count(count.max(1)));
        let mut deadlines = Vec::with_capacity(count);
        let numbers: Vec<usize> = (0..count).collect();
        for batch in numbers.chunks(BATCH) {
            let (mut arrived, mut claimed) = (Vec::with_capacity(batch.len()), Vec::new());
            for &number in batch {
                let due = plus(first, step.mul_f64(crate::common::round::count(number)));
                let transition = self.arrive_due(number, due)?;
                deadlines.push(transition.after.deadline_at);
                if number % 20 == 3 {
                    let claim = Input::Claim { claim_id: ClaimId::random() };
                    claimed.push(self.step(&transition.after, &claim, transition.after.created_at)?);
                }
                arrived.push(transition);
            }
            self.insert(&arrived).await?;
            if !claimed.is_empty() {
                self.apply(&claimed).await?;
            }
        }
        Ok(deadlines)
    }

    fn arrive_due(&self, number: usize, due: Timestamp) -> Result<Transition> {
        let id = open_id(number);
        if number % 20 == 13 {
            let created = minus(due, self.policy.unpaid_timeout)?;
            let new = NewOrder { paid_at: None, payment_id: None, ..new_order(&id, created)? };
            return self.arrived(new, created);
        }
        self.arrive(&id, minus(due, self.sla)?)
    }

    fn arrive(&self, id: &str, at: Timestamp) -> Result<Transition> {
        self.arrived(new_order(id, at)?, at)
    }

    fn arrived(&self, new: NewOrder, at: Timestamp) -> Result<Transition> {
        let input = Input::Arrived { new: Box::new(new), verdict: Ok(ProviderId::new(LANE)) };
        applied(decide(None, &input, at, &self.policy))
    }

    fn step(&self, order: &Order, input: &Input, at: Timestamp) -> Result<Transition> {
        applied(decide(Some(order), input, at, &self.policy))
    }

    async fn insert(&self, arrived: &[Transition]) -> Result<()> {
        let answers = self.store.insert(arrived).await?;
        ensure!(answers.iter().all(|answer| *answer == Inserted::Stored), "an order was there already");
        Ok(())
    }

    async fn apply(&self, moved: &[Transition]) -> Result<()> {
        let answers = self.store.apply(moved).await?;
        ensure!(answers.iter().all(|answer| *answer == Written::Stored), "an order was moved by somebody else");
        Ok(())
    }
}

/// The id of open order `number`.
pub(crate) fn open_id(number: usize) -> String {
    format!("2026010112{number:08}")
}

fn new_order(id: &str, at: Timestamp) -> Result<NewOrder> {
    Ok(NewOrder {
        order_id: OrderId::parse(id).ok().context("an order id")?,
        recipient: Recipient::read("+8613800000017", None),
        amount: Money { minor: 5000, currency: Currency::parse("CNY").ok().context("a currency")? },
        carrier: Some("china-mobile".into()),
        created_at: at,
        paid_at: Some(at),
        payment_id: Some(format!("pay-{id}").into()),
        notify: false,
        metadata: None,
        phone_hash: Some("AAAAAAAAAAAAAAAAAAAAAA".into()),
    })
}

fn applied(decision: Decision) -> Result<Transition> {
    match decision {
        Decision::Apply(transition) => Ok(*transition),
        Decision::Keep(why) => bail!("the order was kept: {why:?}"),
    }
}

fn minus(at: Timestamp, span: Duration) -> Result<Timestamp> {
    at.checked_sub_signed(chrono::TimeDelta::from_std(span)?).context("a time")
}
