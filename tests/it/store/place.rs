//! A store of a test's own, gone when the test ends.

use std::sync::Arc;

use recharged::ports::Store;
use recharged::store::{StoreOptions, migrate, open};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::sync::OnceCell;

use super::fixture::Refunded;

pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) store: Arc<dyn Store>,
    /// What must be taken away.
    database: Database,
}

enum Database {
    Postgres(#[allow(dead_code, reason = "dropping it drops the database")] Scratch),
    Sqlite(#[allow(dead_code, reason = "dropping it removes the folder")] tempfile::TempDir),
}

impl Place {
    pub(crate) async fn postgres() -> Self {
        let scratch = Scratch::from_template().await;
        let url = scratch.url.clone();
        let store = open(&url, &StoreOptions::default()).await.expect("the scratch database opens");
        Self { url, store, database: Database::Postgres(scratch) }
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("store.db").display());
        migrate(&url, &StoreOptions::default()).await.expect("a new file migrates");
        let store = open(&url, &StoreOptions::default()).await.expect("the file opens");
        Self { url, store, database: Database::Sqlite(folder) }
    }

    /// How many orders there are.
    pub(crate) async fn orders(&self) -> u64 {
        self.store.count_by_state().await.expect("counts").iter().map(|(_, count)| count).sum()
    }

    /// The order of each entry of the log.
    pub(crate) async fn entries(&self) -> Vec<String> {
        let rows = self.texts("select order_id from order_events").await;
        rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
    }

    /// The refunds that wait to be made.
    pub(crate) async fn refunds(&self) -> Vec<Refunded> {
        let rows = self
            .texts(
                "select order_id, payment_id, cast(amount_minor as text), currency, reason
                 from refunds where state = 'requested' order by order_id",
            )
            .await;
        let refund = |row: Vec<Option<String>>| {
            let mut texts = row.into_iter();
            let mut next = || texts.next().flatten();
            Refunded {
                order_id: next().expect("an order"),
                payment_id: next(),
                amount_minor: next().and_then(|text| text.parse().ok()).expect("an amount"),
                currency: next().expect("a currency"),
                reason: next().expect("a reason"),
            }
        };
        rows.into_iter().map(refund).collect()
    }

    /// The rows that `sql` selects, all of them texts.
    async fn texts(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Postgres(_) => {
                let mut connection = PgConnection::connect(&self.url).await.expect("connects");
                let rows = connection.fetch_all(sql).await.expect("answers");
                rows.iter().map(|row| (0..row.len()).map(|place| row.get(place)).collect()).collect()
            }
            Database::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.url).await.expect("connects");
                let rows = connection.fetch_all(sql).await.expect("answers");
                rows.iter().map(|row| (0..row.len()).map(|place| row.get(place)).collect()).collect()
            }
        }
    }

    /// The one number that `sql` selects.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Postgres(_) => {
                let mut connection = PgConnection::connect(&self.url).await.expect("connects");
                connection.fetch_one(sql).await.expect("answers").get(0)
            }
            Database::Sqlite(_) => {
                let mut connection = SqliteConnection::connect(&self.url).await.expect("connects");
                connection.fetch_one(sql).await.expect("answers").get(0)
            }
        }
    }
}

/// A Postgres database with a random name.
pub(crate) struct Scratch {
    pub(crate) url: String,
    name: String,
}

/// The server that tests may make databases on.
pub(crate) fn server() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| {
        panic!("this test needs Postgres: run it through scripts/test, or: eval \"$(scripts/services up)\"")
    })
}

pub(crate) async fn on_server(sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(&server()).await?;
    connection.execute(AssertSqlSafe(sql.to_owned())).await?;
    connection.close().await
}

fn url_of(name: &str) -> String {
    let mut url = url::Url::parse(&server()).expect("DATABASE_URL is an address");
    url.set_path(name);
    url.to_string()
}

impl Scratch {
    pub(crate) async fn empty() -> Self {
        let name = format!("store_test_{}", uuid::Uuid::new_v4().simple());
        on_server(&format!("create database {name}")).await.expect("a database can be made");
        Self { url: url_of(&name), name }
    }

    /// A copy of a migrated database: much faster than migrating each.
    async fn from_template() -> Self {
        static TEMPLATE: OnceCell<String> = OnceCell::const_new();
        let template = TEMPLATE.get_or_init(template).await;
        let name = format!("store_test_{}", uuid::Uuid::new_v4().simple());
        on_server(&format!("create database {name} template {template}")).await.expect("the template can be copied");
        Self { url: url_of(&name), name }
    }
}

/// Makes the template of this run.
async fn template() -> String {
    let scratch = Scratch::empty().await;
    migrate(&scratch.url, &StoreOptions::default()).await.expect("an empty database migrates");
    let name = scratch.name.clone();
    sweep(&name).await;
    std::mem::forget(scratch);
    name
}

/// A template outlives its run, since nothing runs after the last test. So each run takes away
/// those that runs before it have left, marked by a comment with their process.
async fn sweep(keep: &str) {
    let mut connection = PgConnection::connect(&server()).await.expect("connects");
    let mark = format!("comment on database {keep} is 'template of process {}'", std::process::id());
    connection.execute(AssertSqlSafe(mark)).await.expect("marks the template");
    let templates = connection
        .fetch_all(
            "select datname, shobj_description(oid, 'pg_database') from pg_database
             where shobj_description(oid, 'pg_database') like 'template of process %'",
        )
        .await
        .expect("lists the templates");
    for row in templates {
        let (name, mark): (String, String) = (row.get(0), row.get(1));
        let process = mark.rsplit(' ').next().unwrap_or_default().to_owned();
        if !std::path::Path::new("/proc").join(&process).exists() {
            let drop = format!("drop database if exists {name}");
            // Another run may be at it as well.
            if let Err(error) = connection.execute(AssertSqlSafe(drop)).await {
                println!("an old template stays: {error}");
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let drop = format!("drop database if exists {} with (force)", self.name);
        // A thread with a runtime of its own: this one's may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(on_server(&drop))
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            other => println!("a scratch database stays: {other:?}"),
        }
    }
}
