//! What a batch publishes when it is stored: commands, events that wait for their order, dead letters.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::inbound::Unfit;
use crate::domain::{Command, CommandKind, FollowUp, Order, OrderId, Recipient, State};
use crate::faults::{Bug, is_planted};
use crate::ports::OutRecord;
use crate::roles::{dead_letter, patience};

use super::Intake;
use super::early::Taken;

/// What a batch leaves that acts on no order, by its place in the batch.
#[derive(Default)]
pub(super) struct Left {
    /// For the dead letters.
    pub(super) unfit: Vec<(usize, Unfit)>,
    /// Their order is not there yet.
    pub(super) early: Vec<usize>,
}

/// The commands to publish after a batch, one per order, the latest asked; in the order in which
/// their orders came.
#[derive(Default)]
pub(super) struct Commands {
    asked: Vec<(FollowUp, Recipient)>,
    places: HashMap<OrderId, usize, RandomState>,
}

impl Commands {
    pub(super) fn follow(&mut self, follow_up: Option<FollowUp>, recipient: &Recipient) {
        let Some(follow_up) = follow_up else { return };
        let place = *self.places.entry(follow_up.command.order_id.clone()).or_insert(self.asked.len());
        match self.asked.get_mut(place) {
            Some(asked) => asked.0 = follow_up,
            None => self.asked.push((follow_up, recipient.clone())),
        }
    }

    /// The row was there already: if nothing was ever sent for it, its command may never have
    /// been published, so it is asked for again.
    pub(super) fn again(&mut self, row: &Order) {
        let was_never_sent = row.state == State::Queued && row.attempt.is_none() && !is_planted(Bug::ForgetTheCommand);
        if let Some(lane) = row.provider.clone().filter(|_| was_never_sent) {
            self.follow(Some(FollowUp { lane, command: Command::of(CommandKind::Submit, row) }), &row.recipient);
        }
    }
}

impl Intake {
    /// Publishes commands, what waits for its order, and dead letters; `false` if told to stop before all were
    /// acknowledged.
    pub(super) async fn publish(
        &self,
        commands: Commands,
        records: &[Taken],
        left: Left,
        abort: &CancellationToken,
    ) -> bool {
        let mut out = self.command_records(commands);
        let Left { mut unfit, early } = left;
        let (now, mut waits, mut waits_again) = (self.clock.now(), 0, 0);
        for place in early {
            let Some(taken) = records.get(place) else { continue };
            match taken.put_off(&self.rules.timers, &self.rules.commands.tiers, now) {
                Ok(waiting) => {
                    waits += 1;
                    waits_again += u64::from(taken.has_waited());
                    out.push(waiting);
                }
                Err(why) => unfit.push((place, why)),
            }
        }
        for (place, why) in &unfit {
            let Some(Taken { record, first_seen, .. }) = records.get(*place) else { continue };
            warn!(topic = %record.topic, partition = record.partition, offset = record.offset, reason = %why.reason,
                "a record goes to the dead letters: {}", why.detail);
            out.push(dead_letter::record(&self.rules.dead_letters, record, why, first_seen.unwrap_or(now)));
        }
        if !patience::published("intake", self.publisher.as_ref(), out, abort).await {
            return false;
        }
        for (place, why) in &unfit {
            self.metrics.rejected(why.reason.as_str(), 1);
            if let Some(taken) = records.get(*place) {
                crate::metrics::dead_letter(&taken.read_from, why.reason.as_str(), 1);
            }
        }
        let is_unfit = |place: usize| unfit.iter().any(|(of, _)| *of == place);
        let back = records.iter().enumerate().filter(|(place, taken)| taken.has_waited() && !is_unfit(*place));
        self.metrics.early(waits, (back.count() as u64).saturating_sub(waits_again));
        true
    }

    fn command_records(&self, commands: Commands) -> Vec<OutRecord> {
        let mut out = Vec::with_capacity(commands.asked.len());
        for (follow_up, recipient) in commands.asked {
            let Some(topics) = self.rules.lanes.get(&follow_up.lane) else {
                error!(lane = %follow_up.lane, order_id = %follow_up.command.order_id,
                    "an order is in a lane that is not configured; it waits for the watchdog");
                continue;
            };
            out.push(self.rules.commands.fresh(topics, &follow_up.command, &recipient));
        }
        out
    }
}
