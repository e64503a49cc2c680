//! I3: what the world was told, word for word, against the log.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use recharged::domain::{EventType, LoggedEvent, Order, State, Timestamp, plus};
use recharged::ports::OutRecord;
use serde_json::{Map, Value, json};

use super::Oracle;
use crate::laws::Law;
use crate::shop::NOTIFY_AFTER;

/// An order that moves at the very moment at which it is to be told of is looked at again so much later, and who is back
/// looks for the first time after a while.
const MOVED_MEANWHILE: Duration = Duration::from_secs(5);

/// The headers and the body of an event.
type Told = (BTreeMap<String, String>, Value);

impl Oracle<'_> {
    /// Each log entry reaches the world at least once, per order in order after deduplication, as what it is; one
    /// refund is asked for where the store says so.
    pub(super) fn look_at_published(&self, rows: &BTreeMap<String, Order>) {
        let log: HashMap<(&str, u64), &LoggedEvent> =
            self.moves().map(|event| ((event.order_id.as_str(), u64::from(event.version)), event)).collect();
        let mut seen: HashMap<String, u64> = HashMap::new();
        for record in self.world.outside.broker.records("events") {
            let body = body(&record);
            let (id, version) = (body["order_id"].as_str().unwrap().to_owned(), body["version"].as_u64().unwrap());
            let last = seen.entry(id.clone()).or_default();
            self.hold(Law::Published, version <= *last + 1, || format!("{id}: version {version} came after {last}"));
            *last = (*last).max(version);
            let event = log.get(&(id.as_str(), version));
            let expected = event.map(|event| told(event));
            let is_so = expected.as_ref() == Some(&(headers(&record), body.clone()));
            self.hold(Law::Published, is_so, || {
                format!("{id}: version {version} was told as {body} ({:?}), expected {expected:?}", headers(&record))
            });
        }
        for (id, row) in rows {
            let last = seen.get(id).copied().unwrap_or_default();
            let all = last == u64::from(row.version);
            self.hold(Law::Published, all, || format!("{id}: published up to {last} of {}", row.version));
        }
        let mut asked: HashMap<String, String> = HashMap::new();
        for record in self.world.outside.broker.records("refunds") {
            let body = body(&record);
            let order = body["order_id"].as_str().unwrap_or_default().to_owned();
            let id = headers(&record).remove("ce_id").unwrap_or_default();
            let first = asked.entry(order.clone()).or_insert_with(|| id.clone()).clone();
            self.hold(Law::RefundedOnce, first == id, || format!("{order} is to be refunded twice"));
            let mut mine = self.log.iter().filter(|event| event.order_id.as_str() == order);
            let expected = mine.find_map(refund);
            let is_so = expected.as_ref() == Some(&(id, body.clone()));
            self.hold(Law::RefundedOnce, is_so, || format!("{order}: refund {body}, expected {expected:?}"));
        }
        self.look_at_notifications(rows);
        for (id, row) in rows {
            let agrees = asked.contains_key(id) == row.refund_requested;
            self.hold(Law::RefundedOnce, agrees, || format!("{id}: its refund was not asked for as the row says"));
        }
    }
}

impl Oracle<'_> {
    fn moves(&self) -> impl Iterator<Item = &LoggedEvent> {
        self.log.iter().filter(|event| !event.kind.is_aside())
    }

    /// Somebody is told of each order that wants it, once, when its time has come, with the state that it had then; and
    /// once of its end, where the policy says so, and then of nothing later.
    fn look_at_notifications(&self, rows: &BTreeMap<String, Order>) {
        let mut told: BTreeMap<String, BTreeMap<String, Told>> = BTreeMap::new();
        for record in self.world.outside.broker.records("notifications") {
            let now = (headers(&record), body(&record));
            let order = now.1["order_id"].as_str().unwrap_or_default().to_owned();
            let of_it = told.entry(order.clone()).or_default();
            let first = of_it.entry(now.0["ce_id"].clone()).or_insert_with(|| now.clone());
            self.hold(Law::NotifiedOnce, *first == now, || format!("{order} is told of twice: {first:?} and {now:?}"));
        }
        for (id, row) in rows {
            let asked: Vec<&LoggedEvent> =
                self.log.iter().filter(|event| event.kind.is_aside() && event.order_id.as_str() == id).collect();
            let expected: BTreeMap<String, Told> = asked
                .iter()
                .map(|event| {
                    let told = notification(event, row);
                    (told.0["ce_id"].clone(), told)
                })
                .collect();
            let found = told.remove(id).unwrap_or_default();
            self.hold(Law::NotifiedOnce, found == expected, || {
                format!("{id}: told of as {found:?}, expected {expected:?}")
            });
            let of = |kind| asked.iter().filter(|event| event.kind == kind).copied().collect::<Vec<_>>();
            let (timed, ends) = (of(EventType::NotificationRequested), of(EventType::EndNotificationRequested));
            self.look_at_its_end(row, &timed, &ends);
            if let Some(event) = timed.first() {
                self.look_at_its_time(event, row);
            }
        }
    }

    fn look_at_its_end(&self, row: &Order, timed: &[&LoggedEvent], ends: &[&LoggedEvent]) {
        let id = row.order_id.as_str();
        let closing = self.moves().find(|event| event.order_id == row.order_id && event.data.state.is_closed());
        let tells = row.notify && self.world.outside.policy.notify_at_end;
        let Some(closing) = closing.filter(|_| tells) else {
            let fits = (timed.len(), ends.len()) == (usize::from(row.notify), 0);
            self.hold(Law::NotifiedOnce, fits, || format!("{id}: {timed:?} and {ends:?} are in the log"));
            return;
        };
        let is_with_it = ends.len() == 1 && (ends[0].version, ends[0].at) == (closing.version, closing.at);
        self.hold(Law::NotifiedOnce, is_with_it, || format!("{id} ended with {closing:?}, told of as {ends:?}"));
        let is_before = timed.iter().all(|event| event.version < closing.version);
        self.hold(Law::NotifiedOnce, timed.len() <= 1 && is_before, || {
            format!("{id}: {timed:?} in the log, and its end")
        });
        // What was not told before its end was not late.
        let arrived = self.moves().find(|event| event.order_id == row.order_id).unwrap();
        let (due_at, set_at) = (plus(row.created_at.min(arrived.at), NOTIFY_AFTER), self.committed_at(arrived));
        let late = (closing.at - due_at.max(set_at)).to_std().unwrap_or_default();
        let bound = self.patience(due_at, set_at) + MOVED_MEANWHILE;
        self.hold(Law::NotifiedOnce, !timed.is_empty() || late <= bound, || {
            format!("{id} ended {late:?} after it was to be told of, {bound:?} allowed")
        });
    }

    fn look_at_its_time(&self, event: &LoggedEvent, row: &Order) {
        let id = row.order_id.as_str();
        let arrived = self.moves().find(|event| event.order_id == row.order_id);
        let (arrived_at, set_at) = arrived.map_or((event.at, event.at), |first| (first.at, self.committed_at(first)));
        let due_at = plus(row.created_at.min(arrived_at), NOTIFY_AFTER);
        let early = due_at - event.at;
        let is_early = early > chrono::TimeDelta::from_std(self.world.time.precision()).unwrap();
        self.hold(Law::NotifiedOnce, !is_early, || format!("{id} was told of {early} early"));
        let late = (event.at - due_at.max(set_at)).to_std().unwrap_or_default();
        let bound = self.patience(due_at, set_at) + MOVED_MEANWHILE;
        self.hold(Law::NotifiedOnce, late <= bound, || format!("{id} was told of {late:?} late, {bound:?} allowed"));
        let state = arrived_state(self.moves(), event);
        self.hold(Law::NotifiedOnce, state == Some(event.data.state), || {
            format!("{id} was told of as {}, and was {state:?}", event.data.state)
        });
    }
}

