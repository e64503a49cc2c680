//! The execution of a recharge, up to its end and beyond.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::super::class::FaultClass;
use super::super::fate::{Fate, Opening, Refusal, Turn, Verdict};
use super::super::ledger::{Delivery, LedgerBroken};
use super::super::profile::Profile;
use super::super::stats::count;
use super::super::windows::Uncovered;
use super::{Engine, Life, Order, Rest, lock_shard};
use crate::domain::{Money, Timestamp};

/// Numbers that cool down are looked through when so many are known.
const COOLING_MANY: usize = 100_000;

impl Engine {
    /// Does it, or begins to. In a task of its own: a caller that goes away does not stop a
    /// provider, and a reference must not stay in progress for ever.
    pub(super) async fn execute(
        self: &Arc<Self>,
        order: &Order,
        fate: &Fate,
        profile: &Profile,
    ) -> Result<Life, LedgerBroken> {
        let (mut verdict, mut completes_after, mut held) = (fate.verdict, fate.completes_after, 0);
        if verdict == Verdict::Deliver {
            match self.may_deliver(order, fate, profile) {
                Ok(price) => held = price,
                Err((class, code)) => {
                    self.strikes.count(class, order.client_ref.as_str());
                    (verdict, completes_after) = (Verdict::Refuse(Refusal::for_good(code, None)), None);
                }
            }
        }
        let (engine, order, turn) = (Arc::clone(self), order.clone(), fate.turn);
        let Some(wait) = completes_after else {
            if let Verdict::Refuse(refusal) = verdict {
                return Ok(self.refuse(&order, refusal, turn));
            }
            return tokio::spawn(async move { engine.deliver(&order, turn).await }).await.unwrap_or(Err(LedgerBroken));
        };
        count(&self.counts.accepted);
        self.remember(&order, fate, held);
        if turn == Some(Turn::Never) {
            self.strikes.count(FaultClass::Never, order.client_ref.as_str());
            self.tell_progress(&order, Duration::MAX);
            return Ok(Life::InProgress);
        }
        self.tell_progress(&order, wait);
        let until = Instant::now() + wait;
        tokio::spawn(async move {
            tokio::select! {
                // Stopped: what is not delivered by now never is.
                biased;
                () = engine.stop.cancelled() => return,
                () = sleep_until(until) => {}
            }
            match verdict {
                _ if engine.is_resolved(&order) => {}
                Verdict::Refuse(refusal) => {
                    engine.refuse(&order, refusal, turn);
                }
                // A ledger that is broken was complained of by its writer.
                Verdict::Deliver => {
                    let _life = engine.deliver(&order, turn).await;
                }
            }
        });
        Ok(Life::InProgress)
    }

    /// Whether the number has cooled down and our money covers it; then the money is taken, and how much.
    fn may_deliver(&self, order: &Order, fate: &Fate, profile: &Profile) -> Result<i64, (FaultClass, &'static str)> {
        const FLOAT: &str = "insufficient_float";
        if let Some(Opening::EmptyFloat(lasts)) = fate.opening {
            self.windows.empty_float(lasts);
            return Err((FaultClass::EmptyFloat, FLOAT));
        }
        if let Some(cooldown) = profile.cooldown.filter(|_| !fate.is_scripted) {
            let now = Instant::now();
            let mut cooling = self.cooling.lock().unwrap_or_else(PoisonError::into_inner);
            if cooling.get(&order.phone).is_some_and(|until| now < *until) {
                return Err((FaultClass::Cooldown, "cooldown_active"));
            }
            if cooling.len() >= COOLING_MANY {
                cooling.retain(|_, until| now < *until);
            }
            cooling.insert(order.phone, now + cooldown);
        }
        let price = delivered_amount(order.amount, fate.turn).minor;
        self.windows.hold(price, fate.is_scripted).map_err(|why| match why {
            Uncovered::Empty => (FaultClass::EmptyFloat, FLOAT),
            Uncovered::Balance => (FaultClass::Balance, FLOAT),
        })?;
        Ok(price)
    }

    /// Keeps what its questions need, and what brings it to its end from outside.
    fn remember(&self, order: &Order, fate: &Fate, held: i64) {
        let name = order.client_ref.as_str();
        let unclear_until = match fate.turn {
            Some(Turn::Unclear(lasts)) => Some(Instant::now() + lasts),
            Some(_) | None => None,
        };
        let rest = Rest {
            order: order.clone(),
            unclear_until,
            was_unclear: false,
            query: fate.query,
            is_scripted: fate.is_scripted && fate.turn.is_some(),
            held,
            resolved: false,
        };
        if let Some(reference) = lock_shard(&self.shards, name).get_mut(name) {
            reference.rest = Some(Box::new(rest));
        }
    }

