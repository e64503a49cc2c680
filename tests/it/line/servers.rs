//! A broker and a database of the tests' own, which they may torture.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::harness::{Line, Wishes};

/// One instance for all who want one at a time; the last one takes it down.
static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
/// How many instances there were.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Whose turn it is.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The servers.
pub(super) struct Servers {
    folder: PathBuf,
    brokers: String,
    database: String,
}

/// The servers, for one test at a time.
pub(super) struct Torture {
    servers: Arc<Servers>,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Torture {
    /// Waits for its turn; all servers are up.
    pub(super) async fn begin() -> Self {
        // Taken before the turn, so that the instance outlives a change of turns.
        let servers = tokio::task::spawn_blocking(Servers::shared).await.unwrap();
        let turn = TURN.lock().await;
        let torture = Self { servers, _turn: turn };
        // Whatever the last one did to them.
        torture.services(&["up"]).await;
        torture
    }

    /// A line with a database of its own on these servers.
    pub(super) async fn line(&self, wishes: Wishes) -> Line {
        let name = format!("line_{}", uuid::Uuid::new_v4().simple());
        self.sql(&format!("create database {name}")).await;
        let mut url = url::Url::parse(&self.servers.database).unwrap();
        url.set_path(&name);
        Line::set_up_at(wishes, &self.servers.brokers, url.as_str(), None).await
    }

    pub(super) async fn sql(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.servers.database).await.unwrap();
        connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        connection.close().await.unwrap();
    }

    /// `scripts/services` with these arguments.
    pub(super) async fn services(&self, arguments: &[&str]) {
        let folder = self.servers.folder.clone();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        tokio::task::spawn_blocking(move || services(&folder, &arguments)).await.unwrap();
    }
}

impl Servers {
    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        sweep();
        // A folder of its own: the former instance may still be on its way down.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("recharged-torture-{}-{count}", std::process::id()));
        // Before the start, so that a start that fails is taken down as well.
        let mut servers = Self { folder: folder.clone(), brokers: String::new(), database: String::new() };
        let environment = services(&folder, &["up".to_owned()]);
        let value = |name: &str| {
            let line = environment.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name} in {environment}")).to_owned()
        };
        (servers.brokers, servers.database) = (value("KAFKA_BROKERS"), value("DATABASE_URL"));
        let servers = Arc::new(servers);
        *shared = Arc::downgrade(&servers);
        servers
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        take_down(&self.folder);
    }
}

fn command(folder: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services"));
    command.args(arguments).env("RECHARGED_SERVICES_DIR", folder).stdin(Stdio::null());
    command
}

fn services(folder: &Path, arguments: &[String]) -> String {
    let done = command(folder, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

/// Runs at the end of a test that may have failed already, so it does not panic.
fn take_down(folder: &Path) {
    let down = command(folder, &["down".to_owned(), "--purge".to_owned()]).output();
    if !down.as_ref().is_ok_and(|down| down.status.success()) {
        println!("the servers in {} stay: {down:?}", folder.display());
    }
}

/// Servers whose tests were killed are still there.
fn sweep() {
    let Ok(folders) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for folder in folders.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix("recharged-torture-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            take_down(&folder.path());
        }
    }
}
