//! What a failure of Postgres means to the caller.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::ports::{StoreError, StoreErrorKind};

/// Why an operation gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Silence {
    #[error("no connection was free in time")]
    NoConnection,
    #[error("no answer came in time; the connection was given up")]
    NoAnswer,
    #[error("the operation was stopped with its runtime")]
    Stopped,
    #[error("the operation failed inside")]
    Panicked,
}

impl Silence {
    pub(super) fn error(self, operation: &'static str) -> StoreError {
        let kind = match self {
            Self::NoConnection | Self::NoAnswer | Self::Stopped => StoreErrorKind::Unreachable,
            Self::Panicked => StoreErrorKind::Broken,
        };
        StoreError { operation, kind, source: Box::new(self) }
    }
}

pub(super) fn store_error(operation: &'static str, error: sqlx::Error) -> StoreError {
    StoreError { operation, kind: kind(&error), source: Box::new(error) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what the driver may add later is a defect until it is known")]
fn kind(error: &sqlx::Error) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(database) => database.code().map_or(StoreErrorKind::Broken, |code| of_sqlstate(&code)),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreErrorKind::Unreachable,
        _ => StoreErrorKind::Broken,
    }
}

/// By SQLSTATE (Postgres documentation, appendix A).
fn of_sqlstate(code: &str) -> StoreErrorKind {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => StoreErrorKind::Contention,
        // query_canceled (statement_timeout), cannot_connect_now and the shutdowns,
        // read_only_sql_transaction (a primary that has become a replica)
        "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25006" => StoreErrorKind::Unreachable,
        // connection exceptions, insufficient resources, system errors, time-out in a transaction
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") || code == "25P03" => {
            StoreErrorKind::Unreachable
        }
        // data exceptions, integrity constraints: what the batch holds
        _ if code.starts_with("22") || code.starts_with("23") => StoreErrorKind::BadData,
        _ => StoreErrorKind::Broken,
    }
}

/// Whether a row or table was locked for longer than is waited.
pub(super) fn is_about_a_lock(error: &StoreError) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    let driver = error.source.downcast_ref::<sqlx::Error>();
    let code = driver.and_then(sqlx::Error::as_database_error).and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

/// Whether the connections beside this one are likely gone as well: the server went away, or
/// turned into a replica.
pub(super) fn is_of_the_server(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return kind(error) == StoreErrorKind::Unreachable;
    };
    database.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| {
        matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic) || error.code() == "25006"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_that_passes_by_itself_is_transient() {
        for (code, expected) in [
            ("40P01", StoreErrorKind::Contention),
            ("57P01", StoreErrorKind::Unreachable),
            ("57014", StoreErrorKind::Unreachable),
            ("53300", StoreErrorKind::Unreachable),
            ("08006", StoreErrorKind::Unreachable),
            ("25006", StoreErrorKind::Unreachable),
            ("23514", StoreErrorKind::BadData),
            ("22021", StoreErrorKind::BadData),
            ("42P01", StoreErrorKind::Broken),
            ("28P01", StoreErrorKind::Broken),
        ] {
            assert_eq!(of_sqlstate(code), expected, "{code}");
        }
    }
}
