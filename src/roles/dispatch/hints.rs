//! Hints on their way to the broker, each before the row that asks for it. A topic has a task and a queue of its own:
//! one that takes nothing holds up the orders whose hints go there, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::ports::{OutRecord, StoreError};
use crate::roles::patience;

use super::Lane;
use super::pending::{Ended, Step};

/// What waits for its hint. Bounded by whoever pushes: each step holds a place among the outcomes in hand.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: BTreeMap<Arc<str>, Vec<(OutRecord, Step)>>,
    /// Topics whose task is under way.
    busy: BTreeSet<Arc<str>>,
    tasks: JoinSet<(Arc<str>, Result<Ended, StoreError>)>,
}

impl Hints {
    pub(super) fn push(&mut self, record: OutRecord, step: Step) {
        self.waiting.entry(Arc::clone(&record.topic)).or_default().push((record, step));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.tasks.is_empty()
    }

    /// Starts a task for each topic that has something to write and none under way. It publishes a batch, and
    /// then writes its rows.
    pub(super) fn start(&mut self, lane: &Lane, abort: &CancellationToken) {
        let free = |topic: &&Arc<str>| !self.busy.contains(*topic);
        let topics: Vec<Arc<str>> = self.waiting.keys().filter(free).cloned().collect();
        for topic in topics {
            let Some(mut batch) = self.waiting.remove(&topic) else { continue };
            let most = lane.rules.batch_max.max(1);
            if batch.len() > most {
                let later = batch.split_off(most);
                self.waiting.insert(Arc::clone(&topic), later);
            }
            self.busy.insert(Arc::clone(&topic));
            let (lane, abort) = (lane.clone(), abort.clone());
            self.tasks.spawn(async move {
                let (records, steps) = batch.into_iter().unzip();
                if !patience::published("retries and questions", lane.publisher.as_ref(), records, &abort).await {
                    // Told to drop everything: the rows are as they were.
                    return (topic, Ok(Ended::default()));
                }
                (topic, lane.write(steps, &abort).await)
            });
        }
    }

    /// What has become of the next batch that ends; `None` where there is none under way.
    pub(super) async fn next(&mut self) -> Option<Result<Result<Ended, StoreError>, JoinError>> {
        let ended = self.tasks.join_next().await?;
        Some(ended.map(|(topic, ended)| {
            self.busy.remove(&topic);
            ended
        }))
    }
}
