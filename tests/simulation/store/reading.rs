//! What is read by deadline, by sequence and by provider.

use async_trait::async_trait;
use recharged::domain::{
    AttemptState, CaseKind, LoggedEvent, Order, OrderId, ProviderId, Recipient, State as OrderState, Timestamp,
};
use recharged::faults::{Bug, is_planted};
use recharged::ports::{
    CallbackBook, Census, Clock, Cooldowns, Cooling, DayLog, DeadlineBook, DeadlinePage, DeadlinePosition, EventLog,
    Grant, Haste, Held, Hold, Horizon, Hurried, LaneBook, LaneChange, LogBatch, LogPosition, Mentions, NotedCallback, Questions,
    Quota, Reservation, StoreError,
};
use recharged::store::quota::{Terms, nanos};

use super::{MemStore, is_undecided};

#[async_trait]
impl DeadlineBook for MemStore {
    async fn low_water(&self) -> Result<Timestamp, StoreError> {
        self.there("low_water").await?;
        Ok(self.state.lock().unwrap().low_water)
    }

    async fn move_low_water(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.there("move_low_water").await?;
        let moved = {
            let mut state = self.state.lock().unwrap();
            let fits = state.low_water == from;
            if fits {
                state.low_water = to;
            }
            fits
        };
        self.back("move_low_water").await?;
        Ok(moved)
    }

    async fn set_aside(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError> {
        self.there("set_aside").await?;
        let moved = {
            let mut state = self.state.lock().unwrap();
            let fits = state.low_water == from;
            if fits {
                let behind = |order: &&Order| (from..to).contains(&order.deadline_at) && is_undecided(order);
                let ids: Vec<OrderId> =
                    state.rows.values().filter(behind).map(|order| order.order_id.clone()).collect();
                state.set_aside.extend(ids);
                state.low_water = to;
            }
            fits
        };
        self.back("set_aside").await?;
        Ok(moved)
    }

    async fn aside(&self, after: &DeadlinePosition, limit: usize) -> Result<DeadlinePage, StoreError> {
        self.there("aside").await?;
        let aside = self.state.lock().unwrap().set_aside.clone();
        Ok(self.by_deadline(after, Timestamp::MAX_UTC, limit, |order| {
            aside.contains(&order.order_id) && is_undecided(order)
        }))
    }

    async fn horizon(&self) -> Result<Horizon, StoreError> {
        self.there("horizon").await?;
        let state = self.state.lock().unwrap();
        let next = state.next + 1;
        Ok(Horizon { oldest: state.running.first().copied().unwrap_or(next), next })
    }

    async fn undecided(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        self.there("undecided").await?;
        Ok(self.by_deadline(after, until, limit, is_undecided))
    }

    async fn census(&self, low_water: Timestamp, now: Timestamp) -> Result<Census, StoreError> {
        self.there("census").await?;
        let state = self.state.lock().unwrap();
        let open_doubt = |order: &Order| {
            let case = state.cases.get(&(order.order_id.clone(), CaseKind::InDoubt.as_str()));
            case.is_some_and(|case| case.resolution.is_none())
        };
        let mut census = Census::default();
        for order in state.rows.values() {
            let counts = if order.state == OrderState::InDoubt {
                open_doubt(order)
            } else {
                !order.state.is_closed()
                    && (order.deadline_at >= low_water || state.set_aside.contains(&order.order_id))
            };
            if !counts {
                continue;
            }
            match census.open.iter_mut().find(|(state, _)| *state == order.state) {
                Some((_, orders)) => *orders += 1,
                None => census.open.push((order.state, 1)),
            }
            census.overdue += u64::from(order.state != OrderState::InDoubt && order.deadline_at < now);
            census.oldest_paid_at = [census.oldest_paid_at, order.paid_at].into_iter().flatten().min();
        }
        for case in state.cases.values().filter(|case| case.resolution.is_none()) {
            let escalated = u64::from(case.escalated);
            match census.cases.iter_mut().find(|(kind, ..)| *kind == case.key.kind) {
                Some((_, open, told)) => (*open, *told) = (*open + 1, *told + escalated),
                None => census.cases.push((case.key.kind, 1, escalated)),
            }
        }
        Ok(census)
    }

    async fn unanswered(
        &self,
        provider: &ProviderId,
        claimed_before: Timestamp,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<DeadlinePage, StoreError> {
        self.there("unanswered").await?;
        let is_unanswered = |order: &Order| {
            let sent = order.attempt.as_ref().filter(|attempt| attempt.state == AttemptState::Sent);
            order.state == OrderState::InFlight
                && order.provider.as_ref() == Some(provider)
                && sent.is_some_and(|attempt| attempt.claimed_at < claimed_before)
        };
        Ok(self.by_deadline(after, until, limit, is_unanswered))
    }
}

impl MemStore {
    fn by_deadline(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
        fits: impl Fn(&Order) -> bool,
    ) -> DeadlinePage {
        let state = self.state.lock().unwrap();
        let behind = (after.at, after.order_id.as_deref());
        let key = |order: &&Order| (order.deadline_at, order.order_id.clone());
        let rows = state.rows.values().filter(|order| order.deadline_at <= until && fits(order));
        let mut due: Vec<&Order> =
            rows.filter(|order| (order.deadline_at, Some(order.order_id.as_str())) > behind).collect();
        due.sort_by_key(key);
        let orders: Vec<Order> = due.into_iter().take(limit).cloned().collect();
        let last = orders.last().filter(|_| orders.len() >= limit);
        let next = last.map(|order| DeadlinePosition {
            at: order.deadline_at,
            order_id: Some(order.order_id.as_str().to_owned()),
        });
        DeadlinePage { orders, unreadable: Vec::new(), next }
    }
}

#[async_trait]
impl Questions for MemStore {
    async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError> {
        self.there("hold").await?;
        let mut answers = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            for hold in batch {
                let fits = state.rows.get(&hold.order_id).is_some_and(|row| row.asked_version == hold.asked_version);
                let taken = state.held.get(&hold.order_id).copied();
                let is_free = taken.is_none_or(|(until, _)| until <= now || Some(until) == hold.replaces);
                answers.push(if fits && is_free {
                    state.held.insert(hold.order_id.clone(), (hold.until, hold.asked_version));
                    Held::Granted
                } else {
                    let taken = taken.filter(|(until, _)| *until > now);
                    Held::Taken { until: taken.map(|it| it.0), asked_version: taken.map(|it| it.1) }
                });
            }
        }
        self.back("hold").await?;
        Ok(answers)
    }

    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError> {
        self.there("hasten").await?;
        let mut hastened = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            for Haste { order_id, asked_version, to } in batch {
                let fits = state.rows.get(order_id).is_some_and(|row| row.asked_version == *asked_version);
                let held = state.held.get_mut(order_id).filter(|_| fits);
                let at = held.as_ref().map_or(to.first, |held| held.0.max(to.first).min(to.again));
                if let Some(held) = held {
                    held.0 = held.0.min(to.again);
                }
                hastened.push(if fits { Hurried::From(at) } else { Hurried::Overtaken });
            }
        }
        self.back("hasten").await?;
        Ok(hastened)
    }
}

