//! The laws of the quota, under several askers at once, on the store's own clock.

use std::sync::Arc;
use std::time::Duration;

use recharged::domain::{ProviderId, Timestamp};
use recharged::ports::{Grant, PermitClass, QuotaTerms, Reservation, Store};

use super::on_every_adapter;
use super::place::Place;
use crate::pace::{at_least, is_quiet};

on_every_adapter!(
    no_window_ever_holds_more_than_its_rate_and_the_burst,
    a_fast_quota_is_used_to_the_full,
    one_permit_a_second_with_a_burst_of_one,
    a_greedy_class_leaves_the_others_their_share,
    a_class_alone_has_everything,
    what_others_leave_is_not_lost,
    what_others_leave_is_lent_before_a_whole_burst_has_gathered,
    a_pause_stops_everything_and_is_never_shortened,
    providers_do_not_share_a_quota,
);

fn terms(per_second: f64, burst: u32) -> QuotaTerms {
    let interval = Duration::from_secs_f64(1.0 / per_second);
    QuotaTerms { interval, burst, query_share: 0.2, retry_share: 0.2 }
}

fn ask(provider: &str, class: PermitClass, wanted: u32, terms: QuotaTerms) -> Reservation {
    Reservation { provider: ProviderId::new(provider), class, wanted, terms }
}

/// Asks for `wanted` at a time whenever it makes sense, until `until`; returns the send times
/// before it.
async fn use_quota(store: Arc<dyn Store>, reservation: Reservation, until: Timestamp) -> Vec<Timestamp> {
    let mut sends = Vec::new();
    loop {
        let now = store.now().await.unwrap();
        if now >= until {
            sends.retain(|at| *at < until);
            return sends;
        }
        let grant = store.reserve(&reservation).await.unwrap();
        assert!(grant.send_at.is_sorted(), "send times rise");
        let ahead = reservation.terms.interval.max(Duration::from_millis(100));
        let received = store.now().await.unwrap();
        for at in &grant.send_at {
            assert!(*at >= now && *at <= received + ahead, "{at} is inside the horizon");
        }
        let short = grant.send_at.len() < usize::try_from(reservation.wanted).unwrap();
        assert_eq!(grant.ask_again_at.is_some(), short);
        sends.extend(grant.send_at);
        if let Some(again) = grant.ask_again_at {
            assert!(again > now, "asking again makes sense only later");
            let wait = (again.min(until) - received).to_std().unwrap_or_default();
            tokio::time::sleep(wait).await;
        }
    }
}

/// `n` permits take at least `(n − burst)` intervals; a µs is lost to rounding.
fn assert_within_quota(mut sends: Vec<Timestamp>, terms: QuotaTerms) {
    sends.sort();
    let (interval, burst) = (terms.interval.as_nanos(), terms.burst as usize);
    for (first, from) in sends.iter().enumerate() {
        // Longer windows follow from these: the law of the rate is a law of neighbours.
        for span in [burst, burst + 1, burst * 2 + 1, burst + 50, burst + 500] {
            let Some(to) = sends.get(first + span) else { break };
            let window = (*to - *from).to_std().unwrap().as_nanos() + 1_000;
            let least = interval * (span + 1 - burst) as u128;
            assert!(window >= least, "{} permits within {window} ns, {least} at least", span + 1);
        }
    }
}

/// What was used of a quota: the share that is promised, or two fifths beside other work. A stall of
/// the machine loses what nobody asked for meanwhile, but for the burst.
fn used(what: &str, sends: &[Timestamp], most: f64, promised: f64) {
    at_least(what, sends.len(), most * promised, most * 0.4);
}

async fn several(place: &Place, asks: Vec<Reservation>, seconds: u64) -> Vec<Vec<Timestamp>> {
    let until = place.store.now().await.unwrap() + Duration::from_secs(seconds);
    let tasks: Vec<_> =
        asks.into_iter().map(|ask| tokio::spawn(use_quota(Arc::clone(&place.store), ask, until))).collect();
    let mut sends = Vec::new();
    for task in tasks {
        sends.push(task.await.unwrap());
    }
    sends
}

async fn no_window_ever_holds_more_than_its_rate_and_the_burst(place: &Place) {
    for (per_second, burst) in [(333.0, 1), (700.0, 25)] {
        let name = format!("p-{burst}");
        let terms = terms(per_second, burst);
        let asks = (0..6).map(|n| {
            let class = PermitClass::ALL[n % 3];
            ask(&name, class, 1 + u32::try_from(n * n).unwrap(), terms)
        });
        let sends = several(place, asks.collect(), 2).await.concat();
        let most = per_second * 2.0 + f64::from(burst);
        assert!(sends.len() as f64 <= most + 1.0, "{} of {most}", sends.len());
        used(&name, &sends, most, 0.8);
        assert_within_quota(sends, terms);
    }
}

async fn a_fast_quota_is_used_to_the_full(place: &Place) {
    let terms = terms(5_000.0, 1);
    let asks = (0..3).map(|_| ask("fast", PermitClass::Fresh, 400, terms)).collect();
    let sends = several(place, asks, 2).await.concat();
    used("fast", &sends, 10_000.0, 0.95);
    assert_within_quota(sends, terms);
}

