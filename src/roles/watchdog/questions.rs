//! What is asked through Kafka for the sake of an order in doubt. A deadline ends the wait for the question
//! that was on its way, and asks its own; that is published beside the deadlines, which wait for no broker. One
//! that is lost stands in the order's case, and is asked again a minute late.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tracing::warn;

use crate::domain::{Command, Order, ProviderId, Transition};
use crate::ports::OutRecord;
use crate::roles::{RoleError, StopSignals, patience};

use super::Watchdog;

/// Questions that wait to be published; what is more is left to the cases.
const WAITING_MAX: usize = 10_000;
/// A lane takes its questions within this time, or is ill.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Where the questions of verdicts are handed in.
#[derive(Debug)]
pub(super) struct Questions(mpsc::Sender<Asked>);

/// A question of an order in doubt.
#[derive(Debug)]
pub(super) struct Asked {
    order: Order,
    command: Command,
}

impl Questions {
    pub(super) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (handed_in, waiting) = mpsc::channel(WAITING_MAX);
        (Self(handed_in), waiting)
    }

    /// Asks what a verdict that was written wants to be asked.
    pub(super) fn ask(&self, verdict: &Transition) {
        let Some(follow_up) = &verdict.follow_up else { return };
        let asked = Asked { order: verdict.after.clone(), command: follow_up.command.clone() };
        // One for which there is no room is found by its case.
        drop(self.0.try_send(asked));
    }
}

impl Watchdog {
    /// Publishes what verdicts ask, until told to stop.
    pub(super) async fn ask_for_verdicts(
        &self,
        mut waiting: mpsc::Receiver<Asked>,
        stop: &StopSignals,
    ) -> Result<(), RoleError> {
        let mut page = Vec::new();
        loop {
            let came = tokio::select! {
                biased; // Stopping comes before more work: the cases remember.
                () = stop.drain.cancelled() => return Ok(()),
                came = waiting.recv_many(&mut page, self.rules.batch_max) => came,
            };
            if came == 0 {
                return Ok(());
            }
            let mut records: HashMap<ProviderId, Vec<OutRecord>> = HashMap::new();
            for asked in page.drain(..) {
                if let Some((lane, record)) = self.question(&asked.order, &asked.command) {
                    records.entry(lane).or_default().push(record);
                }
            }
            self.ask_lanes(records, stop).await;
        }
    }

    /// A question about an order, for its lane; `None` where that is not configured.
    pub(super) fn question(&self, order: &Order, command: &Command) -> Option<(ProviderId, OutRecord)> {
        let lane = order.provider.as_ref()?;
        let topics = self.rules.lanes.get(lane)?;
        Some((lane.clone(), self.rules.commands.due(topics, command, &order.recipient, self.clock.now())))
    }

    /// Publishes questions, each lane's by itself; returns how many were taken. A lane that takes none keeps
    /// no other one waiting, and its questions are asked again when they are overdue.
    pub(super) async fn ask_lanes(&self, records: HashMap<ProviderId, Vec<OutRecord>>, stop: &StopSignals) -> usize {
        let lanes = records.into_iter().map(|(lane, records)| self.ask_lane(lane, records, stop));
        join_all(lanes).await.into_iter().sum()
    }

    async fn ask_lane(&self, lane: ProviderId, records: Vec<OutRecord>, stop: &StopSignals) -> usize {
        let questions = records.len();
        let asks = patience::published("questions", self.publisher.as_ref(), records, &stop.drain);
        match tokio::time::timeout(TAKEN_WITHIN, asks).await {
            Ok(true) => questions,
            Ok(false) => 0,
            Err(_) => {
                warn!(%lane, questions, "this lane takes no questions: they are asked again in a minute");
                0
            }
        }
    }
}
