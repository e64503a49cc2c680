//! Commands as records: to which topic of a lane, under which key, and where they wait.

use bytes::Bytes;

use crate::domain::msisdn::PhoneKey;
use crate::domain::{Command, OrderId, Recipient, Timestamp};
use crate::ports::{LaneTopics, OutRecord, command_record};

use super::delayed::DelayTiers;

/// Writes commands for lanes.
#[derive(Debug, Clone)]
pub struct CommandWriter {
    /// The key for phone numbers' hashes: commands for one number stay together, and none of them
    /// tells the number.
    pub phone_key: PhoneKey,
    /// Where a command waits whose time has not come.
    pub tiers: DelayTiers,
}

impl CommandWriter {
    /// For an order that was never sent.
    pub fn fresh(&self, lane: &LaneTopics, command: &Command, recipient: &Recipient) -> OutRecord {
        command_record(&lane.requests, self.key(&command.order_id, recipient), command)
    }

    /// For a further attempt or a question, through the delay tiers where it waits.
    pub fn due(&self, lane: &LaneTopics, command: &Command, recipient: &Recipient, now: Timestamp) -> OutRecord {
        let record = command_record(&lane.due, self.key(&command.order_id, recipient), command);
        match command.wake_at {
            Some(due_at) => self.tiers.put_off(record, due_at, now),
            None => record,
        }
    }

    fn key(&self, order_id: &OrderId, recipient: &Recipient) -> Bytes {
        recipient.msisdn().map_or_else(
            || Bytes::copy_from_slice(order_id.as_str().as_bytes()),
            |msisdn| Bytes::copy_from_slice(msisdn.keyed_hash(&self.phone_key).as_bytes()),
        )
    }
}
