//! What the last nets read: cases, timers, and how far the lanes have read.

use async_trait::async_trait;
use recharged::domain::{
    CaseChange, LoggedEvent, Notification, Order, OrderId, State as OrderState, Timestamp, Transition,
};
use recharged::ports::{
    Case, CaseBook, CaseFilter, CaseKey, CaseNote, DeadlinePosition, OrderBook, OrderFilter, OrderPage, OrderView,
    OverdueQuestion, QuestionTime, ReadMark, ReadMarks, RefundBook, RefundPage, Resolution, StoreError, TimerPage,
    Timers, Waits, Written,
};

use super::{Commit, MemStore, State};

impl State {
    /// Whether it gives an open order a deadline that has passed: the watchdog may have passed it.
    pub(super) fn is_late(&self, transition: &Transition, now: Timestamp) -> bool {
        let order = &transition.after;
        let is_new = self.rows.get(&order.order_id).is_none_or(|row| row.deadline_at != order.deadline_at);
        is_new && !order.state.is_closed() && order.deadline_at <= now
    }

    pub(super) fn change_case(&mut self, order_id: &OrderId, at: Timestamp, change: &CaseChange) {
        match change {
            CaseChange::Open { kind, escalate_at, evidence, next_query_at } => {
                let case = Case {
                    key: CaseKey { order_id: order_id.clone(), kind: *kind },
                    opened_at: at,
                    escalate_at: *escalate_at,
                    escalated: false,
                    next_query_at: *next_query_at,
                    evidence: evidence.clone(),
                    owner: None,
                    resolution: None,
                };
                self.cases.entry((order_id.clone(), kind.as_str())).or_insert(case);
            }
            CaseChange::Resolve { kind, by, evidence } => {
                let case = self.cases.get_mut(&(order_id.clone(), kind.as_str()));
                if let Some(case) = case.filter(|case| case.resolution.is_none()) {
                    case.next_query_at = None;
                    case.resolution = Some(Resolution { at, by: by.clone(), evidence: evidence.clone() });
                }
            }
        }
    }
}

#[async_trait]
impl Timers for MemStore {
    async fn due(&self, after: &DeadlinePosition, until: Timestamp, limit: usize) -> Result<TimerPage, StoreError> {
        self.there("due_timers").await?;
        let behind = after.order_id.clone().unwrap_or_default();
        let state = self.state.lock().unwrap();
        let is_behind = |(at, id): &&(Timestamp, OrderId)| (*at, id.as_str()) > (after.at, behind.as_str());
        let mut due: Vec<Notification> = Vec::new();
        for (due_at, id) in state.timers.iter().filter(is_behind).take_while(|(at, _)| *at <= until).take(limit) {
            let row = &state.rows[id];
            let (order_id, due_at) = (id.clone(), *due_at);
            due.push(Notification {
                order_id,
                due_at,
                version: row.version,
                state: row.state,
                deadline_at: row.deadline_at,
            });
        }
        let last = due.last().filter(|_| due.len() == limit);
        let next = last.map(|last| DeadlinePosition { at: last.due_at, order_id: Some(last.order_id.to_string()) });
        Ok(TimerPage { due, unreadable: Vec::new(), next })
    }

    async fn fire(&self, batch: &[LoggedEvent]) -> Result<Vec<Written>, StoreError> {
        self.there("fire_timers").await?;
        let mut running = self.begin(Commit::Timers(batch));
        tokio::time::sleep(self.commit_time(&[])).await;
        let (_, answers) = running.end(true);
        self.back("fire_timers").await?;
        Ok(answers)
    }
}

#[async_trait]
impl RefundBook for MemStore {
    async fn unconfirmed(
        &self,
        after: &DeadlinePosition,
        until: Timestamp,
        limit: usize,
    ) -> Result<RefundPage, StoreError> {
        self.there("unconfirmed").await?;
        let behind = after.order_id.clone().unwrap_or_default();
        let state = self.state.lock().unwrap();
        let is_behind = |(at, id): &&(Timestamp, OrderId)| (*at, id.as_str()) > (after.at, behind.as_str());
        let due = state.followed.iter().filter(is_behind).take_while(|(at, _)| *at <= until);
        let due: Vec<(Timestamp, OrderId)> = due.take(limit).cloned().collect();
        let last = due.last().filter(|_| due.len() == limit);
        let next = last.map(|(at, id)| DeadlinePosition { at: *at, order_id: Some(id.to_string()) });
        Ok(RefundPage { overdue: due.into_iter().map(|(_, id)| id).collect(), unreadable: Vec::new(), next })
    }

    async fn unfollow(&self, ids: &[OrderId]) -> Result<(), StoreError> {
        self.there("unfollow").await?;
        self.state.lock().unwrap().followed.retain(|(_, id)| !ids.contains(id));
        self.back("unfollow").await
    }
}

#[async_trait]
impl CaseBook for MemStore {
    async fn cases(&self, filter: &CaseFilter, after: Option<&Case>, limit: usize) -> Result<Vec<Case>, StoreError> {
        let place = |case: &Case| (case.opened_at, case.key.order_id.clone(), case.key.kind.as_str());
        let fits = |case: &&Case| filter.keeps(case) && after.is_none_or(|after| place(case) > place(after));
        let state = self.state.lock().unwrap();
        let mut found: Vec<Case> = state.cases.values().filter(fits).cloned().collect();
        found.sort_by_key(place);
        found.truncate(limit);
        Ok(found)
    }

