//! The schema: applying it, and telling whether it is the one that this build needs.

use sqlx::ConnectOptions;
use sqlx::migrate::{Migrate, MigrateError as SqlxMigrateError, Migrator};
use sqlx::sqlite::SqliteConnection;

use super::{SqliteStore, connect_options, is_in_memory, store_error};
use crate::ports::SchemaError;
use crate::store::{MigrateError, MigrationReport, OpenError, PendingMigration, StoreOptions, lacking, newest};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Where sqlx notes what was applied.
const TABLE: &str = "_sqlx_migrations";

pub(in crate::store) async fn migrate(url: &str, _options: &StoreOptions) -> Result<MigrationReport, MigrateError> {
    let connecting = connect_options(url)?.create_if_missing(true);
    let mut connection =
        connecting.connect().await.map_err(|error| OpenError::Connect(store_error("connect", error)))?;
    let before = applied(&mut connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    sqlx::Connection::close(connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    Ok(MigrationReport { applied: lacking(&MIGRATIONS, &before), version: newest(&MIGRATIONS), event_days_made: 0 })
}

pub(in crate::store) async fn pending(
    url: &str,
    _options: &StoreOptions,
) -> Result<Vec<PendingMigration>, MigrateError> {
    let connecting = connect_options(url)?;
    if is_in_memory(url) || !connecting.get_filename().exists() {
        return Ok(lacking(&MIGRATIONS, &[]));
    }
    let mut connection =
        connecting.connect().await.map_err(|error| OpenError::Connect(store_error("connect", error)))?;
    let before = applied(&mut connection).await.map_err(|error| MigrateError::Apply(Box::new(error)))?;
    Ok(lacking(&MIGRATIONS, &before))
}

/// The versions that are applied; none where nothing ever was.
#[expect(clippy::disallowed_methods, reason = "SQLite's statements are checked by the tests of both adapters")]
async fn applied(connection: &mut SqliteConnection) -> Result<Vec<i64>, sqlx::Error> {
    let migrated: bool = sqlx::query_scalar("select count(*) > 0 from sqlite_schema where name = ?1")
        .bind(TABLE)
        .fetch_one(&mut *connection)
        .await?;
    if !migrated {
        return Ok(Vec::new());
    }
    match connection.list_applied_migrations(TABLE).await {
        Ok(rows) => Ok(rows.into_iter().map(|row| row.version).collect()),
        Err(SqlxMigrateError::Execute(error)) => Err(error),
        Err(other) => Err(sqlx::Error::Migrate(Box::new(other))),
    }
}

impl SqliteStore {
    pub(super) async fn check_schema(&self) -> Result<(), SchemaError> {
        let versions = self.read("check", |connection| Box::pin(applied(connection))).await?;
        let (found, needed) = (versions.into_iter().max().unwrap_or(0), newest(&MIGRATIONS));
        if found == needed { Ok(()) } else { Err(SchemaError::Version { found, needed }) }
    }
}
