//! A line of its own for a test: topics with a prefix of their own, a database of its own, a
//! provider simulator with its ledger, and as many `recharged run` processes as it asks for.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use recharged::audit::{self, Deliveries, Report};
use recharged::clock::SystemClock;
use recharged::domain::{Money, Order, OrderId, State};
use recharged::kafka::{
    Consumer, ConsumerOptions, KafkaOptions, Producer, ProducerOptions, TopicInbox, TopicSubscription,
};
use recharged::ports::{InRecord, OrderFilter, OutRecord, Publisher, Store, Subscription};
use recharged::providers::simulator::{Profile, Simulator, SimulatorHandle, SimulatorOptions, read_ledger};
use recharged::store::{self, StoreOptions};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::store::place::Place;

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
    pub(crate) profile: Profile,
    /// Further configuration, below everything else.
    pub(crate) toml: String,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            partitions: 4,
            permits_per_second: 5_000.0,
            burst: 500,
            call_timeout: "5s",
            profile: Profile::default(),
            toml: String::new(),
        }
    }
}

/// A line is several processes under load on a machine of few cores: one at a time, or each test
/// would measure the others.
async fn turn() -> OwnedMutexGuard<()> {
    static TURN: OnceLock<Arc<Mutex<()>>> = OnceLock::new();
    Arc::clone(TURN.get_or_init(Arc::default)).lock_owned().await
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
    _place: Option<Place>,
    _turn: OwnedMutexGuard<()>,
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
        let turn = turn().await;
        let folder = tempfile::tempdir().unwrap();
        let options = SimulatorOptions {
            profile: wishes.profile.clone(),
            ledger: Some(folder.path().join("ledger.jsonl")),
            seed: Some(7),
            ..SimulatorOptions::default()
        };
        let simulator = Simulator::start(options, Arc::new(SystemClock::new())).await.unwrap();
        let prefix = format!("line-{}.", uuid::Uuid::new_v4().simple());
        let config = folder.path().join("recharged.toml");
        std::fs::write(folder.path().join("phone-key"), "a key for tests, long enough").unwrap();
        let text = format!(
            "[kafka]\nbrokers = {brokers:?}\ntopic_prefix = {prefix:?}\ngroup_prefix = {prefix:?}\n\
             [kafka.topics]\npartitions = {}\nreplication = 1\n\
             [delay]\ntiers = [\"1s\"]\n[store]\nurl = {url:?}\n[security]\nphone_key_file = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [providers.sim]\nkind = \"simulator\"\nbase_url = {:?}\ncall_timeout = {:?}\nexpected_service = \"500ms\"\n\
             quota = {{ permits_per_second = {:?}, burst = {}, in_flight_max = 500 }}\n{}\n",
            wishes.partitions,
            folder.path().join("phone-key"),
            simulator.base_url(),
            wishes.call_timeout,
            wishes.permits_per_second,
            wishes.burst,
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
            _place: place,
            _turn: turn,
        };
        // A broker that is busy with the topics of other tests may refuse for a moment.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let made = line.command(&["topics", "create"]).output().unwrap();
            if made.status.success() {
                return line;
            }
            assert!(Instant::now() < deadline, "{}{}", text_of(&made.stdout), text_of(&made.stderr));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A command of the binary under test, with this line's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
        command.args(arguments).arg("--config").arg(&self.config).env("NO_COLOR", "1");
        command
    }

    /// Starts a service process and waits until it is ready. `environment` may arm failpoints.
    pub(crate) async fn start(&self, name: &str, environment: &[(&str, &str)]) -> Service {
        let service = self.spawn(name, environment);
        service.until_ready().await;
        service
    }

    /// Starts a service process without waiting for anything.
    pub(crate) fn spawn(&self, name: &str, environment: &[(&str, &str)]) -> Service {
        self.spawn_with(name, &[], environment)
    }

    /// The same for some roles only.
    pub(crate) async fn start_roles(&self, name: &str, roles: &str, environment: &[(&str, &str)]) -> Service {
        let service = self.spawn_roles(name, roles, environment);
        service.until_ready().await;
        service
    }

    pub(crate) fn spawn_roles(&self, name: &str, roles: &str, environment: &[(&str, &str)]) -> Service {
        self.spawn_with(name, &["--roles", roles], environment)
    }

    fn spawn_with(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let log = self.folder.path().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let listen = free_address();
        let mut command = self.command(&["run"]);
        command
            .args(arguments)
            .args(["--set", &format!("http.listen={listen}"), "--set", "log.level=info,recharged=debug"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Service { child: command.spawn().unwrap(), log, listen }
    }

    pub(crate) fn topic(&self, name: &str) -> Arc<str> {
        format!("{}{name}", self.prefix).into()
    }

    /// Writes raw records to a topic, and waits for the broker's acknowledgement.
    pub(crate) async fn write(&self, records: Vec<OutRecord>) {
        for result in self.producer.publish(&records).await {
            result.unwrap();
        }
    }

    /// A paid order, as plain JSON.
    pub(crate) fn order(&self, id: &str) -> OutRecord {
        self.record(id, &order_json(id))
    }

    pub(crate) fn record(&self, key: &str, value: &Value) -> OutRecord {
        OutRecord {
            topic: self.topic("orders"),
            key: Some(Bytes::from(key.to_owned())),
            value: Some(Bytes::from(value.to_string())),
            headers: Vec::new(),
        }
    }

    /// Sends paid orders `{prefix}-0` and on.
    pub(crate) async fn send(&self, prefix: &str, count: u64) {
        let ids: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        for chunk in ids.chunks(1_000) {
            self.write(chunk.iter().map(|id| self.order(id)).collect()).await;
        }
    }

    pub(crate) async fn load(&self, id: &str) -> Option<Order> {
        self.store.load(&[OrderId::parse(id).unwrap()]).await.unwrap().remove(0)
    }

    /// Waits until an order satisfies a condition.
    pub(crate) async fn until_order(&self, id: &str, what: &str, holds: impl Fn(&Order) -> bool) -> Order {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let order = self.load(id).await;
            if let Some(order) = order.clone().filter(|order| holds(order)) {
                return order;
            }
            assert!(Instant::now() < deadline, "{id} did not become {what}: {order:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many orders are in each state; states without any are absent. A store that is away is
    /// waited for.
    pub(crate) async fn counts(&self) -> BTreeMap<State, u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.store.count_by_state().await {
                Ok(counts) => return counts.into_iter().collect(),
                Err(error) => assert!(Instant::now() < deadline, "the store stays away: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the counts satisfy a condition; a store that is away counts as "not yet".
    pub(crate) async fn until_counts(&self, what: &str, holds: impl Fn(&BTreeMap<State, u64>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while Instant::now() < deadline {
            if let Ok(counts) = self.store.count_by_state().await {
                let counts = counts.into_iter().collect();
                if holds(&counts) {
                    return;
                }
                last = Some(counts);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: it did not come to that, but to {last:?}");
    }

    pub(crate) async fn until_succeeded(&self, count: u64) {
        let what = format!("{count} orders succeeded");
        self.until_counts(&what, |counts| counts.get(&State::Succeeded) == Some(&count)).await;
    }

    /// What the provider truly delivered, by reference.
    pub(crate) fn delivered(&self) -> HashMap<String, u32> {
        self.deliveries().into_iter().map(|(reference, delivered)| (reference, delivered.times)).collect()
    }

    fn deliveries(&self) -> Deliveries {
        let mut deliveries = Deliveries::new();
        for delivery in read_ledger(&self.folder.path().join("ledger.jsonl")).unwrap() {
            let amount = Money { minor: delivery.amount_minor, currency: delivery.currency };
            audit::count_delivery(&mut deliveries, delivery.client_ref.to_string(), delivery.phone, amount);
        }
        deliveries
    }

    /// The books against the ledger.
    pub(crate) async fn audit(&self) -> Report {
        audit::reckon(self.store.as_ref(), &self.deliveries(), None, |_| ()).await.unwrap()
    }

    /// Every row, in the order of ids.
    pub(crate) async fn rows(&self) -> Vec<Order> {
        let mut rows = Vec::new();
        let mut after: Option<OrderId> = None;
        loop {
            let page = self.store.page(&OrderFilter::default(), after.as_ref(), 5_000).await.unwrap();
            let Some(last) = page.last() else { return rows };
            after = Some(last.order.order_id.clone());
            rows.extend(page.into_iter().map(|view| view.order));
        }
    }

    /// Reads a topic from its beginning until `enough` says so; fails when nothing comes any more.
    pub(crate) async fn read(&self, topic: &str, enough: impl Fn(&[InRecord]) -> bool) -> Vec<InRecord> {
        let group = format!("test-{}", uuid::Uuid::new_v4().simple());
        let inbox = TopicInbox { topic: self.topic(topic), high_mark: 10_000 };
        let kafka = KafkaOptions::plain(&self.brokers, "line-tests");
        let (handle, mut subscriptions) = Consumer::start(&kafka, ConsumerOptions::new(group, vec![inbox])).unwrap();
        let mut subscription: TopicSubscription = subscriptions.remove(0);
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !enough(&records) {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = tokio::time::timeout(left, subscription.next(5_000)).await;
            let Ok(next) = next else { panic!("{topic}: only {} records came", records.len()) };
            records.extend(next.unwrap());
        }
        handle.close(Duration::from_secs(5)).await.unwrap();
        records
    }

    /// Every order event, checked to be in order per order; by order id, the last version.
    pub(crate) async fn events_in_order(&self) -> HashMap<String, u64> {
        let wanted: HashMap<String, u64> =
            self.rows().await.iter().map(|row| (row.order_id.to_string(), u64::from(row.version))).collect();
        let records = self.read("order-events", |records| last_versions(records) == wanted).await;
        last_versions(&records)
    }
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
    use rdkafka::admin::{AdminClient, AdminOptions};
    use rdkafka::client::DefaultClientContext;
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

/// The last version of each order; fails where one was left out or came out of order.
pub(crate) fn last_versions(records: &[InRecord]) -> HashMap<String, u64> {
    let mut last: HashMap<String, u64> = HashMap::new();
    for record in records {
        let event: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        let (id, version) = (event["order_id"].as_str().unwrap(), event["version"].as_u64().unwrap());
        let known = last.entry(id.to_owned()).or_default();
        assert!(version <= *known + 1, "{id}: version {version} came after {known}");
        *known = (*known).max(version);
    }
    last
}

/// A paid order as upstream sends it, with a number of nobody.
pub(crate) fn order_json(id: &str) -> Value {
    let number: u32 = id.bytes().fold(7, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let now = SystemClock::local().to_rfc3339();
    json!({
        "order_id": id, "phone": format!("+86138000{:05}", number % 100_000), "amount_minor": 5000,
        "currency": "CNY", "created_at": now, "paid_at": now, "payment_id": format!("pay-{id}"),
    })
}

/// A running service process; it is killed when dropped.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pub(crate) listen: std::net::SocketAddr,
}

impl Service {
    pub(crate) async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.answers_ok("/readyz").await {
            assert!(Instant::now() < deadline, "the service is not ready:\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether a probe answers 200.
    pub(crate) async fn answers_ok(&self, path: &str) -> bool {
        self.get(path).await.is_some_and(|(status, _)| status == 200)
    }

    /// A probe's status and body; nothing if it does not answer.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.listen, path).await
    }

    /// A metric's value, summed over its labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        let of_this =
            |line: &&str| line.starts_with(name) && matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{'));
        let values = text.lines().filter(of_this).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Some(values.sum())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended; fails if it does not within `limit`.
    pub(crate) async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.until_ended(limit).await
    }

    pub(crate) async fn until_ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the service did not end in {limit:?}:\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the process was stopped, as by SIGSTOP.
    #[cfg(feature = "failpoints")]
    pub(crate) async fn until_stopped(&self) {
        let file = format!("/proc/{}/stat", self.child.id());
        let deadline = Instant::now() + PATIENCE;
        // Behind the name, which may hold anything, stands the state.
        while !std::fs::read_to_string(&file).unwrap().rsplit(')').next().unwrap().starts_with(" T") {
            assert!(Instant::now() < deadline, "the process was not stopped:\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What a probe answers: status and body.
pub(crate) async fn get(listen: std::net::SocketAddr, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let fetch = async {
        let mut stream = tokio::net::TcpStream::connect(listen).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), fetch).await.ok().flatten()
}
