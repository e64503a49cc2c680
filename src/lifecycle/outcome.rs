//! How components end, and how the process ended by that.

use tokio::task::{Id, JoinError};
use tracing::{error, info};

/// What components return. Its message is logged, so it holds no secret.
pub type Ended = anyhow::Result<()>;

/// What a component could neither write nor publish before its end, and who mends it: an error that
/// is told apart from failures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Left(pub String);

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The first component that ended unasked or with an error, and what it said.
    pub failed: Option<String>,
    /// What could neither be written nor published, by component: the database or the broker was away.
    pub left: Vec<String>,
    /// Components that did not end within their budgets.
    pub unfinished: Vec<&'static str>,
    /// A second signal came.
    pub aborted: bool,
}

impl Outcome {
    /// Whether everything ended as it should.
    pub fn is_clean(&self) -> bool {
        self.failed.is_none() && self.left.is_empty() && self.unfinished.is_empty() && !self.aborted
    }

    /// Notes how a component ended that was asked to.
    pub(super) fn note(&mut self, name: &'static str, end: Result<(), How>) {
        match end {
            Ok(()) => info!(component = name, "stopped"),
            // What is left is told for all at once, in the end.
            Err(How::Left(what)) => {
                info!(component = name, "stopped, and leaves something");
                self.left.push(format!("{name}: {what}"));
            }
            Err(How::Failed(how)) => {
                error!(component = name, how, "failed while stopping");
                self.failed.get_or_insert(format!("{name}: {how}"));
            }
        }
    }
}

/// An end that was not well.
pub(super) enum How {
    Failed(String),
    Left(String),
}

/// A task's end, as tokio tells it.
pub(super) type Joined = Result<(Id, Ended), JoinError>;

/// Whose end it was, and how it ended.
pub(super) fn end_of(joined: Joined) -> (Id, Result<(), How>) {
    match joined {
        Ok((id, Ok(()))) => (id, Ok(())),
        Ok((id, Err(error))) if error.is::<Left>() => (id, Err(How::Left(error.to_string()))),
        // The whole chain: the outermost message alone seldom tells what happened.
        Ok((id, Err(error))) => (id, Err(How::Failed(format!("{error:#}")))),
        Err(error) => (error.id(), Err(How::Failed(how_it_broke(&error)))),
    }
}

fn how_it_broke(error: &JoinError) -> String {
    if error.is_panic() { "panicked; the log has the message".to_owned() } else { "was cancelled".to_owned() }
}
