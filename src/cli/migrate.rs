//! `recharged migrate`: brings the store's schema to what this build needs.

use std::fmt;

use clap::Args;
use serde::Serialize;

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Exit, Output};
use crate::app::{StartError, chain, store_options, store_trouble};
use crate::config::Needs;
use crate::store::{self, MigrateError, PendingMigration};

/// `recharged migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// Only tell what would be done; exit 1 if the schema is not right
    #[arg(long)]
    pub check: bool,
}

#[derive(Serialize)]
struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    applied: Vec<Migration>,
    pending: Vec<Migration>,
}

#[derive(Serialize)]
struct Migration {
    version: i64,
    description: String,
}

impl From<PendingMigration> for Migration {
    fn from(migration: PendingMigration) -> Self {
        Self { version: migration.version, description: migration.description }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for migration in &self.applied {
            writeln!(f, "applied {} {}", migration.version, migration.description)?;
        }
        for migration in &self.pending {
            writeln!(f, "lacks   {} {}", migration.version, migration.description)?;
        }
        match self.version {
            Some(version) => write!(f, "the schema is at version {version}"),
            None if self.pending.is_empty() => f.write_str("the schema is right"),
            None => f.write_str("the schema is not right: run `recharged migrate`"),
        }
    }
}

pub(crate) async fn run(args: MigrateArgs, output: Output) -> Result<(), CliError> {
    let loaded = args.from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    let (url, options) = (loaded.config.store.url.expose(), store_options(&loaded.config, &secrets));
    if args.check {
        let pending = store::pending_migrations(url, &options).await.map_err(|error| trouble(&error))?;
        let right = pending.is_empty();
        let pending = pending.into_iter().map(Into::into).collect();
        output.result(&Told { version: None, applied: Vec::new(), pending })?;
        return if right { Ok(()) } else { Err(CliError::silent(Exit::Failed)) };
    }
    let report = store::migrate(url, &options).await.map_err(|error| trouble(&error))?;
    let applied = report.applied.into_iter().map(Into::into).collect();
    output.result(&Told { version: Some(report.version), applied, pending: Vec::new() })
}

fn trouble(error: &MigrateError) -> CliError {
    match error {
        MigrateError::Open(error) => store_trouble(error).into(),
        MigrateError::Apply(_) => StartError::Failed(format!("store.url: {}", chain(error))).into(),
    }
}