    fn is_resolved(&self, order: &Order) -> bool {
        let name = order.client_ref.as_str();
        let shard = lock_shard(&self.shards, name);
        shard.get(name).and_then(|reference| reference.rest.as_ref()).is_some_and(|rest| rest.resolved)
    }

    /// It has come to an end, perhaps not the last one; what it takes decides which word is told first.
    fn end(&self, order: &Order, life: Life, turn: Option<Turn>) {
        let name = order.client_ref.as_str();
        let news = lock_shard(&self.shards, name).get_mut(name).map(|reference| reference.lives(life));
        if let Some(news) = news {
            self.tell(order, life, turn, news);
        }
    }

    /// The moment of truth, for those that are refused; perhaps not the last one.
    pub(super) fn refuse(self: &Arc<Self>, order: &Order, refusal: Refusal, turn: Option<Turn>) -> Life {
        count(&self.counts.refused);
        let class = match turn {
            Some(Turn::AcceptedThenFailed) => Some(FaultClass::AcceptedThenFailed),
            // Counted when it is delivered all the same.
            Some(Turn::LateSuccess(_)) => None,
            Some(_) | None => refusal.class,
        };
        if let Some(class) = class {
            self.strikes.count(class, order.client_ref.as_str());
        }
        let life = Life::Refused(refusal);
        self.end(order, life, turn);
        if let Some(Turn::LateSuccess(after)) = turn {
            let (engine, order) = (Arc::clone(self), order.clone());
            self.later(after, async move {
                // Nothing was held for what was refused: it is paid for now, covered or not.
                engine.windows.charge(order.amount.minor);
                if engine.deliver(&order, None).await.is_ok() {
                    engine.strikes.count(FaultClass::LateSuccess, order.client_ref.as_str());
                }
            });
        }
        life
    }

    /// The moment of truth, for those that are delivered.
    pub(super) async fn deliver(self: &Arc<Self>, order: &Order, turn: Option<Turn>) -> Result<Life, LedgerBroken> {
        let (at, amount) = (self.clock.now(), delivered_amount(order.amount, turn));
        let seq = match self.ledger.append(line(order, amount, at, None)).await {
            Ok(seq) => seq,
            Err(broken) => {
                self.end(order, Life::Nothing, None);
                return Err(broken);
            }
        };
        count(&self.counts.executed);
        if turn == Some(Turn::WrongAmount) {
            self.strikes.count(FaultClass::WrongAmount, order.client_ref.as_str());
        }
        let life = Life::Delivered { amount, at };
        match turn {
            Some(Turn::Reversed(after)) if after.is_zero() => return self.take_back(order, (amount, at), seq).await,
            Some(Turn::Reversed(after)) => {
                let (engine, order) = (Arc::clone(self), order.clone());
                self.later(after, async move {
                    if engine.take_back(&order, (amount, at), seq).await.is_err() {
                        tracing::error!("a delivery could not be taken back: it stands");
                    }
                });
            }
            Some(_) | None => {}
        }
        self.end(order, life, turn);
        Ok(life)
    }

    async fn take_back(&self, order: &Order, (amount, at): (Money, Timestamp), seq: u64) -> Result<Life, LedgerBroken> {
        self.ledger.append(line(order, amount, self.clock.now(), Some(seq))).await?;
        count(&self.counts.reversed);
        self.strikes.count(FaultClass::Reversed, order.client_ref.as_str());
        self.windows.release(amount.minor);
        let life = Life::Reversed { amount, at };
        self.end(order, life, None);
        Ok(life)
    }

    /// Does something in a while, unless the simulator has stopped by then.
    fn later(&self, after: Duration, what: impl Future<Output = ()> + Send + 'static) {
        let (stop, until) = (self.stop.clone(), Instant::now() + after);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep_until(until) => what.await,
            }
        });
    }
}

/// Half of it, where another amount is delivered.
fn delivered_amount(ordered: Money, turn: Option<Turn>) -> Money {
    let minor = if ordered.minor > 1 { ordered.minor / 2 } else { 2 };
    if turn == Some(Turn::WrongAmount) { Money { minor, ..ordered } } else { ordered }
}

fn line(order: &Order, amount: Money, at: Timestamp, reverses: Option<u64>) -> Delivery {
    Delivery {
        seq: 0,
        at,
        client_ref: order.client_ref.clone(),
        phone: order.phone,
        amount_minor: amount.minor,
        currency: amount.currency,
        reverses,
    }
}
