//! What the roles need from the outside, as traits. Adapters implement them; only `app` knows which.

mod book;
mod callbacks;
mod cases;
mod clock;
mod day_log;
mod deadlines;
mod lanes;
mod log;
mod provider;
mod publisher;
mod questions;
mod quota;
mod read_marks;
mod refunds;
mod statement;
mod store;
mod subscription;
mod timers;

pub use book::{OrderBook, OrderFilter, OrderPage, OrderView, Waits};
pub use callbacks::{
    Acknowledgement, Became, CallbackAnswer, CallbackBook, CallbackDoor, CallbackNews, CallbackRefusal, NotedCallback,
    RawCallback,
};
pub use cases::{Case, CaseBook, CaseFilter, CaseKey, CaseNote, OverdueQuestion, QuestionTime, Resolution};
pub use clock::Clock;
pub use day_log::{DayLog, Mentions};
pub use deadlines::{Census, DeadlineBook, DeadlinePage, DeadlinePosition, Horizon, UnreadableRow};
pub use lanes::{Cooldowns, Cooling, LaneBook, LaneChange};
pub use log::{EventLog, LogBatch, LogPosition};
pub use provider::{QueryKey, RechargeProvider, SubmitRequest};
pub use publisher::{LaneTopics, OutRecord, PublishError, Publisher, command_record};
pub use questions::{Haste, Held, Hold, Hurried, Questions};
pub use quota::{Grant, PermitClass, Quota, QuotaTerms, Reservation};
pub use read_marks::{ReadMark, ReadMarks};
pub use refunds::{RefundBook, RefundPage};
pub use statement::{ListPermits, Listed, ListedState, Statement, StatementError, StatementTrouble};
pub use store::{Inserted, Loaded, OrderStore, SchemaError, Store, StoreError, StoreErrorKind, Written};
pub use subscription::{Ack, ActedOn, Assignment, InRecord, Stopped, Subscription};
pub use timers::{TimerPage, Timers};
