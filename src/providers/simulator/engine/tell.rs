//! What is told of a recharge without being asked: from its ends to the messages that wait to be sent.

use std::mem;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::callbacks::{Answer, CallbackUrl, End, Follower, Kind, Message, Plan};
use super::super::class::FaultClass;
use super::super::dialect::Telling;
use super::super::fate::{Fate, Refusal, Turn};
use super::super::profile::{Callbacks, Profile};
use super::super::stats::count;
use super::{Engine, Life, Order, Reference, lock_shard};
use crate::domain::Money;

/// A reply that waits for a callback to go first waits so long beyond the answer to that.
const EARLY_MAX: Duration = Duration::from_secs(10);

/// What a reference keeps for its callbacks.
#[derive(Debug)]
pub(super) struct Listener {
    /// Where its submit wants them.
    pub(super) url: Option<Box<str>>,
    /// Which submit began it.
    nth: u32,
    /// How many ends there were.
    words: u32,
    planned: Option<FaultClass>,
    is_scripted: bool,
    /// The reply to its submit tells the first end.
    is_told: bool,
    /// When that reply leaves.
    reply_at: Instant,
    /// Waits for the first callback to go out.
    early: Option<oneshot::Sender<Answer>>,
}

/// An end, as its reference sees it.
#[derive(Debug)]
pub(super) struct News {
    /// What was true before.
    before: Life,
    url: Option<Box<str>>,
    nth: u32,
    word: u32,
    planned: Option<FaultClass>,
    is_scripted: bool,
    is_told: bool,
    /// Nothing is told sooner.
    not_before: Instant,
    early: Option<oneshot::Sender<Answer>>,
}

impl Reference {
    /// Its life is another one from now on.
    pub(super) fn lives(&mut self, life: Life) -> News {
        let before = mem::replace(&mut self.life, life);
        let now = Instant::now();
        self.ended_at = Some(now);
        let unclear_until = self.rest.as_ref().and_then(|rest| rest.unclear_until).unwrap_or(now);
        let mut news = News {
            before,
            url: None,
            nth: 0,
            word: 0,
            planned: None,
            is_scripted: false,
            is_told: false,
            not_before: now.max(unclear_until),
            early: None,
        };
        if let Some(listener) = &mut self.listener {
            (news.nth, news.word) = (listener.nth, listener.words);
            (news.planned, news.is_scripted) = (listener.planned, listener.is_scripted);
            news.is_told = listener.is_told;
            news.not_before = news.not_before.max(listener.reply_at);
            news.url.clone_from(&listener.url);
            news.early = listener.early.take();
            listener.words = listener.words.saturating_add(1);
        }
        news
    }
}

impl Engine {
    /// Keeps what the callbacks of a new recharge need; and if its first is to go before its reply,
    /// what to wait for.
    pub(super) fn listens(
        &self,
        order: &mut Order,
        fate: &mut Fate,
        profile: &Profile,
        arrived: Instant,
    ) -> Option<oneshot::Receiver<Answer>> {
        let url = order.callback_url.take();
        let callbacks = &profile.callbacks;
        let is_on = callbacks.is_on() || fate.callback.is_some();
        if url.is_none() && !is_on {
            return None;
        }
        let name = order.client_ref.as_str();
        let (planned, is_scripted) = (fate.callback, fate.is_scripted);
        let end = End { seed: self.seed, reference: name, nth: fate.nth, word: 0, planned, is_scripted };
        let has_end = !matches!(fate.turn, Some(Turn::Never | Turn::Unclear(_)));
        let has_address = url.is_some() || self.outbox.default.is_some();
        let plan = (is_on && has_end && has_address).then(|| Plan::of(callbacks, &end));
        let is_early =
            plan.is_some_and(|plan| plan.is_early && !plan.is_lost && !(plan.is_swapped && has_two(fate.turn)));
        let (early, goes_out) = is_early.then(oneshot::channel).unzip();
        if is_early {
            fate.completes_after = fate.completes_after.map(|_| Duration::ZERO);
        }
        let is_told =
            fate.completes_after.is_none() && fate.fault.is_none() && fate.answer.is_none() && fate.throttled.is_none();
        let reply_at = arrived + fate.reply_after;
        let listener = Listener { url, nth: fate.nth, words: 0, planned, is_scripted, is_told, reply_at, early };
        if let Some(reference) = lock_shard(&self.shards, name).get_mut(name) {
            reference.listener = Some(Box::new(listener));
        }
        goes_out
    }

