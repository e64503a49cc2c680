//! Which orders a command is about, as they are named on the command line.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::super::output::CliError;
use super::super::values;
use crate::domain::{ProviderId, State, Timestamp};
use crate::ports::OrderFilter;

/// What became of the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Refund {
    /// A refund was requested
    Requested,
    /// It was requested, and the payment side has not confirmed it
    Unconfirmed,
}

/// Which orders.
#[derive(Debug, Clone, Args)]
pub struct FilterArgs {
    /// Only in these states; may be repeated, or separated by commas
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = values::state)]
    pub state: Vec<State>,
    /// Only those that are at this lane by now; may be repeated, or separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub lane: Vec<String>,
    /// Only those that were created longer ago than this
    #[arg(long, value_name = "TIME", value_parser = values::duration, conflicts_with = "created_before")]
    pub older_than: Option<Duration>,
    /// Only those that were created at this moment or later, such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = values::moment)]
    pub created_from: Option<Timestamp>,
    /// Only those that were created before this moment
    #[arg(long, value_name = "MOMENT", value_parser = values::moment)]
    pub created_before: Option<Timestamp>,
    /// Only those whose deadline is at this moment or later
    #[arg(long, value_name = "MOMENT", value_parser = values::moment)]
    pub deadline_from: Option<Timestamp>,
    /// Only those whose deadline is before this moment
    #[arg(long, value_name = "MOMENT", value_parser = values::moment)]
    pub deadline_before: Option<Timestamp>,
    /// Only those that have an open case
    #[arg(long)]
    pub with_case: bool,
    /// Only those whose refund stands so
    #[arg(long, value_enum)]
    pub refund: Option<Refund>,
}

impl FilterArgs {
    /// At `now`, of a shop with these lanes.
    pub(super) fn filter<'a>(
        &self,
        now: Timestamp,
        lanes: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<OrderFilter, CliError> {
        let unknown = self.lane.iter().find(|name| !lanes.clone().any(|lane| lane == name.as_str()));
        if let Some(name) = unknown {
            let known: Vec<&str> = lanes.collect();
            return Err(CliError::config(format!(
                "--lane: the configuration has no lane {name:?}; it has {}",
                known.join(", ")
            )));
        }
        for (from, from_is, before, before_is) in [
            ("--created-from", self.created_from, "--created-before", self.created_before),
            ("--deadline-from", self.deadline_from, "--deadline-before", self.deadline_before),
        ] {
            if from_is.zip(before_is).is_some_and(|(from, before)| from >= before) {
                return Err(CliError::usage(format!("{from} is not before {before}: nothing can be between them")));
            }
        }
        Ok(OrderFilter {
            ids: Vec::new(),
            states: self.state.clone(),
            lanes: self.lane.iter().map(|name| ProviderId::new(name)).collect(),
            created_from: self.created_from,
            created_before: self.older_than.map(|age| now - age).or(self.created_before),
            deadline_from: self.deadline_from,
            deadline_before: self.deadline_before,
            only_with_case: self.with_case,
            only_refunded: self.refund.is_some(),
            only_unconfirmed: self.refund == Some(Refund::Unconfirmed),
        })
    }
}
