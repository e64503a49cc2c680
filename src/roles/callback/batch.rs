//! A batch of callbacks: each is settled, leads to a question, or tells nothing new; and is noted, so that its
//! repetitions cost no more than a look.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::domain::{
    Command, CommandKind, Decision, Heed, Input, Order, OrderId, QueryOutcome, Timestamp, Transition, decide, inquiry,
};
use crate::ports::{Became, Haste, Loaded, NotedCallback, OutRecord, StoreError, Written};
use crate::roles::patience;

use super::{Callbacks, Told, WITHIN};

/// A row that moves under a verdict is read again so often.
const ROUNDS: usize = 5;

/// A callback in hand, and the row that it is about.
struct OnRow {
    told: Told,
    order: Order,
}

/// Callbacks that need nothing more but to be noted.
type Ended = Vec<(Told, Became)>;

impl Callbacks {
    /// Deals with a batch. What cannot be dealt with in time is dropped, and its provider hears that it is to come again.
    pub(super) async fn deal_with(&self, batch: Vec<Told>, abort: &CancellationToken) {
        let work = async {
            let ended = self.work_off(batch, abort).await?;
            let noted: Vec<NotedCallback> = ended.iter().map(|(told, became)| self.noted(told, *became)).collect();
            self.book.note_callbacks(&noted).await?;
            Ok::<Ended, StoreError>(ended)
        };
        match tokio::time::timeout(WITHIN, work).await {
            Ok(Ok(ended)) => {
                for (told, became) in ended {
                    self.metrics.taken(&told.provider, became);
                    // Who has hung up meanwhile sends it again, and it is known then.
                    told.done.send(()).unwrap_or_default();
                }
            }
            Ok(Err(trouble)) if trouble.is_transient() => {
                warn!(error = ?trouble, "the store did not answer: callbacks are to be sent again");
            }
            Ok(Err(trouble)) => error!(error = ?trouble, "callbacks cannot be dealt with: they are to be sent again"),
            Err(_) => warn!("callbacks were not dealt with in time: they are to be sent again"),
        }
    }

    fn noted(&self, told: &Told, became: Became) -> NotedCallback {
        NotedCallback {
            order_id: told.order_id.clone(),
            attempt: told.attempt,
            provider: told.provider.clone(),
            said: word(&told.news.said).to_owned(),
            became,
            at: self.clock.now(),
        }
    }

    /// Does what the callbacks ask for; returns those that are done.
    async fn work_off(&self, batch: Vec<Told>, abort: &CancellationToken) -> Result<Ended, StoreError> {
        let mut ended = Ended::new();
        let keys: Vec<NotedCallback> = batch.iter().map(|told| self.noted(told, Became::Known)).collect();
        let were_noted = self.book.were_noted(&keys).await?;
        let (mut fresh, mut seen) = (Vec::new(), HashSet::new());
        for ((told, key), was_noted) in batch.into_iter().zip(keys).zip(were_noted) {
            // One that stands twice in a batch is dealt with by the first of the two.
            if was_noted || !seen.insert((key.order_id, key.attempt, key.provider, key.said)) {
                ended.push((told, Became::Known));
            } else {
                fresh.push(told);
            }
        }
        let rows = self.rows(fresh).await?;
        let (proven, hearsay): (Vec<OnRow>, Vec<OnRow>) = rows.into_iter().partition(|one| self.settles(one));
        self.settle(proven, &mut ended, abort).await?;
        self.heed(hearsay, &mut ended).await?;
        Ok(ended)
    }

    /// Whether a callback's word counts like the answer to a query: proven, understood, and of the lane that the order is in.
    /// What another provider says of a reference that it cannot have would move the order from under this one.
    fn settles(&self, OnRow { told, order }: &OnRow) -> bool {
        let caller = self.rules.callers.get(&told.provider);
        told.news.is_proven
            && order.provider.as_ref() == Some(&told.provider)
            && !matches!(told.news.said, QueryOutcome::Unavailable { .. })
            && caller.is_some_and(|caller| caller.provider.capabilities().callback_settles)
    }

