//! The roles of the service. Each is a loop over ports, knows no adapter, and can run beside
//! others in one process or alone in many.

mod at_hand;
mod board;
pub mod callback;
pub mod commands;
pub mod dead_letter;
pub mod delay;
pub mod delayed;
pub mod dispatch;
pub mod intake;
pub mod patience;
pub mod relay;
pub mod replay;
pub mod watchdog;

use tokio_util::sync::CancellationToken;

use crate::ports::Stopped;

pub use at_hand::RowsAtHand;
pub use board::LaneBoard;

/// How a role is told to end: first it takes no new work and finishes what it has, then it
/// drops what it has. What is dropped stays uncommitted and comes again.
#[derive(Debug, Clone, Default)]
pub struct StopSignals {
    /// Take no new work.
    pub drain: CancellationToken,
    /// Drop everything.
    pub abort: CancellationToken,
}

/// Why a role ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// No more input.
    #[error(transparent)]
    Subscription(#[from] Stopped),
    /// A part of the role panicked: a defect.
    #[error("a task of the role ended by itself: {0}")]
    Task(String),
    /// Told to drop everything, it dropped what it could neither write nor publish; the text says
    /// what, and who mends it.
    #[error("{0}")]
    Left(String),
    /// An event could not be written in its public form: a defect.
    #[error("an event cannot be written as it is published")]
    Render(#[source] std::io::Error),
    /// The store refuses for good.
    #[error("the store cannot be used")]
    Store(#[from] crate::ports::StoreError),
}
