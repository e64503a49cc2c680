//! The table against a map, and what two lines about one reference make.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::ClientRef;

fn listed(reference: &str, state: ListedState, place: u64) -> Listed {
    Listed { client_ref: ClientRef::from_stored(reference), state, amount: None, at: None, provider_ref: None, place }
}

/// Ids that look like references of others.
fn ids() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{1,2}", "[a-c]-[0-9]{1,2}", "[a-c]-[0-9]-[0-9]"]
}

proptest! {
    #[test]
    fn every_reference_is_found_where_it_was_put_and_nothing_else(
        claims in prop::collection::vec((ids(), 1_u16..12, any::<bool>()), 1..60),
        strangers in prop::collection::btree_set("[a-c]-[0-9]{1,2}|R[0-9A-C]{2}", 0..20),
    ) {
        let mut table = Attempts::default();
        let mut known: BTreeMap<String, (String, u16)> = BTreeMap::new();
        for (order_id, attempt, hashed) in &claims {
            let reference = if *hashed { format!("R{order_id}x{attempt}") } else { format!("{order_id}-{attempt}") };
            let kept = hashed.then_some(reference.as_str());
            table.claim((order_id, *attempt, kept), Timestamp::UNIX_EPOCH, (true, true)).unwrap();
            known.entry(reference).or_insert((order_id.clone(), *attempt));
        }
        prop_assert_eq!(table.len(), known.len(), "one place for each, however often it was claimed");
        for stranger in &strangers {
            if table.find(stranger).is_none() {
                table.add_stranger(stranger).unwrap();
            }
        }
        for (reference, (order_id, attempt)) in &known {
            let slot = table.get(table.find(reference).unwrap()).unwrap();
            prop_assert_eq!(slot.attempt, *attempt);
            prop_assert_eq!(table.order_id(slot), OrderId::parse(order_id).ok());
            prop_assert_eq!(&table.client_ref(slot), reference);
        }
        for stranger in strangers.iter().filter(|stranger| !known.contains_key(*stranger)) {
            let at = table.find(stranger).unwrap();
            prop_assert_eq!(table.get(at).unwrap().attempt, 0);
            prop_assert!(table.order_id(table.get(at).unwrap()).is_none());
            table.adopt(at, "adopted", 3).unwrap();
            prop_assert_eq!(table.find(stranger), Some(at));
            let slot = table.get(at).unwrap();
            prop_assert_eq!(table.order_id(slot), OrderId::parse("adopted").ok());
            prop_assert_eq!(&table.client_ref(slot), stranger);
        }
        prop_assert_eq!(table.find("nobody-1"), None);
    }
}

#[test]
fn of_several_lines_the_later_state_stands_and_what_cannot_be_is_a_clash() {
    use ListedState::{Delivered, Failed, InProgress, Reversed, Unknown};
    let noted = |states: &[ListedState]| {
        let mut table = Attempts::default();
        table.claim(("o", 1, None), Timestamp::UNIX_EPOCH, (true, true)).unwrap();
        let mut last = Ok(Noted::First);
        for (place, state) in (2..).zip(states) {
            last = table.note(0, &listed("o-1", *state, place), true);
        }
        (table.get(0).unwrap().there.unwrap(), last.map_err(|clash| clash.first))
    };
    for (states, stands) in [
        (&[Delivered, Delivered][..], Delivered),
        (&[InProgress, Delivered], Delivered),
        (&[Delivered, InProgress], Delivered),
        (&[Delivered, Reversed], Reversed),
        (&[Reversed, Delivered], Reversed),
        (&[Unknown, Failed], Failed),
    ] {
        assert_eq!(noted(states), (stands, Ok(Noted::Repeated)), "{states:?}");
    }
    assert_eq!(noted(&[Delivered, Failed]).1, Err(2));
    assert_eq!(noted(&[Failed, Delivered]).1, Err(2));
    let mut table = Attempts::default();
    table.claim(("o", 1, None), Timestamp::UNIX_EPOCH, (true, true)).unwrap();
    let with = |provider_ref: &str, minor, place| Listed {
        provider_ref: Some(provider_ref.to_owned()),
        amount: Some(Money { minor, currency: Currency::CNY }),
        ..listed("o-1", Delivered, place)
    };
    table.note(0, &with("S1", 5, 2), true).unwrap();
    assert!(table.note(0, &with("S1", 5, 3), true).is_ok());
    let twice = table.note(0, &with("S2", 5, 4), true).unwrap_err();
    assert!(twice.why.contains("twice"), "{twice:?}");
    assert!(table.note(0, &with("S1", 6, 5), true).unwrap_err().why.contains("amount"));
}

#[test]
fn an_attempt_takes_so_many_bytes() {
    assert_eq!(size_of::<Slot>(), 56);
}
