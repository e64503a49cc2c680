//! What the payment side has said of refunds, and what was made of it; and what came of events without an order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use recharged::domain::{CaseKind, LoggedEvent, Order, Timestamp, early, plus};
use recharged::ports::OutRecord;
use serde_json::Value;

use super::Oracle;
use crate::laws::Law;
use crate::payments::CONFIRM_WITHIN;

/// The watchdog looks every five seconds for refunds that are overdue, and what could not be done in one look, since the
/// store failed or the order moved, waits for the next. After a day nobody minds a minute.
const TOLD_WITHIN: Duration = Duration::from_mins(1);

impl Oracle<'_> {
    /// What was said of refunds, by order: their names.
    fn confirmations(&self) -> HashMap<String, BTreeSet<String>> {
        let mut said: HashMap<String, BTreeSet<String>> = HashMap::new();
        for topic in ["orders", "lifecycle"] {
            for record in self.world.outside.broker.records(topic) {
                let body: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
                if let Some(refund) = body["refund_id"].as_str() {
                    let order = body["order_id"].as_str().unwrap().to_owned();
                    said.entry(order).or_default().insert(refund.to_owned());
                }
            }
        }
        said
    }

    pub(super) fn look_at_refunds(&self, rows: &BTreeMap<String, Order>) {
        let all = self.confirmations();
        let none = BTreeSet::new();
        for (id, row) in rows {
            let said = all.get(id).unwrap_or(&none);
            let has = |kind: CaseKind| row.cases & kind.bit() != 0;
            let is_known = row.refund_id.as_ref().map_or(said.is_empty(), |first| said.contains(&**first));
            self.hold(Law::RefundsFollowed, is_known, || {
                format!("{id}: refunded as {:?}, said {said:?}", row.refund_id)
            });
            let is_twice = has(CaseKind::RefundedTwice) == (said.len() > 1);
            self.hold(Law::RefundsFollowed, is_twice, || {
                format!("{id}: {said:?} were said, {:#b} are its cases", row.cases)
            });
            let unasked = self.world.shop.unasked.contains(&row.order_id);
            let is_right =
                if has(CaseKind::UnrequestedRefund) { unasked } else { said.is_empty() || row.refund_requested };
            self.hold(Law::RefundsFollowed, is_right, || {
                format!(
                    "{id}: unasked {unasked}, requested {}, said {said:?}, cases {:#b}",
                    row.refund_requested, row.cases
                )
            });
            self.look_at_its_confirmation(row);
        }
    }

    /// The case of a refund that was not confirmed is opened when its time has come, unless it was confirmed by then; and
    /// the confirmation closes it.
    fn look_at_its_confirmation(&self, row: &Order) {
        let id = row.order_id.as_str();
        let mine: Vec<&LoggedEvent> = self.log.iter().filter(|event| event.order_id == row.order_id).collect();
        let at = |is_it: &dyn Fn(&LoggedEvent) -> bool| mine.iter().find(|event| is_it(event)).copied();
        let made = at(&|event| event.data.refund_made.is_some());
        let opened = at(&|event| event.data.cases_opened.contains(&CaseKind::RefundUnconfirmed));
        let requested = at(&|event| event.data.refund.is_some());
        let unasked = |requested: &LoggedEvent| made.is_some_and(|made| made.version < requested.version);
        let Some(requested) = requested.filter(|requested| !unasked(requested)) else {
            self.hold(Law::RefundsFollowed, opened.is_none(), || format!("{id}: nobody waits for its refund"));
            return;
        };
        let due_at = plus(requested.at, CONFIRM_WITHIN);
        let set_at = self.committed_at(requested);
        let bound = self.patience(due_at, set_at) + TOLD_WITHIN;
        if let Some(opened) = opened {
            let early = due_at - opened.at;
            let is_early = early > chrono::TimeDelta::from_std(self.world.time.precision()).unwrap();
            self.hold(Law::RefundsFollowed, !is_early, || format!("{id}: its refund was missed {early} early"));
            let late = (self.committed_at(opened) - due_at.max(set_at)).to_std().unwrap_or_default();
            self.hold(Law::RefundsFollowed, late <= bound, || {
                format!("{id}: its refund was missed {late:?} late, {bound:?} allowed")
            });
        }
        let in_time = made.is_some_and(|made| made.at <= plus(due_at.max(set_at), bound));
        self.hold(Law::RefundsFollowed, opened.is_some() || in_time, || {
            format!("{id}: its refund was due at {due_at}, made at {:?}, and nobody was told", made.map(|made| made.at))
        });
        let state = self.world.outside.store.state.lock().unwrap();
        let case = state.cases.get(&(row.order_id.clone(), CaseKind::RefundUnconfirmed.as_str()));
        let is_open = case.is_some_and(|case| case.resolution.is_none());
        drop(state);
        let expected = opened.is_some() && made.is_none();
        self.hold(Law::RefundsFollowed, is_open == expected, || format!("{id}: its case is open: {is_open}"));
    }

    /// Events of orders that were never created end among the dead letters, when they have waited long enough; no
    /// others do.
    pub(super) fn look_at_orphans(&self, dead: &[(OutRecord, Timestamp)]) {
        let mut orphans: BTreeSet<String> = BTreeSet::new();
        for (letter, at) in dead.iter().filter(|(letter, _)| header(letter, "reason") == "orphan") {
            let body: Value = serde_json::from_slice(letter.value.as_deref().unwrap()).unwrap();
            let id = body["order_id"].as_str().unwrap().to_owned();
            let first_seen: i64 = header(letter, "first-seen").parse().unwrap();
            let waited = at.timestamp_millis() - first_seen;
            let least =
                i64::try_from((early::WAITS_FOR.saturating_sub(self.world.time.precision())).as_millis()).unwrap();
            // By clocks that may both be wrong.
            self.hold(Law::EveryOrderEnds, waited >= least - 50, || format!("{id} was given up after {waited} ms"));
            let topic = header(letter, "original-topic");
            let is_origin = ["orders", "lifecycle"].contains(&topic.as_str());
            self.hold(Law::EveryOrderEnds, is_origin, || format!("{id}: a dead letter of {topic}"));
            orphans.insert(id);
        }
        let nobodys: BTreeSet<String> = self.world.shop.nobodys.iter().map(ToString::to_string).collect();
        self.hold(Law::EveryOrderEnds, orphans == nobodys, || format!("orphans {orphans:?}, nobody's {nobodys:?}"));
    }

    /// Whether something that was said of an order could not be brought to it: it lies among the dead letters, where a
    /// person finds it.
    pub(super) fn is_given_up(&self, id: &str) -> bool {
        self.world.outside.broker.records("dead").iter().any(|letter| {
            let body = serde_json::from_slice::<Value>(letter.value.as_deref().unwrap_or_default()).unwrap_or_default();
            body["order_id"] == id && header(letter, "reason") == "undeliverable"
        })
    }
}

fn header(letter: &OutRecord, name: &str) -> String {
    let found = letter.headers.iter().rev().find(|(known, _)| known.as_ref() == name.as_bytes());
    let value = found.and_then(|(_, value)| value.as_deref());
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}
