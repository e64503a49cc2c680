//! A database and topics of one measurement's own, and the configuration that names them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use recharged::app;
use recharged::config::{Config, Topics};
use recharged::domain::Timestamp;
use recharged::kafka::topics::{Outcome, Want};
use recharged::kafka::{KafkaOptions, topics};
use recharged::ports::LogPosition;
use recharged::store::{StoreOptions, migrate};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::Mutex;

/// Of every topic.
pub(crate) const PARTITIONS: i32 = 4;
/// The name of the one lane.
pub(crate) const LANE: &str = "bench";
/// Far more than any machine does: the quota costs its statement but never holds anything up.
const PERMITS_PER_SECOND: u32 = 1_000_000;
const IN_FLIGHT_MAX: u32 = 20_000;

/// What one measurement works on; gone after it.
pub(crate) struct Scratch {
    pub(crate) prefix: String,
    pub(crate) brokers: String,
    pub(crate) topics: Topics,
    pub(crate) config_path: PathBuf,
    database: String,
    names: Vec<String>,
    server: PgConnectOptions,
    connection: Mutex<PgConnection>,
    folder: tempfile::TempDir,
}

/// What the database holds at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) orders: i64,
    pub(crate) succeeded: i64,
    pub(crate) all_published: bool,
}

impl Scratch {
    /// Makes it on the servers that the environment names.
    pub(crate) async fn make() -> Result<Self> {
        let brokers = environment("KAFKA_BROKERS")?;
        let server = PgConnectOptions::from_str(&environment("DATABASE_URL")?).context("DATABASE_URL")?;
        let random: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let database = format!("bench_{random}");
        let prefix = format!("bench-{random}.");
        let mut on_server = server.connect().await.context("Postgres")?;
        run(&mut on_server, &format!("create database {database}")).await?;
        let server_url = environment("DATABASE_URL")?;
        let url = with_database(&server_url, &database)?;
        migrate(&url, &StoreOptions::default()).await.context("the database could not be migrated")?;

        let folder = tempfile::tempdir()?;
        let config_path = folder.path().join("recharged.toml");
        std::fs::write(folder.path().join("phone-key"), "a key for synthetic numbers only")?;
        std::fs::write(&config_path, configuration(&brokers, &url, &prefix, folder.path()))?;
        let config = load(&config_path)?;
        let topics = config.topics();
        let mut plans = app::topic_plans(&config);
        for plan in &mut plans {
            if [&topics.order_events, &topics.timers].iter().any(|name| plan.name == ***name) {
                // The broker's own time of what arrives: nothing of the way there is left out.
                plan.config.insert("message.timestamp.type".to_owned(), Want::Exactly("LogAppendTime".to_owned()));
            }
        }
        let outcomes = topics::create(&KafkaOptions::plain(&brokers, "bench"), &plans).await.context("topics")?;
        for outcome in outcomes {
            if let Outcome::Refused { topic, reason } = outcome {
                bail!("the broker does not make {topic}: {reason}");
            }
        }
        let names = plans.into_iter().map(|plan| plan.name).collect();
        let connection = Mutex::new(server.clone().database(&database).connect().await?);
        Ok(Self { prefix, brokers, topics, config_path, database, names, server, connection, folder })
    }

    /// Takes everything away again.
    pub(crate) async fn remove(self) -> Result<()> {
        self.connection.into_inner().close().await?;
        let mut on_server = self.server.connect().await?;
        run(&mut on_server, &format!("drop database {} with (force)", self.database)).await?;
        let admin: rdkafka::admin::AdminClient<_> =
            rdkafka::ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?;
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let options = rdkafka::admin::AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
        admin.delete_topics(&names, &options).await?;
        self.folder.close()?;
        Ok(())
    }

