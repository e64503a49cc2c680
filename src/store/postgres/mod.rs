//! Postgres, 14 or newer. Every statement is checked against the schema when it is compiled
//! (`.sqlx/`, kept fresh by `scripts/sqlx`).

mod book;
mod callbacks;
mod cases;
mod columns;
mod connections;
mod day_log;
mod deadlines;
mod error;
mod lanes;
mod letters;
mod locks;
mod log;
mod orders;
mod questions;
mod quota;
mod read_marks;
mod refunds;
pub(super) mod schema;
mod timers;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use self::connections::Connections;
use super::{OpenError, StoreOptions};

/// What a count over all orders may take; people wait, the hot path has its own connections.
const BOOK_TIMEOUT: Duration = Duration::from_mins(1);

/// Two connections for people and exports.
const BOOK_CONNECTIONS: u32 = 2;

/// The adapter for Postgres.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    hot: Connections,
    book: Connections,
}

impl PostgresStore {
    /// Opens the database and looks whether it answers.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, OpenError> {
        let hot = connect_options(url, options, options.statement_timeout)?.options(BY_KEY);
        let book = connect_options(url, options, BOOK_TIMEOUT)?;
        let store = Self {
            hot: Connections::new(hot, options.max_connections, options.acquire_timeout, options.statement_timeout),
            book: Connections::new(book, BOOK_CONNECTIONS, options.acquire_timeout, BOOK_TIMEOUT),
        };
        store.server_time("open").await.map_err(OpenError::Connect)?;
        Ok(store)
    }
}

/// The server ends what hangs, also where this process cannot say so any more.
fn connect_options(
    url: &str,
    options: &StoreOptions,
    statement_timeout: Duration,
) -> Result<PgConnectOptions, OpenError> {
    let mut connect = PgConnectOptions::from_str(url).map_err(|error| OpenError::Address(Box::new(error)))?;
    if let Some(password) = &options.password {
        connect = connect.password(password);
    }
    if connect.get_application_name().is_none() {
        connect = connect.application_name("recharged");
    }
    Ok(connect.options([
        ("statement_timeout", statement_timeout.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", "5000".to_owned()),
        ("tcp_keepalives_idle", "30".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "15000".to_owned()),
        ("default_transaction_isolation", "read committed".to_owned()),
    ]))
}

/// Every hot statement reads by a key, and no other plan of it is ever right. Saying so makes one
/// plan good for any size of the tables, so that it is made once and not for each execution
/// (docs/adr/0103): a third of the cost at batches of 10, a sixth at 500.
const BY_KEY: [(&str, &str); 6] = [
    // A row that somebody holds, say in a console, is told from a server that does not answer.
    ("lock_timeout", "2000"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    // A plan's estimated cost says nothing where methods are switched off; compiling one takes
    // longer than running any of them.
    ("jit", "off"),
];