async fn one_permit_a_second_with_a_burst_of_one(place: &Place) {
    let terms = terms(1.0, 1);
    let asks = vec![ask("slow", PermitClass::Fresh, 3, terms), ask("slow", PermitClass::Query, 1, terms)];
    let sends = several(place, asks, 4).await.concat();
    assert!(sends.len() <= 5, "{sends:?}");
    at_least("one a second, in four seconds", sends.len(), 4.0, 2.0);
    assert_within_quota(sends, terms);
}

async fn a_greedy_class_leaves_the_others_their_share(place: &Place) {
    let terms = terms(500.0, 5);
    let asks = vec![
        ask("shared", PermitClass::Fresh, 500, terms),
        ask("shared", PermitClass::Fresh, 500, terms),
        ask("shared", PermitClass::Retry, 500, terms),
        ask("shared", PermitClass::Query, 50, terms),
    ];
    let sends = several(place, asks, 4).await;
    let [fresh, retry, query] = [sends[0].len() + sends[1].len(), sends[2].len(), sends[3].len()];
    let total = fresh + retry + query;
    println!("fresh {fresh}, retry {retry}, query {query}");
    at_least("all together", total, 1_900.0, 1_000.0);
    // A second's grace, in which the classes take notice of each other.
    for (class, count, share) in [("fresh", fresh, 0.6), ("retry", retry, 0.2), ("query", query, 0.2)] {
        let least = 500.0 * 3.0 * share;
        at_least(class, count, least * 0.9, least * 0.5);
    }
    assert_within_quota(sends.concat(), terms);
}

async fn a_class_alone_has_everything(place: &Place) {
    let terms = terms(1_000.0, 1);
    let sends = several(place, vec![ask("alone", PermitClass::Query, 1_000, terms)], 2).await.concat();
    used("alone", &sends, 2_000.0, 0.95);
    assert_within_quota(sends, terms);
}

/// A class that asks now and then keeps its share only as long as it takes it.
async fn what_others_leave_is_not_lost(place: &Place) {
    let terms = terms(500.0, 5);
    let store = Arc::clone(&place.store);
    let until = store.now().await.unwrap() + Duration::from_secs(3);
    let modest = tokio::spawn(async move {
        let mut got = 0;
        while store.now().await.unwrap() < until {
            got += store.reserve(&ask("lent", PermitClass::Query, 1, terms)).await.unwrap().send_at.len();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        got
    });
    let greedy = use_quota(Arc::clone(&place.store), ask("lent", PermitClass::Fresh, 300, terms), until).await;
    let modest = modest.await.unwrap();
    at_least("the modest class gets what it asks for", modest, 20.0, 7.0);
    at_least("the greedy one gets the rest", greedy.len(), 1_350.0, 750.0);
    assert_within_quota(greedy, terms);
}

/// A large burst is no reason to hold back what another class does not take.
async fn what_others_leave_is_lent_before_a_whole_burst_has_gathered(place: &Place) {
    let terms = terms(200.0, 200);
    // Some of a tenth of a second, which the other class might have taken ahead, is not lent. A
    // machine that is held up in this one second spoils a try; what is not lent spoils each.
    let enough = if is_quiet() { 170 } else { 150 };
    let mut best = 0;
    for number in 0..5 {
        let name = format!("burst-{number}");
        // The burst is spent, and the other class has asked just now.
        let store = place.store.as_ref();
        while !store.reserve(&ask(&name, PermitClass::Fresh, 50, terms)).await.unwrap().send_at.is_empty() {}
        store.reserve(&ask(&name, PermitClass::Retry, 1, terms)).await.unwrap();
        let until = store.now().await.unwrap() + Duration::from_secs(1);
        let sends = use_quota(Arc::clone(&place.store), ask(&name, PermitClass::Fresh, 100, terms), until).await;
        println!("{} of 200", sends.len());
        best = best.max(sends.len());
        if best >= enough || is_quiet() {
            break;
        }
    }
    assert!(best >= enough, "{best} of 200, at least {enough}");
}

async fn a_pause_stops_everything_and_is_never_shortened(place: &Place) {
    let store = place.store.as_ref();
    let provider = ProviderId::new("paused");
    let until = store.now().await.unwrap() + Duration::from_secs(2);
    store.pause(&provider, until).await.unwrap();
    store.pause(&provider, until - Duration::from_secs(1)).await.unwrap();
    let reservation = ask("paused", PermitClass::Fresh, 10, terms(100.0, 10));
    let grant = store.reserve(&reservation).await.unwrap();
    assert_eq!(grant, Grant { send_at: Vec::new(), ask_again_at: Some(until) });
    let longer = until + Duration::from_millis(100);
    store.pause(&provider, longer).await.unwrap();
    assert_eq!(store.reserve(&reservation).await.unwrap().ask_again_at, Some(longer));
    while store.now().await.unwrap() < longer {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.reserve(&reservation).await.unwrap().send_at.len(), 10);
}

async fn providers_do_not_share_a_quota(place: &Place) {
    let terms = terms(1.0, 1);
    for provider in ["one", "another"] {
        let grant = place.store.reserve(&ask(provider, PermitClass::Fresh, 1, terms)).await.unwrap();
        assert_eq!(grant.send_at.len(), 1, "{provider}");
    }
}
