//! Order events from the shop.

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::{Value, json};

use super::message::Message;
use super::world::{DIGITS, keeps_secrets, now};
use crate::config::Config;
use crate::domain::inbound::{Inbound, MAX_METADATA_BYTES, RawHeader, Unfit, read};
use crate::domain::msisdn::Recipient;
use crate::domain::{Announcement, Decision, Input, NewOrder, PhoneKey, Policy, Reason, decide};

struct Rules {
    key: PhoneKey,
    policy: Policy,
}

thread_local! {
    static RULES: OnceCell<Rules> = const { OnceCell::new() };
}

const CONFIG: &str = r#"
[providers.one]
kind = "simulator"
base_url = "http://127.0.0.1:9500"
"#;

impl Rules {
    fn new() -> Self {
        let loaded = Config::read(CONFIG, [], &[]).unwrap();
        Self { key: PhoneKey::new(b"canary-key-of-numbers").unwrap(), policy: loaded.config.policy() }
    }
}

/// A record of the orders topic, or with the first line `lifecycle` of the other. What cannot be used is told without a
/// value of it; what can reads back from its own words, and goes through the first decision and the log to the world.
pub fn inbound(bytes: &[u8]) {
    let message = Message::read(bytes);
    let plain_is_order = message.first != b"lifecycle";
    RULES.with(|cell| {
        let rules = cell.get_or_init(Rules::new);
        let again = |value: Option<&[u8]>, headers: &[RawHeader]| read(value, headers, plain_is_order, &rules.key);
        match again(message.body, &message.raw_headers()) {
            Err(unfit) => check_unfit(&unfit),
            Ok(Inbound::Created(order)) => {
                check_order(&order);
                let told = in_words(&order);
                let Ok(Inbound::Created(back)) = read(Some(told.as_bytes()), &[], true, &rules.key) else {
                    panic!("an order that cannot be read from its own words")
                };
                let same = back.recipient == order.recipient;
                assert!(same || order.recipient.msisdn().is_none(), "another number than the one that was read");
                let (recipient, phone_hash) = (back.recipient.clone(), back.phone_hash.clone());
                assert!(*back == NewOrder { recipient, phone_hash, ..(*order).clone() }, "another order");
                check_way(&order, rules);
            }
            Ok(event @ (Inbound::Paid { .. } | Inbound::Cancelled { .. } | Inbound::RefundConfirmed { .. })) => {
                assert!((1..=64).contains(&event.order_id().as_str().len()));
            }
        }
    });
}

pub(super) fn check_unfit(unfit: &Unfit) {
    keeps_secrets(&format!("{unfit} {unfit:?}"));
    assert!(unfit.detail.len() <= 512 && !unfit.detail.chars().any(char::is_control), "a detail that is no sentence");
}

fn check_order(order: &NewOrder) {
    let debug = format!("{:?} {}", order.recipient, order.recipient);
    assert!(!debug.contains(DIGITS), "a number in the open");
    assert!(order.amount.minor > 0);
    assert_eq!(order.phone_hash.is_some(), order.recipient.msisdn().is_some());
    assert_eq!(Recipient::from_stored(&order.recipient.expose()), order.recipient, "what is stored is read back");
    assert!(!order.recipient.expose().contains('\0'));
    if let Some(metadata) = &order.metadata {
        assert!(metadata.len() <= MAX_METADATA_BYTES);
    }
}

/// The order as plain JSON.
fn in_words(order: &NewOrder) -> String {
    let phone = match order.recipient.msisdn() {
        Some(number) => number.expose(),
        None => order.recipient.expose(),
    };
    let metadata = order.metadata.as_deref().unwrap_or("null");
    let known = json!({
        "order_id": order.order_id, "phone": phone, "amount_minor": order.amount.minor,
        "currency": order.amount.currency, "carrier": order.carrier, "created_at": order.created_at,
        "paid_at": order.paid_at, "payment_id": order.payment_id, "notify": order.notify,
    });
    let mut text = known.to_string();
    text.pop();
    format!("{text},\"metadata\":{metadata}}}")
}

/// To the row, into the log, and out as the world reads it: with any reader of JSON, not with ours alone.
fn check_way(order: &NewOrder, rules: &Rules) {
    let verdict = match order.recipient.msisdn() {
        None => Err(Reason::InvalidPhone),
        Some(number) => {
            let routes = Arc::clone(&rules.policy.routes);
            let lane = routes.lanes(&order.order_id, number, order.carrier.as_deref(), order.amount);
            lane.and_then(|mut lanes| lanes.next().cloned().ok_or(Reason::NoRoute))
        }
    };
    let input = Input::Arrived { new: Box::new(order.clone()), verdict };
    let Decision::Apply(transition) = decide(None, &input, now(), &rules.policy) else { return };
    let line = transition.event.to_line();
    assert!(!line.contains('\n'), "an entry is one line");
    let told = Announcement::from_line(&line).expect("an entry that cannot be read");
    assert_eq!(told.order_id, order.order_id.as_str());
    assert_eq!(told.metadata.as_deref(), order.metadata.as_deref());
    if let Some(metadata) = &told.metadata {
        serde_json::from_str::<Value>(metadata).expect("metadata that makes its events unreadable");
    }
}