/// The state that an order had with the version of which something is told.
fn arrived_state<'a>(mut moves: impl Iterator<Item = &'a LoggedEvent>, event: &LoggedEvent) -> Option<State> {
    let of_it = moves.find(|of| of.order_id == event.order_id && of.version == event.version);
    of_it.map(|of| of.data.state)
}

/// What must be told of an order that wants it.
fn notification(event: &LoggedEvent, row: &Order) -> (BTreeMap<String, String>, Value) {
    let id = event.order_id.as_str();
    let headers = [
        ("ce_id", format!("{id}:{}:{}", event.version, event.kind.as_str())),
        ("ce_type", "recharge.notification.requested.v1".to_owned()),
        ("ce_subject", id.to_owned()),
        ("ce_time", time(event.at)),
    ];
    let body = json!({
        "order_id": id, "phone": row.recipient.expose(), "template": "order_state", "state": event.data.state.as_str(),
    });
    (headers.map(|(name, value)| (name.to_owned(), value)).into(), body)
}

fn body(record: &OutRecord) -> Value {
    serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()
}

/// Those that say which event it is, and of what kind.
fn headers(record: &OutRecord) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = record.headers.iter().map(|(name, value)| (text(name), text(value.as_deref().unwrap_or_default())));
    all.filter(|(name, _)| matches!(name.as_str(), "ce_id" | "ce_type" | "ce_subject" | "ce_time")).collect()
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// What must be told of an entry.
fn told(event: &LoggedEvent) -> (BTreeMap<String, String>, Value) {
    let (id, data) = (event.order_id.as_str(), &event.data);
    let public = event.kind.public(data.state);
    let headers = [
        ("ce_id", format!("{id}:{}:{}", event.version, public.as_str())),
        ("ce_type", format!("recharge.order.{}.v1", public.as_str())),
        ("ce_subject", id.to_owned()),
        ("ce_time", time(event.at)),
    ];
    let mut body = Map::new();
    let mut say = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.to_owned(), value));
    say("order_id", Some(json!(id)));
    say("version", Some(json!(event.version)));
    say("state", Some(json!(data.state.as_str())));
    say("at", Some(json!(time(event.at))));
    say("deadline_at", Some(json!(time(data.deadline_at))));
    say("attempt", Some(json!(data.attempt)));
    say("provider", data.provider.as_ref().map(|provider| json!(provider.as_str())));
    say("reason", data.reason.map(|reason| json!(reason.as_str())));
    say("sla", data.sla.map(|sla| json!(sla.as_str())));
    say("refund_id", data.refund_made.as_ref().map(|made| json!(made.refund_id.as_ref())));
    (headers.map(|(name, value)| (name.to_owned(), value)).into(), Value::Object(body))
}

/// The refund that an entry asks for: its event's id, and what it says.
fn refund(event: &LoggedEvent) -> Option<(String, Value)> {
    let (id, note) = (event.order_id.as_str(), event.data.refund.as_ref()?);
    let mut body = json!({
        "order_id": id, "amount_minor": note.amount_minor, "currency": note.currency.to_string(),
        "reason": note.reason.as_str(), "attempts": event.data.attempt,
    });
    if let Some(payment_id) = &note.payment_id {
        body["payment_id"] = json!(payment_id.as_ref());
    }
    Some((format!("{id}:{}:refund_requested", event.version), body))
}
