//! `recharged lanes`: which lanes take orders, and stopping one for the whole fleet.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::config::{ConfigArgs, environment};
use super::orders::{time, trouble};
use super::output::{CliError, Output};
use super::values;
use crate::app::open_checked_store;
use crate::config::{Config, Needs};
use crate::domain::ProviderId;
use crate::ports::{LaneChange, Store};

/// `recharged lanes`.
#[derive(Debug, Clone, Args)]
pub struct LanesArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: LanesAction,
}

/// What to do with the lanes.
#[derive(Debug, Clone, Subcommand)]
pub enum LanesAction {
    /// Lists the lanes of the configuration, and which of them are paused
    #[command(after_help = "Example:\n  recharged lanes list --json")]
    List {
        #[command(flatten)]
        #[doc(hidden)]
        from: ConfigArgs,
    },
    /// Lets a lane take no orders, in every process, within two seconds
    ///
    /// Orders go to the next lane of their route, where there is one; the others wait, and fail with a refund at
    /// their deadlines. What was sent already is asked about as before.
    #[command(after_help = "Example:\n  recharged lanes pause primary --by \"A. Duty\" --why \"their incident 4711\"")]
    Pause(Change),
    /// Lets a lane take orders again
    #[command(after_help = "Example:\n  recharged lanes resume primary --by \"A. Duty\" --why \"they are back\"")]
    Resume(Change),
}

/// What a person says of a lane.
#[derive(Debug, Clone, Args)]
pub struct Change {
    #[command(flatten)]
    #[doc(hidden)]
    pub(crate) from: ConfigArgs,
    /// The lane: a provider's name in the configuration
    pub lane: String,
    /// Who says so
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub by: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = values::evidence)]
    pub why: String,
}

pub(crate) async fn run(args: LanesArgs, output: Output) -> Result<(), CliError> {
    let (LanesAction::List { from }
    | LanesAction::Pause(Change { from, .. })
    | LanesAction::Resume(Change { from, .. })) = &args.action;
    let loaded = from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    let (is_paused, Change { lane, by, why, .. }) = match args.action {
        LanesAction::List { .. } => return list(store.as_ref(), &loaded.config, output).await,
        LanesAction::Pause(change) => (true, change),
        LanesAction::Resume(change) => (false, change),
    };
    let lane = known(&lane, &loaded.config)?;
    let at = store.now().await.map_err(|error| trouble(&error))?;
    let change = LaneChange { lane, is_paused, by, why, at };
    let is_news = store.change_lane(&change).await.map_err(|error| trouble(&error))?;
    let state = if is_paused { "paused" } else { "open" };
    if output.json {
        return output.object(&Row::of(&change.lane, Some(&change)));
    }
    if is_news {
        output.line(format_args!("{} is {state}; every process knows it within two seconds", change.lane))
    } else {
        output.line(format_args!("{} is {state} already", change.lane))
    }
}

/// Only a lane of the configuration: a name that is misspelt would pause nothing.
pub(super) fn known(lane: &str, config: &Config) -> Result<ProviderId, CliError> {
    let lanes = config.lanes();
    lanes.iter().find(|known| known.as_str() == lane).cloned().ok_or_else(|| {
        let names: Vec<&str> = lanes.iter().map(ProviderId::as_str).collect();
        CliError::usage(format!("there is no lane {lane:?}; the configuration has {}", names.join(", ")))
    })
}

/// A lane as programs read it.
#[derive(Serialize)]
struct Row<'a> {
    lane: &'a ProviderId,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

impl<'a> Row<'a> {
    fn of(lane: &'a ProviderId, change: Option<&'a LaneChange>) -> Self {
        Self {
            lane,
            paused: change.is_some_and(|change| change.is_paused),
            by: change.map(|change| change.by.as_str()),
            why: change.map(|change| change.why.as_str()),
            since: change.map(|change| time(change.at)),
        }
    }
}

async fn list(store: &dyn Store, config: &Config, output: Output) -> Result<(), CliError> {
    let changes = store.lane_changes().await.map_err(|error| trouble(&error))?;
    let mut lanes = config.lanes();
    // One that is paused and configured elsewhere only is worth knowing of.
    lanes.extend(changes.iter().filter(|change| change.is_paused).map(|change| change.lane.clone()));
    lanes.sort();
    lanes.dedup();
    if !output.json {
        output.line(format_args!("{:<32} {:<8} {:<26} {:<20} WHY", "LANE", "STATE", "SINCE", "BY"))?;
    }
    for lane in &lanes {
        let row = Row::of(lane, changes.iter().find(|change| change.lane == *lane));
        if output.json {
            output.object(&row)?;
        } else {
            output.line(format_args!(
                "{:<32} {:<8} {:<26} {:<20} {}",
                row.lane.as_str(),
                if row.paused { "paused" } else { "open" },
                row.since.as_deref().unwrap_or("-"),
                row.by.unwrap_or("-"),
                row.why.unwrap_or("-")
            ))?;
        }
    }
    Ok(())
}
