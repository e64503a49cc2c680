//! The connections, and the one way to use them.
//!
//! Not sqlx's pool, because of three things that the hot path needs (`docs/adr/0102`): an operation
//! goes on when its caller's future is dropped, so no connection is ever left in the middle of a
//! statement; a server that answers nothing at all costs a bounded time and its permit comes back;
//! and after a restart of the server one failure is enough to give up every old connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Silence, is_of_the_server, store_error};
use crate::ports::StoreError;

/// A connection that was idle for longer is not trusted: something on the way may have forgotten it.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// The server ends a statement at its time-out; this much later it is taken for dead.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    options: PgConnectOptions,
    acquire_timeout: Duration,
    answer_timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Idle>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("free", &self.permits.available_permits()).finish_non_exhaustive()
    }
}

/// Connections at rest, the latest used last. A failure of the server begins a new generation:
/// what was lent before it does not come back.
#[derive(Default)]
struct Idle {
    generation: u64,
    resting: Vec<(PgConnection, Instant)>,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, max: u32, acquire: Duration, statement: Duration) -> Self {
        let inner = Inner {
            options,
            acquire_timeout: acquire,
            answer_timeout: statement + GRACE,
            permits: Semaphore::new(usize::try_from(max.max(1)).unwrap_or(1)),
            idle: Mutex::new(Idle::default()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs `work` on a connection, to its end, whatever becomes of the caller.
    pub(super) async fn run<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.run(operation, work).await });
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => Err(Silence::Stopped.error(operation)),
            Err(_) => Err(Silence::Panicked.error(operation)),
        }
    }
}

impl Inner {
    async fn run<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>>,
    {
        let give_up_at = Instant::now() + self.acquire_timeout;
        let Ok(Ok(permit)) = timeout_at(give_up_at, self.permits.acquire()).await else {
            return Err(Silence::NoConnection.error(operation));
        };
        let (generation, resting) = self.take();
        let mut connection = match resting {
            Some(connection) => connection,
            None => match timeout_at(give_up_at, self.options.connect()).await {
                Ok(connected) => connected.map_err(|error| store_error(operation, error))?,
                Err(_) => return Err(Silence::NoConnection.error(operation)),
            },
        };
        // A connection that failed is dropped, which closes it without a word to the server: a
        // polite goodbye could hang on the very connection that answers nothing.
        let done = match timeout(self.answer_timeout, work(&mut connection)).await {
            Ok(Ok(value)) => {
                self.put_back(connection, generation);
                Ok(value)
            }
            Ok(Err(error)) => {
                if is_of_the_server(&error) {
                    self.forget_all();
                }
                Err(store_error(operation, error))
            }
            Err(_) => {
                self.forget_all();
                Err(Silence::NoAnswer.error(operation))
            }
        };
        drop(permit);
        done
    }

    fn take(&self) -> (u64, Option<PgConnection>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = idle.resting.pop().filter(|(_, since)| since.elapsed() < IDLE_MAX);
        if fresh.is_none() {
            // The one that rested least is too old, so all are.
            idle.resting.clear();
        }
        (idle.generation, fresh.map(|(connection, _)| connection))
    }

    fn put_back(&self, connection: PgConnection, generation: u64) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.generation == generation {
            idle.resting.push((connection, Instant::now()));
        }
    }

    fn forget_all(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.generation += 1;
        idle.resting.clear();
    }
}