    /// Waits until the callback that is to go first has been answered, or will not be any more.
    pub(super) async fn went_out(&self, goes_out: oneshot::Receiver<Answer>) {
        let at_most = self.setup().profile.callbacks.patience + EARLY_MAX;
        if timeout(at_most, goes_out).await.is_err() {
            tracing::debug!("a callback that was to go before its reply did not go out in time");
        }
    }

    /// Tells an end, if that is wanted; another one may follow.
    pub(super) fn tell(&self, order: &Order, life: Life, turn: Option<Turn>, mut news: News) {
        let setup = self.setup();
        let callbacks = &setup.profile.callbacks;
        let is_on = callbacks.is_on() || news.planned.is_some();
        let is_silent = news.is_told && news.planned.is_none() && !callbacks.repeats_reply;
        if !is_on || is_silent && news.word == 0 || matches!(life, Life::Nothing | Life::InProgress) {
            return;
        }
        let Some(to) = self.address(news.url.as_deref()) else {
            count(&self.counts.callbacks.unaddressed);
            return;
        };
        let end = End {
            seed: self.seed,
            reference: order.client_ref.as_str(),
            nth: news.nth,
            word: news.word,
            planned: news.planned,
            is_scripted: news.is_scripted,
        };
        let plan = Plan::of(callbacks, &end);
        if plan.is_swapped && news.word == 0 && has_two(turn) {
            // Told after the next one.
            return;
        }
        let early = news.early.take();
        let now = Instant::now();
        let at = if early.is_some() { now } else { now.max(news.not_before) + plan.after };
        // A forger is as quick as the provider.
        if plan.is_forged
            && let Some(forged) = self.forged(&to, order.amount, Telling::of(&order.client_ref, life), &end)
        {
            self.put(at, forged.struck_by(FaultClass::CallbackForged));
        }
        let earlier = (plan.is_swapped && news.word > 0 && !is_silent).then_some(news.before);
        if plan.is_lost {
            self.strikes.count(FaultClass::CallbackLost, end.reference);
            if let Some(earlier) = earlier {
                self.put(at, Message::telling(&to, Kind::End, Telling::of(&order.client_ref, earlier)));
            }
        } else {
            self.tell_truth((&to, order, life), at, &plan, early, earlier);
        }
        self.tell_besides((&to, order, life), at, plan);
    }

    /// The word itself, with what was held back for it, and its copies.
    fn tell_truth(
        &self,
        (to, order, life): (&CallbackUrl, &Order, Life),
        at: Instant,
        plan: &Plan,
        early: Option<oneshot::Sender<Answer>>,
        earlier: Option<Life>,
    ) {
        let message = |life| Message::telling(to, Kind::End, Telling::of(&order.client_ref, life));
        let (mut word, mut at) = (message(life), at);
        if early.is_some() {
            word = word.struck_by(FaultClass::CallbackEarly);
        } else if let Some(late) = plan.late {
            word = word.struck_by(FaultClass::CallbackLate);
            at += late;
        }
        if let Some(earlier) = earlier {
            word = word.struck_by(FaultClass::CallbackSwapped);
            word.followers.push(Follower::Message(Box::new(message(earlier))));
        }
        word.first = early;
        word.followers.extend(plan.replayed.map(Follower::Replay));
        self.put(at, word);
        if let Some(after) = plan.duplicated {
            self.put(at + after, message(life).struck_by(FaultClass::CallbackDuplicated));
        }
    }

