//! The store as one process reaches it: not while it stands still, and no more once it is dead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use recharged::domain::{LoggedEvent, OrderId, ProviderId, Recipient, Timestamp, Transition};
use recharged::ports::{
    Case, CaseBook, CaseFilter, CaseNote, Census, Cooldowns, Cooling, DeadlineBook, DeadlinePage, DeadlinePosition,
    EventLog, Grant, Haste, Held, Hold, Horizon, Hurried, Inserted, Loaded, LogBatch, LogPosition, OrderStore,
    OverdueQuestion, QuestionTime, Questions, Quota, ReadMark, ReadMarks, RefundBook, RefundPage, Reservation,
    SchemaError, StoreError, TimerPage, Timers, Written,
};

use super::{MemStore, away};
use crate::life::Life;

#[derive(Debug)]
pub(crate) struct ProcessStore {
    pub(crate) store: Arc<MemStore>,
    pub(crate) life: Arc<Life>,
    /// What watches the deadlines uses it: what holds it up is noted.
    pub(crate) watches: bool,
}

impl ProcessStore {
    async fn reach(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.life.is_cut_off() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Err(away(operation));
        }
        Ok(())
    }
}

/// A port whose methods pass the process's gate on their way there and back.
macro_rules! gated {
    ($port:ident {
        $(async fn $name:ident(&self $(, $argument:ident: $kind:ty)*) -> Result<$answer:ty, $error:ty>;)+
    }) => {
        #[async_trait]
        impl $port for ProcessStore {
            $(async fn $name(&self $(, $argument: $kind)*) -> Result<$answer, $error> {
                let began = self.watches.then(|| self.life.begins(stringify!($name)));
                let answer = async {
                    self.life.pass().await;
                    self.reach(stringify!($name)).await?;
                    let answer = self.store.$name($($argument),*).await;
                    self.life.pass().await;
                    self.reach(stringify!($name)).await?;
                    answer
                };
                let answer = answer.await;
                match began {
                    Some(began) if answer.is_ok() => self.life.succeeds(stringify!($name), began),
                    Some(began) => self.life.fails(began),
                    None => {}
                }
                answer
            })+
        }
    };
}

gated! {
    OrderStore {
        async fn insert(&self, batch: &[Transition]) -> Result<Vec<Inserted>, StoreError>;
        async fn load(&self, ids: &[OrderId]) -> Result<Vec<Loaded>, StoreError>;
        async fn apply(&self, batch: &[Transition]) -> Result<Vec<Written>, StoreError>;
        async fn now(&self) -> Result<Timestamp, StoreError>;
        async fn check(&self) -> Result<(), SchemaError>;
    }
}

gated! {
    DeadlineBook {
        async fn low_water(&self) -> Result<Timestamp, StoreError>;
        async fn move_low_water(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError>;
        async fn set_aside(&self, from: Timestamp, to: Timestamp) -> Result<bool, StoreError>;
        async fn aside(&self, after: &DeadlinePosition, limit: usize) -> Result<DeadlinePage, StoreError>;
        async fn horizon(&self) -> Result<Horizon, StoreError>;
        async fn undecided(&self, after: &DeadlinePosition, until: Timestamp, limit: usize)
            -> Result<DeadlinePage, StoreError>;
        async fn census(&self, low_water: Timestamp, now: Timestamp) -> Result<Census, StoreError>;
        async fn unanswered(&self, provider: &ProviderId, claimed_before: Timestamp, after: &DeadlinePosition,
            until: Timestamp, limit: usize) -> Result<DeadlinePage, StoreError>;
    }
}

gated! {
    Questions {
        async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError>;
        async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError>;
    }
}

gated! {
    Cooldowns {
        async fn cool(&self, batch: &[Cooling], now: Timestamp) -> Result<Vec<Option<Timestamp>>, StoreError>;
        async fn give_back(&self, batch: &[Cooling]) -> Result<(), StoreError>;
        async fn forget_cooled(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;
    }
}

gated! {
    EventLog {
        async fn read_log(&self, after: LogPosition, limit: usize) -> Result<Vec<LogBatch>, StoreError>;
        async fn has_more(&self, after: LogPosition) -> Result<bool, StoreError>;
        async fn cursor(&self) -> Result<LogPosition, StoreError>;
        async fn advance_cursor(&self, from: LogPosition, to: LogPosition) -> Result<bool, StoreError>;
        async fn timelines(&self, ids: &[OrderId]) -> Result<Vec<Vec<LoggedEvent>>, StoreError>;
        async fn recipients(&self, ids: &[OrderId]) -> Result<Vec<Option<Recipient>>, StoreError>;
    }
}

gated! {
    Timers {
        async fn due(&self, after: &DeadlinePosition, until: Timestamp, limit: usize) -> Result<TimerPage, StoreError>;
        async fn fire(&self, batch: &[LoggedEvent]) -> Result<Vec<Written>, StoreError>;
    }
}

gated! {
    RefundBook {
        async fn unconfirmed(&self, after: &DeadlinePosition, until: Timestamp, limit: usize)
            -> Result<RefundPage, StoreError>;
        async fn unfollow(&self, ids: &[OrderId]) -> Result<(), StoreError>;
    }
}

gated! {
    Quota {
        async fn reserve(&self, reservation: &Reservation) -> Result<Grant, StoreError>;
        async fn pause(&self, provider: &ProviderId, until: Timestamp) -> Result<(), StoreError>;
    }
}

gated! {
    CaseBook {
        async fn cases(&self, filter: &CaseFilter, after: Option<&Case>, limit: usize) -> Result<Vec<Case>, StoreError>;
        async fn overdue_questions(&self, due_by: Timestamp, limit: usize) -> Result<Vec<OverdueQuestion>, StoreError>;
        async fn set_questions(&self, batch: &[QuestionTime]) -> Result<(), StoreError>;
        async fn note(&self, note: &CaseNote) -> Result<Written, StoreError>;
        async fn escalate(&self, now: Timestamp, limit: usize) -> Result<Vec<Case>, StoreError>;
    }
}

gated! {
    ReadMarks {
        async fn note_read(&self, topic: &str, marks: &[ReadMark]) -> Result<(), StoreError>;
        async fn read_up_to(&self, topic: &str, partitions: usize) -> Result<Option<Timestamp>, StoreError>;
    }
}
