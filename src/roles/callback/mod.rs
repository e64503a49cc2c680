//! Callbacks: what providers tell of their own accord.
//!
//! A callback's way: the listener hands it to the [`Door`], which has its provider's adapter check and read it and finds
//! whose attempt it speaks of; then it waits a moment for company, and a batch is dealt with together (`batch`). What is
//! proven settles its order, like the answer to a query (`settle`); what is not only leads to a question (`heed`). It is
//! acknowledged when the database or the broker owns what follows, else the provider is to send it again.

mod batch;
mod door;
mod heed;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::domain::{CallbackLinks, OrderId, Policy, ProviderId};
use crate::metrics::{CallbackMetrics, OutcomeMetrics};
use crate::ports::{CallbackBook, CallbackNews, Clock, LaneTopics, OrderStore, Publisher, Questions, RechargeProvider};
use crate::roles::commands::CommandWriter;

use super::{LaneBoard, RoleError, StopSignals};

pub use door::Door;
#[cfg(any(test, fuzzing))]
pub(crate) use door::read as read_callback;

/// Callbacks wait this long for company.
const LINGER: Duration = Duration::from_millis(2);
/// Some providers give up after two seconds: until then a callback is dealt with, or sent again.
const WITHIN: Duration = Duration::from_millis(1_500);

/// The role.
#[derive(Debug)]
pub struct Callbacks {
    /// The orders.
    pub store: Arc<dyn OrderStore>,
    /// When they are asked about.
    pub questions: Arc<dyn Questions>,
    /// Which callbacks were dealt with.
    pub book: Arc<dyn CallbackBook>,
    /// For retries and questions.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules.
    pub rules: CallbackRules,
    /// The numbers.
    pub metrics: CallbackMetrics,
    /// What became of orders.
    pub outcomes: Arc<OutcomeMetrics>,
    /// Which lanes take orders.
    pub board: Arc<LaneBoard>,
}

/// What the role goes by.
#[derive(Debug)]
pub struct CallbackRules {
    /// For `decide`.
    pub policy: Policy,
    /// How commands are written.
    pub commands: CommandWriter,
    /// Where the lanes' commands go.
    pub lanes: HashMap<ProviderId, LaneTopics>,
    /// Those who may call back.
    pub callers: HashMap<ProviderId, Caller>,
    /// Callbacks in one statement at most.
    pub batch_max: usize,
    /// Batches under way at once.
    pub writers: usize,
}

/// A provider that may call back.
#[derive(Debug)]
pub struct Caller {
    /// Reads what it sends.
    pub provider: Arc<dyn RechargeProvider>,
    /// Reads the addresses that it was given, if it was given any.
    pub links: Option<CallbackLinks>,
    /// Where it calls from; from anywhere, if nothing is said.
    pub from: Vec<IpNet>,
}

impl Caller {
    fn may_call_from(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.from.is_empty() || self.from.iter().any(|network| network.contains(&address))
    }
}

/// A callback that its adapter has read, about an attempt that there may be.
#[derive(Debug)]
struct Told {
    provider: ProviderId,
    order_id: OrderId,
    attempt: u16,
    news: CallbackNews,
    /// Told when it is dealt with; dropped, its provider is to send it again.
    done: oneshot::Sender<()>,
    /// Others of its batch that say the same, and hear the same.
    twins: Vec<oneshot::Sender<()>>,
}

impl Callbacks {
    /// The rules as they are now.
    fn policy(&self) -> Policy {
        Policy { shut: self.board.shut(), ..self.rules.policy.clone() }
    }

    /// The role, and where callbacks are handed in.
    pub fn open(self) -> (Open, Arc<Door>) {
        let (told, waiting) = mpsc::channel(self.rules.batch_max.max(1) * self.rules.writers.max(1));
        let role = Arc::new(self);
        (Open { role: Arc::clone(&role), waiting }, Arc::new(Door::new(role, told)))
    }
}

/// The role, ready to run.
#[derive(Debug)]
pub struct Open {
    role: Arc<Callbacks>,
    waiting: mpsc::Receiver<Told>,
}

impl Open {
    /// Works until told to stop; what is in hand then is dealt with, and what comes later is to be sent again.
    pub async fn run(mut self, stop: StopSignals) -> Result<(), RoleError> {
        let mut under_way: JoinSet<()> = JoinSet::new();
        let batch_max = self.role.rules.batch_max.max(1);
        loop {
            let may_begin = under_way.len() < self.role.rules.writers.max(1);
            let mut batch = Vec::new();
            tokio::select! {
                biased; // Stopping comes before more work, and room for a batch before the batch.
                () = stop.drain.cancelled() => break,
                Some(ended) = under_way.join_next() => ended.map_err(|error| RoleError::Task(error.to_string()))?,
                came = self.waiting.recv_many(&mut batch, batch_max), if may_begin => {
                    if came == 0 {
                        break;
                    }
                    gather(&mut self.waiting, &mut batch, batch_max).await;
                    let (role, abort) = (Arc::clone(&self.role), stop.abort.clone());
                    under_way.spawn(async move { role.deal_with(batch, &abort).await });
                }
            }
        }
        self.waiting.close();
        while let Some(ended) = under_way.join_next().await {
            ended.map_err(|error| RoleError::Task(error.to_string()))?;
        }
        Ok(())
    }
}

/// Lets a batch grow for a moment.
async fn gather(waiting: &mut mpsc::Receiver<Told>, batch: &mut Vec<Told>, most: usize) {
    let until = Instant::now() + LINGER;
    while batch.len() < most {
        let room = most - batch.len();
        match tokio::time::timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
}
