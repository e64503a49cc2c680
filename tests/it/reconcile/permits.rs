//! The calls of a list and the recharges share one quota, on both stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use recharged::domain::{ProviderId, plus};
use recharged::ports::{ListPermits as _, PermitClass, QuotaTerms, Reservation, StatementTrouble, Store};
use recharged::reconcile::QuotaPermits;

use crate::store::on_every_adapter;
use crate::store::place::Place;

on_every_adapter!(
    permits_of_a_list_come_out_of_the_quota_of_recharges,
    a_list_waits_for_a_quota_that_rests_and_may_let_it_rest,
);

const INTERVAL: Duration = Duration::from_millis(200);
const TERMS: QuotaTerms = QuotaTerms { interval: INTERVAL, burst: 1, query_share: 0.2, retry_share: 0.2 };

fn provider() -> ProviderId {
    ProviderId::new("listed")
}

fn permits(store: &Arc<dyn Store>) -> QuotaPermits {
    QuotaPermits::new(store, provider(), TERMS)
}

/// What recharges get of the quota, asking for more than there is until it is over.
async fn recharges(store: &Arc<dyn Store>, until: Instant) -> usize {
    let reservation = Reservation { provider: provider(), class: PermitClass::Fresh, wanted: 50, terms: TERMS };
    let mut all = 0;
    while Instant::now() < until {
        all += store.reserve(&reservation).await.unwrap().send_at.len();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    all
}

async fn permits_of_a_list_come_out_of_the_quota_of_recharges(place: &Place) {
    let began = Instant::now();
    let until = began + INTERVAL * 20;
    let list = async {
        let (permits, mut calls) = (permits(&place.store), 0);
        while Instant::now() < until {
            permits.wait().await.unwrap();
            calls += 1;
        }
        calls
    };
    let (recharged, calls) = tokio::join!(recharges(&place.store, until), list);
    let most = usize::try_from(began.elapsed().as_millis() / INTERVAL.as_millis()).unwrap() + 2;
    assert!(recharged + calls <= most, "{recharged} recharges and {calls} calls, {most} in all are allowed");
    assert!(calls >= 2 && recharged >= 2, "neither keeps the other from all: {recharged} recharges, {calls} calls");
}

async fn a_list_waits_for_a_quota_that_rests_and_may_let_it_rest(place: &Place) {
    let (store, permits) = (place.store.as_ref(), permits(&place.store));
    permits.wait().await.unwrap();
    let until = plus(store.now().await.unwrap(), Duration::from_secs(1));
    store.pause(&provider(), until).await.unwrap();
    permits.wait().await.unwrap();
    assert!(store.now().await.unwrap() >= until, "it rested");
    permits.rest(Duration::from_mins(1)).await.unwrap();
    let reservation = Reservation { provider: provider(), class: PermitClass::Fresh, wanted: 1, terms: TERMS };
    assert!(store.reserve(&reservation).await.unwrap().send_at.is_empty(), "nobody's calls leave");
    // For an hour nobody waits.
    permits.rest(Duration::from_hours(1)).await.unwrap();
    let error = permits.wait().await.unwrap_err();
    assert_eq!(error.trouble, StatementTrouble::Away);
    assert!(error.to_string().starts_with("providers.listed.quota: it has no permit for the list before "), "{error}");
}
