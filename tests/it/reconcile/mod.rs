//! A provider's day against its own list: on both stores, through the command, and with every list that there is.

mod books;
mod command;
mod lists;
mod permits;

use std::collections::VecDeque;
use std::time::Duration;

pub(crate) use lists::get;

use async_trait::async_trait;
use chrono::{FixedOffset, Timelike as _};
use recharged::domain::{
    ClaimId, Decision, Input, Order, Policy, QueryOutcome, RetryAdvice, SubmitOutcome, Transition, decide,
};
use recharged::domain::{ClientRef, Currency, Failure, FailureClass, Money, OrderId, Receipt, Timestamp};
use recharged::ports::{Inserted, Listed, ListedState, Statement, StatementError, Store, Written};
use recharged::reconcile::Day;

use crate::store::fixture::{apply_one, id, insert_one, lane, load_one, new_order, policy};

/// The orders of these tests were claimed so long ago.
const AGO: Duration = Duration::from_secs(120);
/// Near enough to an edge for either day.
pub(crate) const SLACK: Duration = Duration::from_secs(10);

/// A list in memory.
#[derive(Debug)]
struct Lines(VecDeque<Vec<Listed>>);

impl Lines {
    fn of(lines: &[Listed]) -> Self {
        // In small pages, so that there are several.
        Self(lines.chunks(3).map(<[Listed]>::to_vec).collect())
    }
}

#[async_trait]
impl Statement for Lines {
    async fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StatementError> {
        Ok(self.0.pop_front())
    }
}

fn cny(minor: i64) -> Money {
    Money { minor, currency: Currency::parse("CNY").unwrap() }
}

/// A line about a reference, filed when our orders are.
fn line(reference: &str, state: ListedState, minor: Option<i64>, at: Timestamp) -> Listed {
    Listed {
        client_ref: ClientRef::from_stored(reference),
        state,
        amount: minor.map(cny),
        at: Some(at),
        provider_ref: None,
        place: 7,
    }
}

/// A zone in which it is about noon, in whole minutes.
pub(crate) fn zone_of_noon(now: Timestamp) -> FixedOffset {
    let minutes = i32::try_from(now.num_seconds_from_midnight() / 60).unwrap();
    FixedOffset::east_opt((12 * 60 - minutes) * 60).unwrap()
}

/// The day whose midnight was this long ago.
fn day_that_began(now: Timestamp, ago: Duration) -> Day {
    let midnight = now - ago;
    let seconds = i32::try_from(midnight.num_seconds_from_midnight()).unwrap();
    let offset = FixedOffset::east_opt(if seconds > 43_200 { 86_400 - seconds } else { -seconds }).unwrap();
    Day::new(midnight.with_timezone(&offset).date_naive(), offset, SLACK).unwrap()
}

/// Orders in their states, moved by the domain's own rules, all at one moment.
struct Books<'a> {
    store: &'a dyn Store,
    now: Timestamp,
    policy: Policy,
}

impl<'a> Books<'a> {
    async fn open(store: &'a dyn Store) -> Self {
        Self::open_with(store, policy()).await
    }

    async fn open_with(store: &'a dyn Store, policy: Policy) -> Self {
        let now = store.now().await.unwrap();
        Self { store, now, policy }
    }

    /// When all of it happens.
    fn at(&self) -> Timestamp {
        self.now - AGO
    }

    async fn tell(&self, order: &Order, input: &Input, at: Timestamp) -> Order {
        let Decision::Apply(next) = decide(Some(order), input, at, &self.policy) else {
            panic!("{input:?} of {order:?}")
        };
        assert_eq!(apply_one(self.store, &next).await, Written::Stored);
        next.after
    }

    async fn claimed_at(&self, order_id: &str, at: Timestamp) -> Order {
        let input = Input::Arrived { new: Box::new(new_order(order_id, self.at())), verdict: Ok(lane()) };
        let Decision::Apply(arrived) = decide(None, &input, self.at(), &self.policy) else { panic!("{order_id}") };
        assert_eq!(insert_one(self.store, &arrived).await, Inserted::Stored);
        self.tell(&arrived.after, &Input::Claim { claim_id: ClaimId::random() }, at).await
    }

    /// An open attempt.
    async fn sent(&self, order_id: &str) -> Order {
        self.claimed_at(order_id, self.at()).await
    }

    async fn reply(&self, order: &Order, outcome: SubmitOutcome) -> Order {
        let (attempt, claim_id) = (order.attempt_number(), order.attempt.as_ref().unwrap().claim_id);
        self.tell(order, &Input::SubmitReply { attempt, claim_id, outcome }, self.at()).await
    }

    async fn delivered(&self, order_id: &str) -> Order {
        let sent = self.sent(order_id).await;
        self.reply(&sent, SubmitOutcome::Succeeded(Receipt::default())).await
    }

    async fn declined(&self, order_id: &str) -> Order {
        let sent = self.sent(order_id).await;
        self.reply(&sent, SubmitOutcome::Rejected(no(RetryAdvice::Never))).await
    }

    /// Declined once, and delivered by the second attempt.
    async fn delivered_by_the_second(&self, order_id: &str) -> Order {
        let sent = self.sent(order_id).await;
        let waits = self.reply(&sent, SubmitOutcome::Rejected(no(RetryAdvice::NewAttempt { after: AGO / 60 }))).await;
        let wake = waits.wake_at.unwrap();
        let again = self.tell(&waits, &Input::Claim { claim_id: ClaimId::random() }, wake).await;
        assert_eq!(again.attempt_number(), 2);
        let input =
            Input::Reported { attempt: 2, asked_at: wake, outcome: QueryOutcome::Succeeded(Receipt::default()) };
        self.tell(&again, &input, wake).await
    }

    async fn row(&self, order_id: &str) -> Order {
        load_one(self.store, &id(order_id)).await.unwrap()
    }
}

fn no(advice: RetryAdvice) -> Failure {
    Failure { class: FailureClass::OperatorUnavailable, code: "E7".to_owned(), advice }
}

fn order_id(text: &str) -> OrderId {
    id(text)
}

/// Delivered orders, in batches as the service writes them.
async fn insert_delivered(books: &Books<'_>, names: &[String]) {
    let at = books.at();
    for batch in names.chunks(300) {
        let decided = |order: Option<&Order>, input: &Input| match decide(order, input, at, &books.policy) {
            Decision::Apply(transition) => *transition,
            Decision::Keep(why) => panic!("{input:?}: {why:?}"),
        };
        let arrived: Vec<Transition> = batch
            .iter()
            .map(|name| decided(None, &Input::Arrived { new: Box::new(new_order(name, at)), verdict: Ok(lane()) }))
            .collect();
        books.store.insert(&arrived).await.unwrap();
        let claim = |order: &Order| decided(Some(order), &Input::Claim { claim_id: ClaimId::random() });
        let claimed: Vec<Transition> = arrived.iter().map(|transition| claim(&transition.after)).collect();
        books.store.apply(&claimed).await.unwrap();
        let delivered = claimed.iter().map(|transition| {
            let outcome = QueryOutcome::Succeeded(Receipt::default());
            decided(Some(&transition.after), &Input::Reported { attempt: 1, asked_at: at, outcome })
        });
        books.store.apply(&delivered.collect::<Vec<_>>()).await.unwrap();
    }
}
