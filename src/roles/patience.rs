//! Waiting for a store or broker that is away: tries again with growing waits until it works or
//! the role is told to drop everything. Says so once, and once more when it is over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ports::{OutRecord, PublishError, Publisher, StoreError, StoreErrorKind};

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
