//! A line of its own for a test: topics with a prefix of their own, a database of its own, a
//! provider simulator with its ledger, and as many `recharged run` processes as it asks for.

mod books;
mod events;
mod history;
mod orders;
mod provider;
mod service;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use recharged::clock::SystemClock;
use recharged::domain::DuplicateSemantics;
use recharged::kafka::{KafkaOptions, Producer, ProducerOptions};
use recharged::ports::Store;
use recharged::providers::Secret;
use recharged::providers::simulator::{Profile, Simulator, SimulatorHandle, SimulatorOptions};
use recharged::store::{self, StoreOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pace::is_quiet;
use crate::store::place::Place;

pub(crate) use events::last_versions;
pub(crate) use history::is_held_up;
pub(crate) use orders::order_json;
pub(crate) use provider::Provider;
pub(crate) use service::{Service, free_address, get};

/// Longer than anything takes that works, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run through scripts/test, or eval \"$(scripts/services up)\""))
}

/// What a test wants to be different.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    pub(crate) partitions: u16,
    pub(crate) permits_per_second: f64,
    pub(crate) burst: u32,
    pub(crate) call_timeout: &'static str,
    pub(crate) send_window: &'static str,
    /// Nobody may ask about a send before it is so old.
    pub(crate) query_not_before: &'static str,
    pub(crate) tiers: &'static str,
    /// Whose `duplicates` the service is told of, too.
    pub(crate) profile: Profile,
    /// Other providers, in place of the line's own.
    pub(crate) providers: Option<String>,
    /// Further configuration, below everything else.
    pub(crate) toml: String,
    /// When the lane rests: never, where a provider that always fails is what a test is about.
    pub(crate) breaker: &'static str,
    /// What the simulator signs its callbacks with.
    pub(crate) callback_key: Option<&'static str>,
    /// No other line runs meanwhile.
    pub(crate) alone: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            partitions: 4,
            permits_per_second: 5_000.0,
            burst: 500,
            call_timeout: "5s",
            send_window: "1s",
            query_not_before: "1s",
            // Each tier is one client more in each process.
            tiers: r#"["1s"]"#,
            profile: Profile::default(),
            providers: None,
            toml: String::new(),
            breaker: "{ failing = 2.0, in_a_row = 65535, account_in_a_row = 65535 }",
            callback_key: None,
            alone: false,
        }
    }
}

/// A line is several processes on a machine of few cores, which mostly wait for something: a session's end, a
/// deadline. So four at a time; one, where it is under load from its beginning to its end, or where times are taken.
async fn turn(alone: bool) -> OwnedSemaphorePermit {
    const LINES: u32 = 4;
    static TURN: OnceLock<Arc<Semaphore>> = OnceLock::new();
    let turn = TURN.get_or_init(|| Arc::new(Semaphore::new(LINES as usize)));
    let wanted = if alone || is_quiet() { LINES } else { 1 };
    Arc::clone(turn).acquire_many_owned(wanted).await.unwrap()
}

/// The line.
pub(crate) struct Line {
    pub(crate) prefix: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) simulator: SimulatorHandle,
    pub(crate) config: PathBuf,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) brokers: String,
    producer: Producer,
    // Its database goes with it.
    place: Option<Place>,
    _turn: OwnedSemaphorePermit,
}

impl Line {
    /// On the shared broker and database server.
    pub(crate) async fn set_up(wishes: Wishes) -> Self {
        let place = Place::postgres().await;
        let url = place.url.clone();
        Self::set_up_at(wishes, &variable("KAFKA_BROKERS"), &url, Some(place)).await
    }

    /// On servers of the test's own, which it may torture.
    pub(crate) async fn set_up_at(wishes: Wishes, brokers: &str, url: &str, place: Option<Place>) -> Self {
        let turn = turn(wishes.alone).await;
        let folder = tempfile::tempdir().unwrap();
        let options = SimulatorOptions {
            profile: wishes.profile.clone(),
            ledger: Some(folder.path().join("ledger.jsonl")),
            seed: Some(7),
            callback_key: wishes.callback_key.map(Secret::new),
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options, Arc::new(SystemClock::new())).await.unwrap();
        let prefix = format!("line-{}.", uuid::Uuid::new_v4().simple());
        let config = folder.path().join("recharged.toml");
        std::fs::write(folder.path().join("phone-key"), "a key for tests, long enough").unwrap();
        let providers = wishes.providers.clone().unwrap_or_else(|| own_provider(&wishes, &simulator.base_url()));
        let text = format!(
            "[kafka]\nbrokers = {brokers:?}\ntopic_prefix = {prefix:?}\ngroup_prefix = {prefix:?}\n\
             [kafka.topics]\npartitions = {}\nreplication = 1\n\
             [delay]\ntiers = {}\n[store]\nurl = {url:?}\n[security]\nphone_key_file = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n\
             {providers}\n{}\n",
            wishes.partitions,
            wishes.tiers,
            folder.path().join("phone-key"),
            wishes.toml,
        );
        std::fs::write(&config, text).unwrap();
        let options = StoreOptions::default();
        store::migrate(url, &options).await.unwrap();
        let store = store::open(url, &options).await.unwrap();
        let producer = Producer::new(&KafkaOptions::plain(brokers, "line-tests"), ProducerOptions::default()).unwrap();
        let line = Self {
            prefix,
            store,
            simulator,
            config,
            folder,
            brokers: brokers.to_owned(),
            producer,
            place,
            _turn: turn,
        };
        line.make_topics().await;
        line
    }

