//! `recharged config`: is it right, what is in force, and what may be written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::{CliError, Exit, Output};
use crate::config::{Config, ConfigProblem, Loaded, Needs, Shown};

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "RECHARGED_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets one key, over the file and the environment; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

impl ConfigArgs {
    /// Reads and checks all layers, and that nothing is missing that the command needs.
    pub(crate) fn load(&self, needs: Needs) -> Result<Loaded, CliError> {
        let loaded = self.read()?;
        loaded.require(needs)?;
        Ok(loaded)
    }

    fn read(&self) -> Result<Loaded, Vec<ConfigProblem>> {
        Config::load(self.config.as_deref(), environment(), &self.sets)
    }
}

/// The environment as far as it is text.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// `recharged config`.
#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Checks a configuration without opening anything
    #[command(after_help = "Example:\n  recharged config check --config recharged.toml")]
    Check {
        #[command(flatten)]
        from: ConfigArgs,
        /// Read the secrets that it names, too
        #[arg(long)]
        secrets: bool,
    },
    /// Shows what is in force, each value with its source; secrets are masked
    #[command(after_help = "Example:\n  recharged config show --config recharged.toml --set sla.deadline=120s")]
    Show {
        #[command(flatten)]
        from: ConfigArgs,
    },
    /// Prints the JSON Schema of the file, for editors and charts
    #[command(after_help = "Example:\n  recharged config schema > recharged.schema.json")]
    Schema,
}

#[derive(Serialize)]
struct Verdict {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_hash: Option<String>,
    problems: Vec<ConfigProblem>,
}

#[derive(Serialize)]
struct Effective {
    config_hash: String,
    values: BTreeMap<String, Shown>,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<(String, &str)> = self
            .values
            .iter()
            .map(|(key, shown)| (format!("{key} = {}", shown.value), shown.source.as_str()))
            .collect();
        // Long lists push their own source aside, not everybody's.
        let width = lines.iter().map(|(text, _)| text.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        for (text, source) in lines {
            writeln!(f, "{text:width$}  # {source}")?;
        }
        write!(f, "# fingerprint {}", self.config_hash)
    }
}

pub(crate) fn run(command: &ConfigCommand, output: Output) -> Result<(), CliError> {
    match &command.action {
        Action::Check { from, secrets } => check(from, *secrets, output),
        Action::Show { from } => {
            let loaded = from.read()?;
            output.result(&Effective { config_hash: loaded.config.fingerprint(), values: loaded.shown() })
        }
        Action::Schema => {
            let schema = Config::schema();
            if output.json { output.object(&schema) } else { output.line(format_args!("{schema:#}")) }
        }
    }
}

fn check(from: &ConfigArgs, secrets: bool, output: Output) -> Result<(), CliError> {
    let verdict = from.read().and_then(|loaded| {
        loaded.require(Needs::RUN)?;
        if secrets {
            loaded.secrets(environment())?;
        }
        Ok(loaded.config.fingerprint())
    });
    match verdict {
        Ok(config_hash) if output.json => {
            output.object(&Verdict { ok: true, config_hash: Some(config_hash), problems: Vec::new() })
        }
        Ok(config_hash) => output.line(format_args!("the configuration is right (fingerprint {config_hash})")),
        Err(problems) if output.json => {
            output.object(&Verdict { ok: false, config_hash: None, problems })?;
            Err(CliError::silent(Exit::Config))
        }
        Err(problems) => Err(problems.into()),
    }
}
