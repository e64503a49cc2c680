//! `recharged topics`: makes the topics, or holds them against the configuration.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Exit, Output};
use crate::app::{broker_trouble, kafka_options, topic_plans};
use crate::config::Needs;
use crate::kafka::topics;

/// `recharged topics`.
#[derive(Debug, Clone, Args)]
pub struct TopicsArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TopicsAction,
}

/// What to do with the topics.
#[derive(Debug, Clone, Subcommand)]
pub enum TopicsAction {
    /// Makes what is missing; never shrinks or deletes
    #[command(after_help = "Example:\n  recharged topics create --config recharged.toml")]
    Create {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
    /// Compares partitions, replication, retention and sizes; exit 1 on any difference
    #[command(after_help = "Example:\n  recharged topics verify --config recharged.toml")]
    Verify {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
}

#[derive(Serialize)]
struct Line {
    ok: bool,
    told: String,
}

pub(crate) async fn run(args: TopicsArgs, output: Output) -> Result<(), CliError> {
    let (TopicsAction::Create { from } | TopicsAction::Verify { from }) = &args.action;
    let loaded = from.load(Needs::KAFKA)?;
    let secrets = loaded.secrets(environment())?;
    let kafka = kafka_options(&loaded.config, &secrets);
    let plans = topic_plans(&loaded.config);
    let unreachable = |error| CliError::from(broker_trouble(&loaded.config, &error));
    if matches!(args.action, TopicsAction::Create { .. }) {
        for outcome in topics::create(&kafka, &plans).await.map_err(unreachable)? {
            let ok = !matches!(outcome, topics::Outcome::Refused { .. });
            say(output, ok, outcome.to_string())?;
        }
    }
    // What could not be raised is told after a creation, too.
    let problems = topics::verify(&kafka, &plans, topics::ANSWER_LIMIT).await.map_err(unreachable)?;
    for problem in &problems {
        say(output, false, problem.to_string())?;
    }
    if problems.is_empty() {
        return say(output, true, format!("{} topics are as configured", plans.len()));
    }
    Err(CliError::silent(Exit::Failed))
}

fn say(output: Output, ok: bool, told: String) -> Result<(), CliError> {
    if output.json { output.object(&Line { ok, told }) } else { output.line(told) }
}
