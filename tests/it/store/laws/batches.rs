//! Inserting: once each, and answers in the order of the batch.

use std::sync::Arc;

use recharged::domain::{Currency, Money, Recipient};
use recharged::ports::{Inserted, Loaded, Written};

use super::super::fixture::{arrive, arrive_hopeless, claim, id, insert_one, load_one, new_order};
use super::super::on_every_adapter;
use super::super::place::Place;

on_every_adapter!(
    a_new_order_reads_back_as_it_was_decided,
    an_empty_batch_is_answered_with_nothing,
    an_order_that_is_there_is_answered_with_its_row,
    of_several_of_one_id_in_a_batch_the_first_stands,
    of_several_moves_of_one_order_in_a_batch_the_first_stands,
    eight_writers_at_once_store_each_order_once,
    a_text_with_nul_does_not_fail_its_batch,
);

async fn a_new_order_reads_back_as_it_was_decided(place: &Place) {
    let now = place.store.now().await.unwrap();
    let paid = new_order("paid", now);
    let unpaid = recharged::domain::NewOrder { paid_at: None, payment_id: None, ..new_order("unpaid", now) };
    let told = recharged::domain::NewOrder {
        notify: true,
        metadata: Some(r#"{"note":"it's \"quoted\" \u0000 ✓"}"#.into()),
        carrier: None,
        ..new_order("told", now)
    };
    let hopeless = recharged::domain::NewOrder {
        recipient: Recipient::from_stored("?not a number"),
        amount: Money { minor: 0, currency: Currency::parse("CNY").unwrap() },
        ..new_order("hopeless", now)
    };
    let batch = [arrive(paid, now), arrive(unpaid, now), arrive(told, now), arrive_hopeless(hopeless, now)];
    assert_eq!(place.store.insert(&batch).await.unwrap(), vec![Inserted::Stored; 4]);
    let ids = [id("told"), id("nobody"), id("hopeless"), id("paid"), id("unpaid")];
    let loaded = place.store.load(&ids).await.unwrap();
    let row = |of: usize| Loaded::Order(batch[of].after.clone());
    assert_eq!(loaded, [row(2), Loaded::Absent, row(3), row(0), row(1)]);
    let logged = |of: usize| vec![batch[of].event.clone()];
    assert_eq!(
        place.store.timelines(&ids).await.unwrap(),
        [logged(2), Vec::new(), logged(3), logged(0), logged(1)],
        "each one's entries, of a batch that holds all of them"
    );
    assert!(place.store.timelines(&[]).await.unwrap().is_empty());
    let refunds = place.refunds().await;
    assert_eq!(refunds.iter().map(|refund| refund.order_id.as_str()).collect::<Vec<_>>(), ["hopeless"]);
}

async fn an_empty_batch_is_answered_with_nothing(place: &Place) {
    assert!(place.store.insert(&[]).await.unwrap().is_empty());
    assert!(place.store.apply(&[]).await.unwrap().is_empty());
    assert!(place.store.load(&[]).await.unwrap().is_empty());
}

async fn an_order_that_is_there_is_answered_with_its_row(place: &Place) {
    let now = place.store.now().await.unwrap();
    let first = arrive(new_order("twice", now), now);
    assert_eq!(insert_one(place.store.as_ref(), &first).await, Inserted::Stored);
    let mut other = new_order("twice", now);
    other.amount.minor = 9900;
    let batch = [arrive(new_order("a", now), now), arrive(other, now), arrive(new_order("z", now), now)];
    let answers = place.store.insert(&batch).await.unwrap();
    assert_eq!(answers, [Inserted::Stored, Inserted::Exists(Box::new(first.after.clone())), Inserted::Stored]);
    assert_eq!(place.store.timeline(&id("twice")).await.unwrap().len(), 1);
}

async fn of_several_of_one_id_in_a_batch_the_first_stands(place: &Place) {
    let now = place.store.now().await.unwrap();
    let first = arrive(new_order("twice", now), now);
    let mut other = new_order("twice", now);
    other.amount.minor = 9900;
    let batch = [arrive(new_order("z", now), now), first.clone(), arrive(other, now)];
    let answers = place.store.insert(&batch).await.unwrap();
    assert_eq!(answers, [Inserted::Stored, Inserted::Stored, Inserted::Exists(Box::new(first.after.clone()))]);
    assert_eq!(load_one(place.store.as_ref(), &id("twice")).await, Some(first.after));
}

async fn of_several_moves_of_one_order_in_a_batch_the_first_stands(place: &Place) {
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let arrived = arrive(new_order("moved-twice", now), now);
    insert_one(store, &arrived).await;
    let (first, second) = (claim(&arrived.after, now), claim(&arrived.after, now));
    let written = store.apply(&[first.clone(), second]).await.unwrap();
    assert_eq!(written, [Written::Stored, Written::Overtaken]);
    assert_eq!(load_one(store, &first.after.order_id).await, Some(first.after));
}

async fn eight_writers_at_once_store_each_order_once(place: &Place) {
    let now = place.store.now().await.unwrap();
    let ids: Vec<String> = (0..120).map(|n| format!("shared-{n}")).collect();
    let mut writers = Vec::new();
    for writer in 0..8_usize {
        let (store, ids) = (Arc::clone(&place.store), ids.clone());
        writers.push(tokio::spawn(async move {
            let mut stored = 0;
            let mut mine = ids;
            mine.rotate_left(writer * 15);
            for chunk in mine.chunks(20) {
                let batch: Vec<_> = chunk
                    .iter()
                    .map(|order_id| {
                        let mut new = new_order(order_id, now);
                        new.payment_id = Some(format!("of writer {writer}").into());
                        arrive(new, now)
                    })
                    .collect();
                let answers = store.insert(&batch).await.unwrap();
                for (answer, transition) in answers.iter().zip(&batch) {
                    match answer {
                        Inserted::Stored => stored += 1,
                        Inserted::Exists(order) => assert_eq!(order.order_id, transition.after.order_id),
                        Inserted::Unreadable(why) => panic!("{why}"),
                    }
                }
            }
            stored
        }));
    }
    let mut stored = 0;
    for writer in writers {
        stored += writer.await.unwrap();
    }
    assert_eq!(stored, 120);
    assert_eq!(place.orders().await, 120);
    assert_eq!(place.entries().await.len(), 120);
}

async fn a_text_with_nul_does_not_fail_its_batch(place: &Place) {
    let now = place.store.now().await.unwrap();
    let mut new = new_order("nul", now);
    new.payment_id = Some("a\0b".into());
    // What only looks like NUL stays as it is.
    new.metadata = Some(r#"{"note":"\u0000"}"#.into());
    let batch = [arrive(new, now), arrive(new_order("fine", now), now)];
    assert_eq!(place.store.insert(&batch).await.unwrap(), vec![Inserted::Stored; 2]);
    // Nor does it spoil the log of its neighbours, or of its own order.
    for id in [id("nul"), id("fine")] {
        assert_eq!(place.store.timeline(&id).await.unwrap().len(), 1, "{id}");
    }
    assert_eq!(place.entries().await.len(), 2);
    let logged = place.store.timeline(&id("nul")).await.unwrap().remove(0);
    assert_eq!(logged.data.metadata, batch[0].event.data.metadata);
}
