//! Waiting for a store or broker that is away: tries again with growing waits until it works or
//! the role is told to drop everything. Says so once, and once more when it is over.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::domain::{OrderId, Transition};
use crate::ports::{Loaded, OrderStore, OutRecord, PublishError, Publisher, StoreError, StoreErrorKind, Written};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Repeats a store operation while trying again can help. `Err` when it cannot, or when told to
/// stop (the last error then).
pub async fn stored<T, F, Fut>(
    operation: &'static str,
    abort: &CancellationToken,
    mut attempt: F,
) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let mut waits = Waits::default();
    loop {
        match attempt().await {
            Ok(done) => {
                if waits.count > 0 {
                    info!(operation, tries = waits.count, "the store is back");
                }
                return Ok(done);
            }
            Err(error) if !error.is_transient() || abort.is_cancelled() => return Err(error),
            Err(error) => {
                if waits.count == 0 {
                    warn!(operation, error = ?error, "the store did not answer; trying again");
                }
                if !waits.wait(abort).await {
                    return Err(error);
                }
            }
        }
    }
}

/// The same, and not even an attempt under way is waited for once told to drop everything: a
/// database that hangs may hold it for long. Whether it was done is not known then.
pub async fn stored_unless<T, F, Fut>(
    operation: &'static str,
    abort: &CancellationToken,
    attempt: F,
) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    tokio::select! {
        biased; // An answer that is there counts.
        done = stored(operation, abort, attempt) => done,
        () = abort.cancelled() => {
            Err(StoreError { operation, kind: StoreErrorKind::Unreachable, source: "told to wait no longer".into() })
        }
    }
}

/// A batch that a lock kept from being written so often is written in parts.
const LOCKED_MAX: u32 = 5;

/// Writes transitions until the store has answered. What keeps a batch from being written (a lock that is not let go of,
/// a value that cannot be stored) is searched for by halves, so that it holds up itself alone: it is answered as locked
/// or refused.
pub async fn applied(
    operation: &'static str,
    store: &dyn OrderStore,
    transitions: &[Transition],
    abort: &CancellationToken,
) -> Result<Vec<Written>, StoreError> {
    written(operation, (store, false), transitions, abort).await
}

/// The same for whoever is waited for: no lock is waited for long.
pub async fn applied_promptly(
    operation: &'static str,
    store: &dyn OrderStore,
    transitions: &[Transition],
    abort: &CancellationToken,
) -> Result<Vec<Written>, StoreError> {
    written(operation, (store, true), transitions, abort).await
}

async fn written(
    operation: &'static str,
    (store, promptly): (&dyn OrderStore, bool),
    transitions: &[Transition],
    abort: &CancellationToken,
) -> Result<Vec<Written>, StoreError> {
    let locked = AtomicU32::new(0);
    let write = || async {
        let written = if promptly { store.apply_promptly(transitions).await } else { store.apply(transitions).await };
        let is_locked = written.as_ref().is_err_and(|error| error.kind == StoreErrorKind::Contention);
        match written {
            Err(error) if is_locked && locked.fetch_add(1, Ordering::Relaxed) + 1 >= LOCKED_MAX => {
                Ok(Err((Written::Locked, error)))
            }
            Err(error) if error.is_about_data() => Ok(Err((Written::Refused, error))),
            Err(error) => Err(error),
            Ok(written) => Ok(Ok(written)),
        }
    };
    let (answer, trouble) = match stored_unless(operation, abort, write).await? {
        Ok(written) => {
            for (transition, _) in transitions.iter().zip(&written).filter(|(_, written)| **written == Written::Locked)
            {
                warn!(order_id = %transition.after.order_id, operation,
                    "another session holds its row: what becomes of this order is written when it lets go");
            }
            return Ok(written);
        }
        Err(trouble) => trouble,
    };
    if let [alone] = transitions {
        error!(order_id = %alone.after.order_id, operation, error = ?trouble,
            "what becomes of this order cannot be written; the others do not wait for it");
        return Ok(vec![answer]);
    }
    let (left, right) = transitions.split_at(transitions.len() / 2);
    let mut halves = Box::pin(written(operation, (store, promptly), left, abort)).await?;
    halves.extend(Box::pin(written(operation, (store, promptly), right, abort)).await?);
    Ok(halves)
}

