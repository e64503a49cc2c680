//! The payment side: makes each refund that is asked for, once, and says so: soon, late, twice or never. Now and
//! then it makes a second one, or one that nobody asked for.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::{OrderId, Timestamp};
use recharged::ports::OutRecord;
use serde_json::{Value, json};

use crate::shop::record;
use crate::weather::{Fault, Strikes};

/// A refund that is not confirmed so long after it was asked for is a case.
pub(crate) const CONFIRM_WITHIN: Duration = Duration::from_secs(40);

#[derive(Debug)]
pub(crate) struct Payments {
    rng: Mutex<StdRng>,
    /// How often it does what it should not.
    fails: f64,
    strikes: Arc<Strikes>,
    /// The refunds that it was asked for, by their events' ids.
    heard: Mutex<HashSet<Bytes>>,
}

impl Payments {
    pub(crate) fn new(seed: u64, fails: f64, strikes: Arc<Strikes>) -> Self {
        Self { rng: Mutex::new(StdRng::seed_from_u64(seed)), fails, strikes, heard: Mutex::default() }
    }

    /// What it says after a refund was asked for, and when.
    pub(crate) fn hear(&self, asked: &OutRecord, now: Timestamp) -> Vec<(Duration, OutRecord)> {
        let event_id = asked.headers.iter().find(|(name, _)| name.as_ref() == b"ce_id");
        let event_id = event_id.and_then(|(_, value)| value.clone()).unwrap();
        if !self.heard.lock().unwrap().insert(event_id) {
            return Vec::new();
        }
        let body: Value = serde_json::from_slice(asked.value.as_deref().unwrap()).unwrap();
        let id = OrderId::parse(body["order_id"].as_str().unwrap()).unwrap();
        let mut rng = self.rng.lock().unwrap();
        let mut misbehaves = |fault| {
            let strikes = self.fails > 0.0 && !self.strikes.is_healed() && rng.random_bool(self.fails);
            if strikes {
                self.strikes.hit(fault);
            }
            strikes
        };
        let (never, late) = (misbehaves(Fault::RefundUnconfirmed), misbehaves(Fault::RefundConfirmedLate));
        let (twice, second) = (misbehaves(Fault::RefundConfirmedTwice), misbehaves(Fault::RefundMadeTwice));
        if never {
            return Vec::new();
        }
        let wait =
            Duration::from_millis(rng.random_range(1..5_000)) + if late { CONFIRM_WITHIN * 2 } else { Duration::ZERO };
        let mut says = |after: Duration, name: &str| {
            let topic = if rng.random_bool(0.7) { "lifecycle" } else { "orders" };
            (after, confirmation(topic, &id, &format!("{name}-{id}"), now + after))
        };
        let mut said = vec![says(wait, "refund")];
        if twice {
            said.push(says(wait + Duration::from_millis(20), "refund"));
        }
        if second {
            said.push(says(wait + Duration::from_secs(7), "second"));
        }
        said
    }
}

/// That a refund was made.
pub(crate) fn confirmation(topic: &'static str, id: &OrderId, refund_id: &str, at: Timestamp) -> OutRecord {
    let value = json!({ "order_id": id.as_str(), "refund_id": refund_id, "at": at.to_rfc3339() });
    record(topic, id, Some("recharge.refund.confirmed.v1"), &value)
}
