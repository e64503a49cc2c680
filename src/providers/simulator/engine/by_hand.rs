//! A callback by decision from outside: how a reference stands, told once and now.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::callbacks::{Answer, End, Kind, Message};
use super::super::dialect::Telling;
use super::{Engine, Life, lock_shard};
use crate::domain::{ClientRef, Money};

/// A callback by decision from outside.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct ByHand<'a> {
    pub(in super::super) url: Option<&'a str>,
    pub(in super::super) is_forged: bool,
    pub(in super::super) is_stale: bool,
}

/// Why a callback cannot be sent by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum ByHandError {
    /// Never heard of, or nothing was done.
    #[error("no such reference: list them with GET /_admin/references")]
    Unknown,
    /// Nowhere to send it to.
    #[error("there is no address for it: give one as url, http://HOST:PORT/PATH")]
    Unaddressed,
    /// It was not sent.
    #[error("it was not sent: too many callbacks wait, or the simulator ends")]
    NotSent,
}

impl Engine {
    /// Tells how a reference stands, once and now, and returns what was answered.
    pub(in super::super) async fn tell_by_hand(
        &self,
        client_ref: &str,
        by_hand: ByHand<'_>,
    ) -> Result<Answer, ByHandError> {
        let (known, life, amount) = self.listener(client_ref).ok_or(ByHandError::Unknown)?;
        let to = self.address(by_hand.url.or(known.as_deref())).ok_or(ByHandError::Unaddressed)?;
        let telling = Telling { is_stale: by_hand.is_stale, ..Telling::of(&ClientRef::from_stored(client_ref), life) };
        let (first, answer) = oneshot::channel();
        let mut message = if by_hand.is_forged {
            let end = End { seed: self.seed, reference: client_ref, nth: 0, word: 0, planned: None, is_scripted: true };
            // Of what was refused at once no amount is kept.
            let amount = amount.unwrap_or(Money { minor: 100, currency: self.currency });
            self.forged(&to, amount, telling, &end).ok_or(ByHandError::Unaddressed)?
        } else {
            let kind = if by_hand.is_stale { Kind::Stale } else { Kind::Once };
            Message::telling(&to, kind, telling)
        };
        message.first = Some(first);
        self.put(Instant::now(), message);
        answer.await.map_err(|_| ByHandError::NotSent)
    }

    /// Where a reference's callbacks go, and how it stands; `None` if nothing is known of it.
    fn listener(&self, client_ref: &str) -> Option<(Option<Box<str>>, Life, Option<Money>)> {
        let shard = lock_shard(&self.shards, client_ref);
        let reference = shard.get(client_ref).filter(|reference| reference.life != Life::Nothing)?;
        let url = reference.listener.as_ref().and_then(|listener| listener.url.clone());
        let amount = match reference.life {
            Life::Delivered { amount, .. } | Life::Reversed { amount, .. } => Some(amount),
            Life::Nothing | Life::InProgress | Life::Refused(_) => {
                reference.rest.as_ref().map(|rest| rest.order.amount)
            }
        };
        Some((url, reference.life, amount))
    }
}
