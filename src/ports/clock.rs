//! Time.

use std::time::Duration;

use crate::domain::Timestamp;

/// Time. Deadlines are on the database's clock, so `now` is corrected by the measured skew.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The database's time, as well as this process knows it; whole microseconds.
    fn now(&self) -> Timestamp;

    /// A clock that only goes forward, also while the machine is suspended: for the send window.
    fn since_boot(&self) -> Duration;
}
