//! SQLite: one file, one machine. Statements are not checked when compiled; the suite of tests
//! that runs on both adapters is their check.

mod book;
mod callbacks;
mod cases;
mod day_log;
mod deadlines;
mod lanes;
mod letters;
mod log;
mod orders;
mod questions;
mod quota;
mod read_marks;
mod refunds;
mod rows;
pub(super) mod schema;
mod timers;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::Mutex;

use super::{OpenError, StoreOptions};
use crate::domain::Timestamp;
use crate::ports::{StoreError, StoreErrorKind};

/// Readers beside the one writer.
const READERS: u32 = 4;

/// How long to wait for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The adapter for SQLite.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Arc<Mutex<SqliteConnection>>,
    /// None in memory: such a database belongs to its one connection.
    readers: Option<SqlitePool>,
}

impl SqliteStore {
    /// Opens the file, which must be there; or a database in memory, which is migrated at once,
    /// since nobody else could.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, OpenError> {
        let connect = connect_options(url)?;
        let failed = |error| OpenError::Connect(store_error("open", error));
        let mut writer = connect.connect().await.map_err(failed)?;
        let readers = if is_in_memory(url) {
            schema::MIGRATIONS.run(&mut writer).await.map_err(|error| failed(sqlx::Error::Migrate(Box::new(error))))?;
            None
        } else {
            let pool = SqlitePoolOptions::new()
                .max_connections(READERS)
                .acquire_timeout(options.acquire_timeout)
                .test_before_acquire(false);
            Some(pool.connect_lazy_with(connect.read_only(true)))
        };
        Ok(Self { writer: Arc::new(Mutex::new(writer)), readers })
    }

    /// Runs `work` on the one writing connection, to its end, whatever becomes of the caller.
    async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        let writer = Arc::clone(&self.writer);
        finish(operation, async move {
            let mut connection = writer.lock().await;
            // Taking the writer's place at once, not at the first write: a transaction that only
            // then finds another in its place could not go on.
            let mut transaction = sqlx::Connection::begin_with(&mut *connection, "begin immediate").await?;
            let value = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        })
        .await
    }

    async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        let Some(readers) = self.readers.clone() else { return self.write(operation, work).await };
        finish(operation, async move { work(&mut *readers.acquire().await?).await }).await
    }
}

async fn finish<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T, sqlx::Error>> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(|error| store_error(operation, error)),
        Err(error) => {
            let kind = if error.is_cancelled() { StoreErrorKind::Unreachable } else { StoreErrorKind::Broken };
            Err(StoreError { operation, kind, source: Box::new(error) })
        }
    }
}

fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

fn connect_options(url: &str) -> Result<SqliteConnectOptions, OpenError> {
    let connect = SqliteConnectOptions::from_str(url).map_err(|error| OpenError::Address(Box::new(error)))?;
    Ok(connect
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL may take back the last commits in a power cut. A claim that is taken back is sent
        // a second time, so every commit is forced to the disk.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT))
}

/// The store's clock is this machine's.
fn now() -> Timestamp {
    crate::domain::to_micros(crate::clock::SystemClock::local())
}

/// By primary result code (SQLite documentation, "Result and Error Codes").
#[expect(clippy::wildcard_enum_match_arm, reason = "what the driver may add later is a defect until it is known")]
fn store_error(operation: &'static str, error: sqlx::Error) -> StoreError {
    let kind = match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0) & 0xff;
            match code {
                // BUSY, LOCKED
                5 | 6 => StoreErrorKind::Contention,
                // IOERR, FULL, CANTOPEN
                10 | 13 | 14 => StoreErrorKind::Unreachable,
                _ => StoreErrorKind::Broken,
            }
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreErrorKind::Unreachable
        }
        _ => StoreErrorKind::Broken,
    };
    StoreError { operation, kind, source: Box::new(error) }
}