    /// What is rightly signed, and wrong all the same.
    fn tell_besides(&self, (to, order, life): (&CallbackUrl, &Order, Life), at: Instant, plan: Plan) {
        // Without a timestamp nothing can be stale.
        if plan.is_stale && self.dialect.signs_callbacks() {
            let stale = Telling { is_stale: true, ..Telling::of(&order.client_ref, life) };
            self.put(at, Message::telling(to, Kind::Stale, stale).struck_by(FaultClass::CallbackStale));
        }
        if let Some(stranger) = plan.stranger {
            let mut unknown = Message::telling(to, Kind::Unknown, Telling::of(&stranger, life));
            unknown.about = order.client_ref.clone();
            self.put(at, unknown.struck_by(FaultClass::CallbackUnknown));
        }
    }

    /// Tells that what was just accepted is in progress, if that is wanted; it ends so soon.
    pub(super) fn tell_progress(&self, order: &Order, ends_after: Duration) {
        let name = order.client_ref.as_str();
        let setup = self.setup();
        let (wait, url) = {
            let shard = lock_shard(&self.shards, name);
            let Some(listener) = shard.get(name).and_then(|reference| reference.listener.as_ref()) else { return };
            let (planned, is_scripted) = (listener.planned, listener.is_scripted);
            let end = End { seed: self.seed, reference: name, nth: listener.nth, word: 0, planned, is_scripted };
            (end.has_progress(&setup.profile.callbacks), listener.url.clone())
        };
        let (Some(wait), Some(to)) = (wait, self.address(url.as_deref())) else { return };
        let message = Message::telling(&to, Kind::Once, Telling::of(&order.client_ref, Life::InProgress));
        self.put(Instant::now() + wait.min(ends_after / 2), message.struck_by(FaultClass::CallbackInProgress));
    }

    /// How somebody else would tell the opposite. Where nothing is signed, it comes to another address.
    pub(super) fn forged(&self, to: &CallbackUrl, amount: Money, truth: Telling, end: &End<'_>) -> Option<Message> {
        let life = match truth.life {
            Life::Delivered { .. } => Life::Refused(Refusal::for_good("declined", None)),
            Life::Nothing | Life::InProgress | Life::Reversed { .. } | Life::Refused(_) => {
                Life::Delivered { amount, at: self.now() }
            }
        };
        let elsewhere = if self.dialect.signs_callbacks() {
            to.clone()
        } else {
            to.with_a_wrong_token(&mut end.throw("callback token"))?
        };
        Some(Message::telling(&elsewhere, Kind::Forged, Telling { life, is_forged: true, ..truth }))
    }

    /// Where the callbacks about a reference go.
    pub(super) fn address(&self, url: Option<&str>) -> Option<CallbackUrl> {
        match url {
            Some(url) => CallbackUrl::parse(url).ok(),
            None => self.outbox.default.clone(),
        }
    }

    /// Sends it then, if there is room.
    pub(in super::super) fn put(&self, at: Instant, message: Message) {
        if self.outbox.put(at, message).is_err() {
            count(&self.counts.callbacks.overflowed);
        }
    }

    /// What callbacks are signed with.
    pub(in super::super) fn secret(&self) -> &str {
        self.outbox.key.as_ref().map_or_else(|| self.login.secret(), |key| key.expose())
    }

    /// What the profile says of them now.
    pub(in super::super) fn callbacks(&self) -> Callbacks {
        self.setup().profile.callbacks.clone()
    }
}

/// Whether two ends are to come, one after the other.
fn has_two(turn: Option<Turn>) -> bool {
    match turn {
        Some(Turn::LateSuccess(_)) => true,
        Some(Turn::Reversed(after)) => !after.is_zero(),
        Some(Turn::Never | Turn::AcceptedThenFailed | Turn::WrongAmount | Turn::Unclear(_)) | None => false,
    }
}