    /// What the services of this measurement say.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.path().join("service.log")
    }

    /// The end of it.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n")
    }

    /// Runs a statement that answers nothing.
    pub(crate) async fn run(&self, statement: &str) -> Result<()> {
        run(&mut *self.connection.lock().await, statement).await
    }

    /// The rows of a statement.
    pub(crate) async fn rows(&self, statement: &str) -> Result<Vec<PgRow>> {
        let mut connection = self.connection.lock().await;
        #[expect(clippy::disallowed_methods, reason = "statements of the measurement")]
        let query = sqlx::query(AssertSqlSafe(statement.to_owned()));
        Ok(query.fetch_all(&mut *connection).await?)
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        Ok(self.server.clone().database(&self.database).connect().await?)
    }

    /// The name of the database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    async fn row(&self, statement: &'static str) -> Result<PgRow> {
        let mut connection = self.connection.lock().await;
        #[expect(clippy::disallowed_methods, reason = "statements of the measurement, about the server itself")]
        let row = sqlx::query(statement).fetch_one(&mut *connection).await?;
        Ok(row)
    }

    /// Of a process of the server.
    pub(crate) async fn backend_pid(&self) -> Result<i32> {
        Ok(self.row("select pg_backend_pid()").await?.try_get(0)?)
    }

    /// Starts every measurement equally far from the next checkpoint, after which each page is
    /// logged whole once more.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        run(&mut *self.connection.lock().await, "checkpoint").await
    }

    /// Bytes of WAL that the server has ever written.
    pub(crate) async fn wal_bytes(&self) -> Result<i64> {
        Ok(self.row("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").await?.try_get(0)?)
    }

    /// Updates of orders, and how many of them were heap-only. Complete once the writers' connections are closed.
    pub(crate) async fn hot_share(&self) -> Result<f64> {
        let statement = "select coalesce(sum(n_tup_upd), 0)::float8, coalesce(sum(n_tup_hot_upd), 0)::float8 \
                         from pg_stat_user_tables where relname = 'orders'";
        let row = self.row(statement).await?;
        let (updates, hot): (f64, f64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(if updates > 0.0 { hot / updates } else { 0.0 })
    }

    pub(crate) async fn counts(&self) -> Result<Counts> {
        let row = self.row("select count(*), count(*) filter (where state = 'succeeded') from orders").await?;
        let last = self.row("select xid, seq from order_event_batches order by xid desc, seq desc limit 1").await;
        let cursor = self.row("select xid, seq from relay_cursor").await?;
        let position = |row: &PgRow| Ok::<_, sqlx::Error>(LogPosition { xid: row.try_get(0)?, seq: row.try_get(1)? });
        let all_published = last.is_ok_and(|last| position(&last).ok() == position(&cursor).ok());
        Ok(Counts { orders: row.try_get(0)?, succeeded: row.try_get(1)?, all_published })
    }

    /// When the first batch was fetched and looked at: the time of the first entry of the log.
    pub(crate) async fn first_entry_at(&self) -> Result<Timestamp> {
        Ok(self
            .row(
                "select timestamptz 'epoch' + min((line::jsonb->>'at')::bigint) * interval '1 microsecond' \
             from (select entries from order_event_batches order by xid, seq limit 16) as first, \
                  string_to_table(entries, e'\\n') as line",
            )
            .await?
            .try_get(0)?)
    }

    /// Of every closed order: its id, and when its end was decided.
    pub(crate) async fn closings(&self) -> Result<Vec<(String, Timestamp)>> {
        let mut connection = self.connection.lock().await;
        #[expect(clippy::disallowed_methods, reason = "a statement of the measurement")]
        let query = sqlx::query("select order_id, closed_at from orders where closed_at is not null");
        let rows = query.fetch_all(&mut *connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Of this database, for a child that does not read the configuration.
    pub(crate) async fn settings(&self) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for name in ["server_version", "shared_buffers", "synchronous_commit", "fsync"] {
            let statement = format!("select current_setting('{name}')");
            let mut connection = self.connection.lock().await;
            #[expect(clippy::disallowed_methods, reason = "a statement of the measurement")]
            let row = sqlx::query(AssertSqlSafe(statement)).fetch_one(&mut *connection).await?;
            found.insert(name.to_owned(), row.try_get(0)?);
        }
        Ok(found)
    }
}

/// Reads the configuration of a measurement.
pub(crate) fn load(path: &std::path::Path) -> Result<Config> {
    let loaded = Config::load(Some(path), [], &[]).map_err(|problems| {
        let mut text = String::new();
        for problem in problems {
            let _infallible = write!(text, "{problem}; ");
        }
        anyhow!("the configuration: {text}")
    })?;
    Ok(loaded.config)
}

fn environment(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run through scripts/bench"))
}

fn with_database(url: &str, database: &str) -> Result<String> {
    let mut url = url::Url::parse(url).context("DATABASE_URL")?;
    url.set_path(database);
    Ok(url.into())
}

async fn run(on: &mut PgConnection, statement: &str) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "statements of the measurement, about the server itself")]
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(on).await?;
    Ok(())
}

/// As in production, but for a deadline that no backlog reaches and a quota that never binds.
fn configuration(brokers: &str, url: &str, prefix: &str, folder: &std::path::Path) -> String {
    format!(
        r#"
        [sla]
        deadline = "1h"
        [kafka]
        brokers = "{brokers}"
        topic_prefix = "{prefix}"
        group_prefix = "{prefix}"
        [kafka.topics]
        partitions = {PARTITIONS}
        [store]
        url = "{url}"
        [security]
        phone_key_file = "{}/phone-key"
        [http]
        listen = "127.0.0.1:0"
        [log]
        level = "warn"
        [providers.{LANE}]
        kind = "simulator"
        base_url = "http://127.0.0.1:1"
        [providers.{LANE}.quota]
        permits_per_second = {PERMITS_PER_SECOND}
        in_flight_max = {IN_FLIGHT_MAX}
        "#,
        folder.display()
    )
}