    /// Those that are missing.
    pub(crate) async fn make_topics(&self) {
        // A broker that is busy with the topics of other tests may refuse for a moment.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let made = self.command(&["topics", "create"]).output().unwrap();
            if made.status.success() {
                return;
            }
            let is_configured = made.status.code() != Some(78);
            assert!(is_configured && Instant::now() < deadline, "{}{}", text_of(&made.stdout), text_of(&made.stderr));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> &str {
        &self.place.as_ref().unwrap().url
    }

    pub(crate) async fn connect(&self) -> sqlx::PgConnection {
        use sqlx::Connection as _;
        sqlx::PgConnection::connect(self.url()).await.unwrap()
    }

    pub(crate) async fn doctor(&self, statement: &str) {
        use sqlx::{AssertSqlSafe, Executor as _};
        self.connect().await.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        rdkafka::ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    /// Changes one setting of a topic; the others become the broker's own, but for the size of its records, which
    /// would be the first to be found too small.
    pub(crate) async fn set_topic(&self, name: &str, key: &str, value: &str) {
        let topic = self.topic(name);
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(key, value).set("max.message.bytes", "2097152");
        let changed = self.admin().alter_configs(&[change], &AdminOptions::new()).await.unwrap();
        assert!(changed.iter().all(Result::is_ok), "{changed:?}");
    }

    pub(crate) async fn delete_topic(&self, name: &str) {
        let deleted = self.admin().delete_topics(&[&*self.topic(name)], &AdminOptions::new()).await.unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    pub(crate) fn topic(&self, name: &str) -> Arc<str> {
        format!("{}{name}", self.prefix).into()
    }
}

/// The line's one provider.
fn own_provider(wishes: &Wishes, base_url: &str) -> String {
    let parsed = |text| humantime::parse_duration(text).unwrap();
    let grace = parsed(wishes.call_timeout) + parsed(wishes.send_window) + Duration::from_secs(1);
    format!(
        "[providers.sim.capabilities]\nduplicates = {:?}\nquery_not_before = {:?}\nquery_min_interval = \"1s\"\nnot_found_grace = {:?}\n\
         [providers.sim]\nkind = \"simulator\"\nbase_url = {base_url:?}\ncall_timeout = {:?}\nsend_window = {:?}\nexpected_service = \"500ms\"\n\
         quota = {{ permits_per_second = {:?}, burst = {}, in_flight_max = 500 }}\nbreaker = {}",
        duplicates(wishes.profile.duplicates),
        wishes.query_not_before,
        humantime::format_duration(grace).to_string(),
        wishes.call_timeout,
        wishes.send_window,
        wishes.permits_per_second,
        wishes.burst,
        wishes.breaker,
    )
}

/// Thousands of topics that nobody uses any more would slow the broker down for everybody.
impl Drop for Line {
    fn drop(&mut self) {
        let (brokers, prefix) = (self.brokers.clone(), self.prefix.clone());
        // On a thread of its own, since the test's runtime may not block.
        let swept = std::thread::spawn(move || sweep_topics(&brokers, &prefix)).join();
        if !matches!(swept, Ok(Ok(()))) {
            eprintln!("the topics {}* were left behind", self.prefix);
        }
    }
}

fn sweep_topics(brokers: &str, prefix: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let wait = Duration::from_secs(5);
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let metadata = admin.inner().fetch_metadata(None, wait)?;
    let ours: Vec<&str> =
        metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(prefix)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(admin.delete_topics(&ours, &AdminOptions::new().request_timeout(Some(wait))))?;
    Ok(())
}

fn duplicates(semantics: DuplicateSemantics) -> &'static str {
    match semantics {
        DuplicateSemantics::RejectsAlways => "rejects_always",
        DuplicateSemantics::RejectsUnlessFailed => "rejects_unless_failed",
        DuplicateSemantics::ReplaysResult => "replays_result",
        DuplicateSemantics::NotDeduplicated => "not_deduplicated",
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
