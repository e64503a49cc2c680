//! A role as the lifecycle takes it.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Left, Lifecycle};
use crate::roles::RoleError;

/// A role, ready to run.
pub(super) struct Running {
    name: &'static str,
    budget: Duration,
    give_up: CancellationToken,
    start: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> + Send>,
}

impl Running {
    /// A role that takes no new work as soon as the process is told to end.
    pub(super) fn new(
        name: String,
        budget: Duration,
        give_up: CancellationToken,
        work: impl Future<Output = Result<(), RoleError>> + Send + 'static,
    ) -> Self {
        Self::in_turn(name, budget, give_up, |_| work)
    }

    /// A role that goes on until it is its turn to end.
    pub(super) fn in_turn<F>(
        name: String,
        budget: Duration,
        give_up: CancellationToken,
        start: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), RoleError>> + Send + 'static,
    {
        let start = |turn| {
            async move {
                start(turn).await.map_err(|error| match error {
                    RoleError::Left(what) => Left(what).into(),
                    error @ (RoleError::Subscription(_)
                    | RoleError::Task(_)
                    | RoleError::Render(_)
                    | RoleError::Store(_)) => error.into(),
                })
            }
            .boxed()
        };
        // A handful per process, for its whole life.
        Self { name: name.leak(), budget, give_up, start: Box::new(start) }
    }

    pub(super) fn add_to(self, lifecycle: &mut Lifecycle) {
        lifecycle.add_patient(self.name, self.budget, self.give_up, self.start);
    }
}
