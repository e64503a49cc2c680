//! The schema: applying it, and telling whether it is the one that this build needs.

use sqlx::ConnectOptions;
use sqlx::migrate::{Migrate, MigrateError as SqlxMigrateError, Migrator};
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::connect_options;
use super::error::{Silence, store_error};
use crate::ports::SchemaError;
use crate::store::{MigrateError, MigrationReport, OpenError, PendingMigration, StoreOptions, lacking, newest};
use std::time::Duration;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Where sqlx notes what was applied.
const TABLE: &str = "_sqlx_migrations";

/// Days of the event log that a migration makes ahead.
const DAYS_AHEAD: i32 = 14;

/// Somebody waits for the answer, so more than the service allows itself; yet a server that takes
/// connections and says nothing must not hold a deployment for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A migration may take its time.
const MIGRATION_TIMEOUT: Duration = Duration::from_hours(1);

async fn connect(url: &str, options: &StoreOptions) -> Result<PgConnection, OpenError> {
    let connecting = connect_options(url, options, MIGRATION_TIMEOUT)?;
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting.connect()).await {
        Ok(connected) => connected.map_err(|error| OpenError::Connect(store_error("connect", error))),
        Err(_) => Err(OpenError::Connect(Silence::NoAnswer.error("connect"))),
    }
}

pub(in crate::store) async fn migrate(url: &str, options: &StoreOptions) -> Result<MigrationReport, MigrateError> {
    let mut connection = connect(url, options).await?;
    let before = applied(&mut connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    let made = sqlx::query_scalar!(r#"select make_event_partitions($1) as "made!""#, DAYS_AHEAD)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| MigrateError::Apply(Box::new(error)))?;
    Ok(MigrationReport {
        applied: lacking(&MIGRATIONS, &before),
        version: newest(&MIGRATIONS),
        event_days_made: u32::try_from(made).unwrap_or(0),
    })
}

pub(in crate::store) async fn pending(
    url: &str,
    options: &StoreOptions,
) -> Result<Vec<PendingMigration>, MigrateError> {
    let mut connection = connect(url, options).await?;
    let before = applied(&mut connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    Ok(lacking(&MIGRATIONS, &before))
}

/// The versions that are applied; none where nothing ever was.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    let listed = connection.list_applied_migrations(TABLE).await;
    match listed {
        Ok(rows) => Ok(rows.into_iter().map(|row| row.version).collect()),
        Err(SqlxMigrateError::Execute(error)) if is_undefined_table(&error) => Ok(Vec::new()),
        Err(SqlxMigrateError::Execute(error)) => Err(error),
        Err(other) => Err(sqlx::Error::Migrate(Box::new(other))),
    }
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "42P01")
}

impl PostgresStore {
    pub(super) async fn check_schema(&self) -> Result<(), SchemaError> {
        let versions = self.hot.run("check", |connection| Box::pin(applied(connection))).await?;
        let (found, needed) = (versions.into_iter().max().unwrap_or(0), newest(&MIGRATIONS));
        if found == needed { Ok(()) } else { Err(SchemaError::Version { found, needed }) }
    }
}