/// What makes a callback one with its repetitions.
fn is_same(one: &NotedCallback, other: &NotedCallback) -> bool {
    (&one.order_id, one.attempt, &one.provider, &one.said)
        == (&other.order_id, other.attempt, &other.provider, &other.said)
}

#[async_trait]
impl CallbackBook for MemStore {
    async fn were_noted(&self, batch: &[NotedCallback]) -> Result<Vec<bool>, StoreError> {
        self.there("were noted").await?;
        let state = self.state.lock().unwrap();
        Ok(batch.iter().map(|one| state.callbacks.iter().any(|other| is_same(one, other))).collect())
    }

    async fn note_callbacks(&self, batch: &[NotedCallback]) -> Result<(), StoreError> {
        self.there("note callbacks").await?;
        {
            let callbacks = &mut self.state.lock().unwrap().callbacks;
            for one in batch {
                if !callbacks.iter().any(|other| is_same(one, other)) {
                    callbacks.push(one.clone());
                }
            }
        }
        self.back("note callbacks").await
    }

    async fn callbacks_of(&self, order_id: &OrderId) -> Result<Vec<NotedCallback>, StoreError> {
        self.there("callbacks of").await?;
        let mut found = self.state.lock().unwrap().callbacks.clone();
        found.retain(|one| one.order_id == *order_id);
        found.sort_by_key(|one| one.at);
        Ok(found)
    }
}

#[async_trait]
impl Cooldowns for MemStore {
    async fn cool(&self, batch: &[Cooling], now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError> {
        self.there("cool").await?;
        let mut answers = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            for one in batch {
                let key = (one.provider.clone(), one.phone_hash.clone());
                let held = state.cooling.get(&key).filter(|(order, until)| *order != one.order_id && *until > now);
                answers.push(held.map(|(_, until)| *until));
                if answers.last() == Some(&None) {
                    state.cooling.insert(key, (one.order_id.clone(), one.until));
                }
            }
        }
        self.back("cool").await?;
        Ok(answers)
    }

    async fn give_back(&self, batch: &[Cooling]) -> Result<(), StoreError> {
        self.there("give back").await?;
        {
            let mut state = self.state.lock().unwrap();
            for one in batch {
                let key = (one.provider.clone(), one.phone_hash.clone());
                if state.cooling.get(&key).is_some_and(|(order, _)| *order == one.order_id) {
                    state.cooling.remove(&key);
                }
            }
        }
        self.back("give back").await
    }

