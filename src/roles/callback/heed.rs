//! What nobody has proven leads to a question at most.

use std::collections::HashMap;

use crate::domain::{Command, CommandKind, Heed, Order, OrderId, Timestamp, inquiry};
use crate::ports::{Became, Haste, Hurried, OutRecord, StoreError};

use super::batch::{Ended, OnRow};
use super::{Callbacks, Told};

/// A question that is to come sooner.
struct Asking {
    one: OnRow,
    haste: Haste,
    /// Other words about the same order: the same question answers them.
    beside: Vec<Told>,
}

impl Callbacks {
    /// Sees to it that somebody asks, where a word is worth it.
    pub(super) async fn heed(&self, open: Vec<OnRow>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (mut known, mut confirming) = (Ended::new(), Vec::new());
        let (mut asking, mut places): (Vec<Asking>, HashMap<OrderId, usize>) = (Vec::new(), HashMap::new());
        for one in open {
            let OnRow { told, order } = &one;
            match Heed::to(order, told.attempt, &told.news.said) {
                Heed::Nothing => known.push((one.told, Became::Known)),
                Heed::Confirm => confirming.push(one),
                Heed::Ask => match self.haste(order, now) {
                    // Nobody asks any more.
                    None => known.push((one.told, Became::Known)),
                    Some(haste) => {
                        let place = *places.entry(order.order_id.clone()).or_insert(asking.len());
                        match asking.get_mut(place) {
                            Some(first) => first.beside.push(one.told),
                            None => asking.push(Asking { one, haste, beside: Vec::new() }),
                        }
                    }
                },
            }
        }
        self.close(known).await?;
        self.ask(asking, now).await?;
        let records = confirming.iter().map(|one| self.confirmation(one, now)).collect();
        let published = self.publish(records).await;
        let confirmed = confirming.into_iter().zip(published).filter(|(_, published)| *published);
        self.close(confirmed.map(|(one, _)| (one.told, Became::Confirming)).collect()).await
    }

    fn haste(&self, order: &Order, now: Timestamp) -> Option<Haste> {
        let policy = self.rules.policy.provider(order.provider.as_ref()?)?;
        let to = inquiry::hastened(order, now, policy)?;
        Some(Haste { order_id: order.order_id.clone(), asked_version: order.asked_version, to })
    }

    async fn ask(&self, asking: Vec<Asking>, now: Timestamp) -> Result<(), StoreError> {
        // The hold first, else the command would wait for its end. That of the question that stood comes later, and finds
        // that somebody has asked.
        let hastes: Vec<Haste> = asking.iter().map(|one| one.haste.clone()).collect();
        let hurried = self.questions.hasten(&hastes).await?;
        // A question that stands as soon needs no other. One whose time has passed was asked: the next one stands in the hold.
        let sooner = |order: &Order, at: Timestamp| {
            Some(at).filter(|at| order.wake_at.is_none_or(|wake_at| wake_at <= now || *at < wake_at))
        };
        let mut hurrying = Vec::with_capacity(asking.len());
        for (one, hurried) in asking.into_iter().zip(hurried) {
            match hurried {
                Hurried::From(at) => hurrying.push((sooner(&one.one.order, at), one)),
                Hurried::Overtaken => hurrying.push((None, one)),
                // It is sent again, and by then somebody may have let go of the row.
                Hurried::Locked => {}
            }
        }
        let records = hurrying.iter().map(|(at, one)| self.question(&one.one.order, (*at)?, now)).collect();
        let published = self.publish(records).await;
        let mut ended = Ended::new();
        for ((at, Asking { one, beside, .. }), _) in hurrying.into_iter().zip(published).filter(|(_, done)| *done) {
            ended.push((one.told, if at.is_some() { Became::Asked } else { Became::Known }));
            ended.extend(beside.into_iter().map(|told| (told, Became::Known)));
        }
        self.close(ended).await
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
