//! The store: what must survive. Two adapters behind the ports, one suite of tests for both.
//!
//! Postgres is for production. SQLite is one file for one process: the demo, trials, fast tests.

mod batch;
mod noted;
pub mod postgres;
pub mod quota;
mod row;
pub mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ports::{Store, StoreError};

/// How to reach the store.
#[derive(Clone)]
pub struct StoreOptions {
    /// Connections for the hot path; two more serve people and exports.
    pub max_connections: u32,
    /// The longest that one statement may run; the watchdog's mark relies on less than 5 s.
    pub statement_timeout: Duration,
    /// The longest wait for a connection, its making included.
    pub acquire_timeout: Duration,
    /// In place of the one in the address, so that the address can be shown.
    pub password: Option<String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_connections: 8,
            statement_timeout: Duration::from_secs(4),
            acquire_timeout: Duration::from_secs(2),
            password: None,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("max_connections", &self.max_connections)
            .field("statement_timeout", &self.statement_timeout)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("password", &self.password.as_ref().map(|_| "****"))
            .finish()
    }
}

/// Why a store cannot be opened. No message holds the address: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Neither of the two.
    #[error("a store's address begins with postgres:// or sqlite://, not with {0:?}")]
    Scheme(String),
    /// The address does not parse.
    #[error("the store's address is not valid")]
    Address(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is not there, or does not let us in.
    #[error("the store cannot be opened")]
    Connect(#[source] StoreError),
}

/// Why migrations were not applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A migration failed, or one that was applied is not the one that this build has.
    #[error("the store cannot be migrated")]
    Apply(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What [`migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations that were applied now.
    pub applied: Vec<PendingMigration>,
    /// The schema's version after it.
    pub version: i64,
    /// Days of the event log that were made ahead; always 0 for SQLite.
    pub event_days_made: u32,
}

/// A migration that this build has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMigration {
    /// Its number.
    pub version: i64,
    /// What it does.
    pub description: String,
}

enum Kind {
    Postgres,
    Sqlite,
}

fn kind(url: &str) -> Result<Kind, OpenError> {
    match url.split(':').next() {
        Some("postgres" | "postgresql") => Ok(Kind::Postgres),
        Some("sqlite") => Ok(Kind::Sqlite),
        other => Err(OpenError::Scheme(other.unwrap_or_default().chars().take(16).collect())),
    }
}

/// Opens the store at `url`: `postgres://user@host/database` or `sqlite://path`, or
/// `sqlite::memory:`, which begins empty. Does not migrate it; ask
/// [`check`](crate::ports::OrderStore::check).
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match kind(url)? {
        Kind::Postgres => Arc::new(postgres::PostgresStore::open(url, options).await?),
        Kind::Sqlite => Arc::new(sqlite::SqliteStore::open(url, options).await?),
    })
}

/// Applies the migrations that the store lacks, and makes the event log's days ahead.
pub async fn migrate(url: &str, options: &StoreOptions) -> Result<MigrationReport, MigrateError> {
    match kind(url)? {
        Kind::Postgres => postgres::schema::migrate(url, options).await,
        Kind::Sqlite => sqlite::schema::migrate(url, options).await,
    }
}

/// The migrations that the store lacks; changes nothing.
pub async fn pending_migrations(url: &str, options: &StoreOptions) -> Result<Vec<PendingMigration>, MigrateError> {
    match kind(url)? {
        Kind::Postgres => postgres::schema::pending(url, options).await,
        Kind::Sqlite => sqlite::schema::pending(url, options).await,
    }
}

/// The migrations of `all` that are not in `applied`.
fn lacking(all: &sqlx::migrate::Migrator, applied: &[i64]) -> Vec<PendingMigration> {
    all.iter()
        .filter(|migration| !applied.contains(&migration.version))
        .map(|migration| PendingMigration {
            version: migration.version,
            description: migration.description.to_string(),
        })
        .collect()
}

/// The version of the newest migration.
fn newest(all: &sqlx::migrate::Migrator) -> i64 {
    all.iter().map(|migration| migration.version).max().unwrap_or(0)
}