/// Tells of a row that makes no order, of which only people can make one again.
pub(super) fn unreadable(order_id: &OrderId, why: &str) {
    error!(%order_id, why, "its row cannot be read, so nobody works on it: mend it");
}

/// Writes one transition that nobody else can have made, such as a person's decision. A commit whose answer was
/// lost is known by its row. What several processes decide alike cannot be told apart so: they might
/// have made the very same transition at the same moment.
pub async fn applied_once(
    operation: &'static str,
    store: &dyn OrderStore,
    transition: &Transition,
    abort: &CancellationToken,
) -> Result<Written, StoreError> {
    let batch = std::slice::from_ref(transition);
    let written = stored_unless(operation, abort, || store.apply(batch)).await?;
    if written == [Written::Stored] {
        return Ok(Written::Stored);
    }
    let ids = [transition.after.order_id.clone()];
    let rows = stored_unless(operation, abort, || store.load(&ids)).await?;
    let is_ours = rows.into_iter().any(|row| row == Loaded::Order(transition.after.clone()));
    Ok(if is_ours { Written::Stored } else { Written::Overtaken })
}

/// Publishes until every record is acknowledged; `false` if told to stop before. Only what was
/// not acknowledged is sent again. A refusal is tried again too: a topic may be mended, and what
/// must be published has no other place to go.
pub async fn published(
    what: &'static str,
    publisher: &dyn Publisher,
    mut records: Vec<OutRecord>,
    abort: &CancellationToken,
) -> bool {
    let mut waits = Waits::default();
    while !records.is_empty() {
        let results = tokio::select! {
            biased; // An answer that is there counts.
            results = publisher.publish(&records) => results,
            () = abort.cancelled() => return false,
        };
        let mut results = results.into_iter();
        let mut first_error: Option<PublishError> = None;
        records.retain(|_| match results.next() {
            Some(Ok(())) => false,
            Some(Err(error)) => {
                first_error.get_or_insert(error);
                true
            }
            None => {
                first_error.get_or_insert(PublishError::Unacknowledged("it was not answered".to_owned()));
                true
            }
        });
        let Some(error) = first_error else { break };
        if waits.count == 0 {
            warn!(what, left = records.len(), %error, "records were not acknowledged; trying again");
        }
        if !waits.wait(abort).await {
            return false;
        }
    }
    if waits.count > 0 {
        info!(what, tries = waits.count, "records are acknowledged again");
    }
    true
}

#[derive(Default)]
struct Waits {
    count: u32,
}