    async fn overdue_questions(&self, due_by: Timestamp, limit: usize) -> Result<Vec<OverdueQuestion>, StoreError> {
        self.there("overdue_questions").await?;
        let state = self.state.lock().unwrap();
        let open = state.cases.values().filter(|case| case.resolution.is_none());
        let mut found: Vec<OverdueQuestion> = open
            .filter_map(|case| {
                let next_query_at = case.next_query_at.filter(|at| *at <= due_by)?;
                let held = state.held.get(&case.key.order_id).copied();
                Some(OverdueQuestion { key: case.key.clone(), next_query_at, held })
            })
            .collect();
        found.sort_by_key(|one| one.next_query_at);
        found.truncate(limit);
        Ok(found)
    }

    async fn set_questions(&self, batch: &[QuestionTime]) -> Result<(), StoreError> {
        self.there("set_questions").await?;
        {
            let mut state = self.state.lock().unwrap();
            for time in batch {
                let case = state.cases.get_mut(&(time.key.order_id.clone(), time.key.kind.as_str()));
                let same = |case: &&mut Case| case.resolution.is_none() && case.next_query_at == Some(time.was);
                if let Some(case) = case.filter(same) {
                    case.next_query_at = time.next;
                }
            }
        }
        self.back("set_questions").await
    }

    async fn note(&self, note: &CaseNote) -> Result<Written, StoreError> {
        self.there("note").await?;
        let mut state = self.state.lock().unwrap();
        let is_it = |case: &&mut Case| case.key == note.key && case.resolution.is_none() && case.owner == note.was;
        let Some(case) = state.cases.values_mut().find(is_it) else { return Ok(Written::Overtaken) };
        case.owner.clone_from(&note.owner);
        state.next += 1;
        let place = (state.next, state.next);
        state.log.entry(place).or_default().push(note.entry.clone());
        Ok(Written::Stored)
    }

    async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError> {
        self.there("escalate").await?;
        let mut state = self.state.lock().unwrap();
        let due = |case: &&mut Case| case.resolution.is_none() && !case.escalated && case.escalate_at <= now;
        let escalated = state.cases.values_mut().filter(due).take(limit).map(|case| {
            case.escalated = true;
            case.clone()
        });
        Ok(escalated.collect())
    }
}

#[async_trait]
impl ReadMarks for MemStore {
    async fn note_read(&self, topic: &str, marks: &[ReadMark]) -> Result<(), StoreError> {
        self.there("note_read").await?;
        let mut state = self.state.lock().unwrap();
        for mark in marks {
            let noted = state.read_marks.entry((topic.to_owned(), mark.partition)).or_insert(mark.up_to);
            *noted = (*noted).max(mark.up_to);
        }
        Ok(())
    }

    async fn read_up_to(&self, topic: &str, partitions: usize) -> Result<Option<Timestamp>, StoreError> {
        self.there("read_up_to").await?;
        let state = self.state.lock().unwrap();
        let marks: Vec<Timestamp> =
            state.read_marks.iter().filter(|((name, _), _)| name == topic).map(|(_, up_to)| *up_to).collect();
        Ok(marks.iter().min().copied().filter(|_| marks.len() >= partitions))
    }
}

#[async_trait]
impl OrderBook for MemStore {
    async fn page(&self, filter: &OrderFilter, after: Option<&OrderId>, limit: usize) -> Result<OrderPage, StoreError> {
        let state = self.state.lock().unwrap();
        let is_open = |case: &Case, id: &OrderId| case.key.order_id == *id && case.resolution.is_none();
        let view = |row: &Order| OrderView {
            order: row.clone(),
            case_open: state.cases.values().any(|case| is_open(case, &row.order_id)),
        };
        let rows = state.rows.values().filter(|row| after.is_none_or(|after| row.order_id > *after));
        let orders: Vec<OrderView> = rows.map(view).filter(|view| filter.keeps(view)).take(limit).collect();
        let next = orders.last().filter(|_| orders.len() >= limit).map(|view| view.order.order_id.clone());
        Ok(OrderPage { orders, next })
    }

    async fn waits(&self, order_id: &OrderId) -> Result<Waits, StoreError> {
        let state = self.state.lock().unwrap();
        let of = |set: &std::collections::BTreeSet<(Timestamp, OrderId)>| {
            set.iter().find(|(_, id)| id == order_id).map(|(at, _)| *at)
        };
        Ok(Waits { notification_at: of(&state.timers), refund_confirm_by: of(&state.followed) })
    }

    async fn count_by_state(&self) -> Result<Vec<(OrderState, u64)>, StoreError> {
        let state = self.state.lock().unwrap();
        let mut counts: Vec<(OrderState, u64)> = Vec::new();
        for row in state.rows.values() {
            match counts.iter_mut().find(|(state, _)| *state == row.state) {
                Some((_, count)) => *count += 1,
                None => counts.push((row.state, 1)),
            }
        }
        Ok(counts)
    }
}