    async fn forget_cooled(&self, before: Timestamp, _limit: usize) -> Result<usize, StoreError> {
        self.there("forget").await?;
        let removed = {
            let mut state = self.state.lock().unwrap();
            let were = state.cooling.len();
            state.cooling.retain(|_, (_, until)| *until >= before);
            were - state.cooling.len()
        };
        self.back("forget").await?;
        Ok(removed)
    }
}

#[async_trait]
impl LaneBook for MemStore {
    async fn lane_changes(&self) -> Result<Vec<LaneChange>, StoreError> {
        self.there("lane changes").await?;
        let mut last = std::collections::BTreeMap::new();
        for change in &self.state.lock().unwrap().lanes {
            last.insert(change.lane.clone(), change.clone());
        }
        Ok(last.into_values().collect())
    }

    async fn change_lane(&self, change: &LaneChange) -> Result<bool, StoreError> {
        self.there("change lane").await?;
        let lanes = &mut self.state.lock().unwrap().lanes;
        let is = lanes.iter().rev().find(|other| other.lane == change.lane).is_some_and(|last| last.is_paused);
        if is != change.is_paused {
            lanes.push(change.clone());
        }
        Ok(is != change.is_paused)
    }
}

#[async_trait]
impl EventLog for MemStore {
    async fn has_more(&self, after: LogPosition) -> Result<bool, StoreError> {
        self.there("has more").await?;
        Ok(self.state.lock().unwrap().log.range((after.xid, after.seq + 1)..).next().is_some())
    }

    async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError> {
        self.there("read log").await?;
        let state = self.state.lock().unwrap();
        // A batch that begins before one which is still being written stands before it in the end.
        let oldest = state.running.first().copied().unwrap_or(i64::MAX);
        let oldest = if is_planted(Bug::SequenceAsCursor) { i64::MAX } else { oldest };
        let mut entries = 0;
        let batches = state.log.range((after.xid, after.seq + 1)..(oldest, 0));
        let page = batches.take_while(|(_, events)| {
            let fits = entries < limit;
            entries += events.len();
            fits
        });
        Ok(page
            .map(|((xid, seq), events)| LogBatch {
                position: LogPosition { xid: *xid, seq: *seq },
                entries: events.iter().map(|event| event.to_line() + "\n").collect(),
            })
            .collect())
    }

    async fn cursor(&self) -> Result<LogPosition, StoreError> {
        self.there("cursor").await?;
        Ok(self.state.lock().unwrap().cursor)
    }

    async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError> {
        self.there("advance").await?;
        let moved = {
            let mut state = self.state.lock().unwrap();
            let fits = state.cursor == from;
            if fits {
                state.cursor = to;
            }
            fits
        };
        self.back("advance").await?;
        Ok(moved)
    }

    async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Vec<LoggedEvent>>, StoreError> {
        let log = self.log();
        let of = |id: &OrderId| log.iter().filter(|event| event.order_id == *id).cloned().collect();
        Ok(ids.iter().map(of).collect())
    }

    async fn recipients(&self, ids: &[OrderId]) -> Result<Vec<Option<Recipient>>, StoreError> {
        self.there("recipients").await?;
        let state = self.state.lock().unwrap();
        Ok(ids.iter().map(|id| state.rows.get(id).map(|row| row.recipient.clone())).collect())
    }
}

#[async_trait]
impl DayLog for MemStore {
    async fn written(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        limit: usize,
    ) -> Result<Vec<LogBatch>, StoreError> {
        let mut page = self.read_log(after, limit).await?;
        for batch in &mut page {
            let is_of_it =
                |line: &&str| LoggedEvent::from_line(line).is_ok_and(|event| from <= event.at && event.at < until);
            batch.entries = batch.entries.lines().filter(is_of_it).map(|line| line.to_owned() + "\n").collect();
        }
        Ok(page)
    }

    async fn mentions(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: LogPosition,
        marks: &[String],
    ) -> Result<Mentions, StoreError> {
        let page = self.written(from, until, after, usize::MAX).await?;
        let is_marked = |line: &&str| marks.iter().any(|mark| line.contains(mark.as_str()));
        let lines = page.iter().flat_map(LogBatch::lines).filter(is_marked).map(str::to_owned).collect();
        Ok(Mentions { lines, next: None })
    }
}

#[async_trait]
impl Quota for MemStore {
    async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError> {
        self.there("reserve").await?;
        let (now, terms) = (self.time.now(), Terms::of(reservation));
        let reserved = {
            let mut state = self.state.lock().unwrap();
            state.quota.entry(reservation.provider.clone()).or_default().reserve(terms, nanos(now))
        };
        self.back("reserve").await?;
        Ok(reserved.grant(terms))
    }

    async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError> {
        self.there("pause").await?;
        let mut state = self.state.lock().unwrap();
        let cell = state.quota.entry(provider.clone()).or_default();
        cell.paused_until_ns = cell.paused_until_ns.max(nanos(until));
        Ok(())
    }
}