impl Waits {
    /// Waits; `false` if told to stop meanwhile.
    async fn wait(&mut self, abort: &CancellationToken) -> bool {
        let wait = FIRST_WAIT.saturating_mul(1 << self.count.min(10)).min(LONGEST_WAIT);
        self.count += 1;
        tokio::select! {
            biased; // Being told to stop comes before another try.
            () = abort.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::domain::{
        Currency, Decision, Input, Money, NewOrder, OnUnknown, Order, OrderId, Policy, ProviderId, Recipient,
        Timestamp, decide,
    };
    use crate::ports::{Inserted, SchemaError};

    /// Rows of one store whose next commits go through unheard, or meet a row that is held.
    #[derive(Debug, Default)]
    struct Deaf {
        rows: Mutex<HashMap<OrderId, Order>>,
        unheard: AtomicU32,
        held: AtomicU32,
        /// What every batch with this order meets.
        trouble: Option<(OrderId, StoreErrorKind)>,
    }

    fn once(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    #[async_trait]
    impl OrderStore for Deaf {
        async fn insert(&self, _: &[Transition]) -> Result<Vec<Inserted>, StoreError> {
            unreachable!("nothing is inserted here")
        }

        async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError> {
            let rows = self.rows.lock().unwrap();
            Ok(ids.iter().map(|id| rows.get(id).cloned().map_or(Loaded::Absent, Loaded::Order)).collect())
        }

        async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError> {
            let error = |kind| StoreError { operation: "apply", kind, source: "as the test wants it".into() };
            if once(&self.held) {
                return Err(error(StoreErrorKind::Contention));
            }
            if let Some((id, kind)) = &self.trouble
                && batch.iter().any(|transition| transition.after.order_id == *id)
            {
                return Err(error(*kind));
            }
            let mut rows = self.rows.lock().unwrap();
            let mut write = |transition: &Transition| {
                let version = rows.get(&transition.after.order_id).map_or(0, |row| row.version);
                if version != transition.from_version {
                    return Written::Overtaken;
                }
                rows.insert(transition.after.order_id.clone(), transition.after.clone());
                Written::Stored
            };
            let written = batch.iter().map(&mut write).collect();
            if once(&self.unheard) { Err(error(StoreErrorKind::Unreachable)) } else { Ok(written) }
        }

        async fn now(&self) -> Result<Timestamp, StoreError> {
            Ok(at(0))
        }

        async fn check(&self) -> Result<(), SchemaError> {
            Ok(())
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn arrival(id: &str, second: i64) -> Transition {
        let new = NewOrder {
            order_id: OrderId::parse(id).unwrap(),
            recipient: Recipient::read("+8613800000017", None),
            amount: Money { minor: 5000, currency: Currency::parse("CNY").unwrap() },
            carrier: None,
            created_at: at(second),
            paid_at: Some(at(second)),
            payment_id: None,
            notify: false,
            metadata: None,
            phone_hash: None,
        };
        let policy = Policy {
            sla: Duration::from_mins(3),
            unpaid_timeout: Duration::from_mins(30),
            notify_after: Duration::from_mins(1),
            notify_at_end: false,
            refund_confirm_within: Some(Duration::from_hours(24)),
            on_unknown: OnUnknown::Hold,
            reconcile_within: Duration::from_hours(24),
            max_attempts: 3,
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(30),
            providers: HashMap::new(),
            routes: std::sync::Arc::default(),
            shut: Vec::new(),
        };
        let input = Input::Arrived { new: Box::new(new), verdict: Ok(ProviderId::new("lane")) };
        match decide(None, &input, at(second), &policy) {
            Decision::Apply(transition) => *transition,
            Decision::Keep(why) => panic!("{why:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_whose_answer_was_lost_is_known_by_its_row_and_what_others_wrote_is_not_taken_for_it() {
        let store = Deaf::default();
        let abort = CancellationToken::new();
        // Another one was quicker with the second order.
        store.apply(&[arrival("b", 7)]).await.unwrap();
        for (id, expected) in [("a", Written::Stored), ("b", Written::Overtaken)] {
            store.unheard.store(1, Ordering::Relaxed);
            assert_eq!(applied_once("test", &store, &arrival(id, 0), &abort).await.unwrap(), expected, "{id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_keeps_no_other_from_being_written() {
        for (trouble, expected) in
            [(StoreErrorKind::Contention, Written::Locked), (StoreErrorKind::BadData, Written::Refused)]
        {
            let store = Deaf { trouble: Some((OrderId::parse("o-2").unwrap(), trouble)), ..Deaf::default() };
            let batch: Vec<Transition> = (0..5).map(|number| arrival(&format!("o-{number}"), 0)).collect();
            let written = applied("test", &store, &batch, &CancellationToken::new()).await.unwrap();
            let wanted: Vec<Written> = (0..5).map(|n| if n == 2 { expected } else { Written::Stored }).collect();
            assert_eq!(written, wanted);
        }
        // A lock that is let go of is waited for.
        let store = Deaf { held: AtomicU32::new(1), ..Deaf::default() };
        let written = applied("test", &store, &[arrival("a", 0)], &CancellationToken::new()).await.unwrap();
        assert_eq!(written, [Written::Stored]);
    }
}