    /// The rows of callbacks. One about an attempt that its row does not know is let go: it is sent again.
    async fn rows(&self, batch: Vec<Told>) -> Result<Vec<OnRow>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<OrderId> = batch.iter().map(|told| told.order_id.clone()).collect();
        let rows = self.store.load(&ids).await?;
        let mut found = Vec::with_capacity(batch.len());
        for (told, row) in batch.into_iter().zip(rows) {
            match row {
                Loaded::Order(order) if (1..=order.attempt_number()).contains(&told.attempt) => {
                    found.push(OnRow { told, order });
                }
                Loaded::Order(_) | Loaded::Absent => {
                    warn!(order_id = %told.order_id, attempt = told.attempt, "a genuine callback about an attempt that is not stored");
                }
                Loaded::Unreadable(why) => patience::unreadable(&told.order_id, &why),
            }
        }
        Ok(found)
    }

    /// Decides on what is proven, and writes it.
    async fn settle(
        &self,
        mut open: Vec<OnRow>,
        ended: &mut Ended,
        abort: &CancellationToken,
    ) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            if open.is_empty() {
                return Ok(());
            }
            let (now, policy) = (self.clock.now(), self.policy());
            let (mut writing, mut transitions, mut later) = (Vec::new(), Vec::new(), Vec::new());
            let mut touched = HashSet::new();
            for one in open {
                // Two words about one order are decided on one behind the other.
                if !touched.insert(one.told.order_id.clone()) {
                    later.push(one.told);
                    continue;
                }
                let input =
                    Input::Reported { attempt: one.told.attempt, asked_at: now, outcome: one.told.news.said.clone() };
                match decide(Some(&one.order), &input, now, &policy) {
                    Decision::Apply(transition) => {
                        transitions.push(*transition);
                        writing.push(one);
                    }
                    Decision::Keep(_) => ended.push((one.told, Became::Known)),
                }
            }
            later.extend(self.write(transitions, writing, ended, abort).await?);
            open = self.rows(later).await?;
        }
        Ok(())
    }

    /// Writes verdicts, each after the hint that it asks for; returns those whose row has moved.
    async fn write(
        &self,
        transitions: Vec<Transition>,
        writing: Vec<OnRow>,
        ended: &mut Ended,
        abort: &CancellationToken,
    ) -> Result<Vec<Told>, StoreError> {
        let hints = transitions.iter().map(|transition| self.follow_up(transition)).collect();
        let mut kept = self.publish(hints).await.into_iter();
        let (transitions, writing): (Vec<_>, Vec<_>) =
            transitions.into_iter().zip(writing).filter(|_| kept.next().unwrap_or(false)).unzip();
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        let written = patience::applied("callback", self.store.as_ref(), &transitions, abort).await?;
        let mut lost = Vec::new();
        for ((transition, one), written) in transitions.iter().zip(writing).zip(written) {
            match written {
                Written::Stored => {
                    self.outcomes.written(transition);
                    ended.push((one.told, Became::Settled));
                }
                Written::Overtaken => lost.push(one.told),
                // It is sent again, and by then somebody may have let go of the row.
                Written::Locked | Written::Refused => {}
            }
        }
        Ok(lost)
    }

    /// What a verdict asks for next. Its lane is the order's, which need not be the caller's.
    fn follow_up(&self, transition: &Transition) -> Option<OutRecord> {
        let follow_up = transition.follow_up.as_ref()?;
        // One whose lane is not configured here is found by the watchdog of a process where it is.
        let topics = self.rules.lanes.get(&follow_up.lane)?;
        let now = self.clock.now();
        Some(self.rules.commands.due(topics, &follow_up.command, &transition.after.recipient, now))
    }

    /// Publishes what there is to publish, once; answers for each whether nothing is left to do.
    async fn publish(&self, records: Vec<Option<OutRecord>>) -> Vec<bool> {
        let mut done: Vec<bool> = records.iter().map(Option::is_none).collect();
        let (places, records): (Vec<usize>, Vec<OutRecord>) =
            records.into_iter().enumerate().filter_map(|(place, record)| Some((place, record?))).unzip();
        if records.is_empty() {
            return done;
        }
        let results = self.publisher.publish(&records).await;
        for (place, result) in places.into_iter().zip(results) {
            if let Some(done) = done.get_mut(place) {
                *done = result.is_ok();
            }
        }
        done
    }

    /// Sees to it that somebody asks, where a word is worth it.
    async fn heed(&self, open: Vec<OnRow>, ended: &mut Ended) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (mut asking, mut hastes, mut confirming) = (Vec::new(), Vec::new(), Vec::new());
        let mut touched = HashSet::new();
        for one in open {
            let OnRow { told, order } = &one;
            match Heed::to(order, told.attempt, &told.news.said) {
                Heed::Nothing => ended.push((one.told, Became::Known)),
                Heed::Confirm => confirming.push(one),
                Heed::Ask => {
                    let policy = order.provider.as_ref().and_then(|lane| self.rules.policy.provider(lane));
                    let to = policy.and_then(|policy| inquiry::hastened(order, now, policy));
                    match to {
                        Some(to) if touched.insert(order.order_id.clone()) => {
                            let (order_id, asked_version) = (order.order_id.clone(), order.asked_version);
                            hastes.push(Haste { order_id, asked_version, to });
                            asking.push(one);
                        }
                        // The same question answers both; nobody asks any more.
                        Some(_) | None => ended.push((one.told, Became::Known)),
                    }
                }
            }
        }
        // The hold first, else the command would wait for its end. That of the question that stood comes later, and finds
        // that somebody has asked.
        let hastened = self.questions.hasten(&hastes).await?;
        // A question that stands as soon needs no other. One whose time has passed was asked: the next one stands in the hold.
        let sooner = |order: &Order, at: Option<Timestamp>| {
            at.filter(|at| order.wake_at.is_none_or(|wake_at| wake_at <= now || *at < wake_at))
        };
        let hastened: Vec<_> = asking.iter().zip(hastened).map(|(one, at)| sooner(&one.order, at)).collect();
        let records = asking.iter().zip(&hastened).map(|(one, at)| self.question(&one.order, (*at)?, now)).collect();
        let published = self.publish(records).await;
        for ((one, at), published) in asking.into_iter().zip(hastened).zip(published) {
            if published {
                ended.push((one.told, if at.is_some() { Became::Asked } else { Became::Known }));
            }
        }
        let records = confirming.iter().map(|one| self.confirmation(one, now)).collect();
        let published = self.publish(records).await;
        ended.extend(
            confirming
                .into_iter()
                .zip(published)
                .filter(|(_, done)| *done)
                .map(|(one, _)| (one.told, Became::Confirming)),
        );
        Ok(())
    }

    fn question(&self, order: &Order, at: Timestamp, now: Timestamp) -> Option<OutRecord> {
        let topics = self.rules.lanes.get(order.provider.as_ref()?)?;
        let command = Command { wake_at: Some(at), hastened: true, ..Command::of(CommandKind::Query, order) };
        Some(self.rules.commands.due(topics, &command, &order.recipient, now))
    }

    /// In the lane of whoever called: the order may be in another one by now.
    fn confirmation(&self, OnRow { told, order }: &OnRow, now: Timestamp) -> Option<OutRecord> {
        let topics = self.rules.lanes.get(&told.provider)?;
        let command = Command::confirm(order, told.attempt, told.news.provider_ref.clone());
        Some(self.rules.commands.due(topics, &command, &order.recipient, now))
    }
}

/// What was said, in words of ours: what makes a callback one with its repetitions.
fn word(said: &QueryOutcome) -> &'static str {
    match said {
        QueryOutcome::Succeeded(_) => "succeeded",
        QueryOutcome::InProgress => "in_progress",
        // Not its code: some tables name the beginning of a code alone, and let the rest be anything.
        QueryOutcome::Failed(failure) => failure.class.as_str(),
        QueryOutcome::Reversed(_) => "reversed",
        QueryOutcome::ProviderUnknown => "unknown",
        QueryOutcome::NotFound
        | QueryOutcome::NotAsked
        | QueryOutcome::Unavailable { .. }
        | QueryOutcome::Throttled { .. }
        | QueryOutcome::Banned { .. } => "unreadable",
    }
}
