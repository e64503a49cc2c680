//! What cannot work is refused at once: one line that names the key and the remedy, an exit code
//! that says what kind of trouble it is, and no order touched.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use recharged::store::{StoreOptions, open};
use serde_json::{Value, json};

use crate::harness::{Line, Wishes, variable};
use crate::store::place::Scratch;

/// A refusal takes no longer than this, also where a server does not answer at all.
const LIMIT: Duration = Duration::from_secs(15);
/// A busy machine needs some time to start a process.
const SLACK: Duration = Duration::from_secs(10);

/// What a command said and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    /// What it said of itself, without the log.
    pub(super) said: Vec<String>,
    pub(super) stderr: String,
    took: Duration,
}

/// Runs a command to its end; kills it and fails if it takes too long.
pub(super) async fn ended(mut command: Command, limit: Duration) -> Ended {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} did not end in {limit:?}: {}", text_of(&mut stderr));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (stdout, stderr) = (text_of(&mut stdout), text_of(&mut stderr));
    let said = stderr.lines().filter_map(|line| line.strip_prefix("recharged: ")).map(str::to_owned).collect();
    Ended { code: status.code(), stdout, said, stderr, took: began.elapsed() }
}

fn text_of(file: &mut std::fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

impl Ended {
    /// One line, this code, and these words.
    fn refused(&self, what: &str, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{what}: {self:?}");
        assert_eq!(self.said.len(), 1, "{what}: {self:?}");
        for word in words {
            assert!(self.said[0].contains(word), "{what}: {word} is missing in: {}", self.said[0]);
        }
        let others = self.stderr.lines().filter(|line| !line.starts_with("recharged: "));
        for line in others {
            // Nothing but the log, which is JSON here.
            assert!(serde_json::from_str::<Value>(line).is_ok(), "{what}: {line}");
        }
        assert!(self.took < LIMIT + SLACK, "{what}: it took {:?}", self.took);
        assert!(!self.stderr.contains("panicked"), "{what}: {}", self.stderr);
    }

    pub(super) fn object(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn objects(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn tried(line: &Line, arguments: &[&str], sets: &[&str]) -> Ended {
    let mut command = line.command(arguments);
    for set in sets {
        command.args(["--set", set]);
    }
    ended(command, LIMIT + SLACK).await
}

/// A port that takes connections and never says a word.
async fn silent() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (address, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_refuses_what_cannot_work_before_it_touches_an_order() {
    let line = Line::set_up(Wishes::default()).await;
    line.send("untouched", 5).await;
    let empty = Scratch::empty().await;
    let newer = Scratch::empty().await;
    recharged::store::migrate(&newer.url, &StoreOptions::default()).await.unwrap();
    {
        use sqlx::{AssertSqlSafe, Connection as _, Executor as _, postgres::PgConnection};
        let mut connection = PgConnection::connect(&newer.url).await.unwrap();
        let later = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                     values (9999, 'from the future', true, '\\x00', 0)";
        connection.execute(AssertSqlSafe(later.to_owned())).await.unwrap();
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    let (silent_at, _silent) = silent().await;
    let wrong_name = {
        let mut url = url::Url::parse(&empty.url).unwrap();
        url.set_path("no_such_database");
        url.to_string()
    };
    let cases: Vec<(&str, String, i32, Vec<&str>)> = vec![
        ("unknown key", "kafka.brokerz=x".into(), 78, vec!["kafka.brokerz", "did you mean \"brokers\""]),
        ("wrong value", "sla.deadline=fast".into(), 78, vec!["sla.deadline", "180s"]),
        (
            "missing key file",
            "security.phone_key_file=/nowhere/key".into(),
            78,
            vec!["security.phone_key_file", "/nowhere/key"],
        ),
        ("taken port", format!("http.listen={taken_at}"), 78, vec!["http.listen", &taken_at]),
        ("dead broker", "kafka.brokers=127.0.0.1:1".into(), 69, vec!["kafka.brokers", "127.0.0.1:1"]),
        ("silent broker", format!("kafka.brokers={silent_at}"), 69, vec!["kafka.brokers"]),
        ("missing topics", "kafka.topic_prefix=absent-".into(), 78, vec!["absent-orders", "recharged topics create"]),
        ("more partitions", "kafka.topics.partitions=5".into(), 78, vec!["partitions", "4", "5", "recharged topics"]),
        ("fewer partitions", "kafka.topics.partitions=3".into(), 78, vec!["partitions", "4", "3"]),
        ("dead database", "store.url=postgres://recharged@127.0.0.1:1/none".into(), 69, vec!["store.url"]),
        ("silent database", format!("store.url=postgres://recharged@{silent_at}/none"), 69, vec!["store.url"]),
        ("no such database", format!("store.url={wrong_name}"), 78, vec!["store.url", "no_such_database"]),
        ("empty database", format!("store.url={}", empty.url), 78, vec!["store.url", "recharged migrate"]),
        ("newer database", format!("store.url={}", newer.url), 78, vec!["store.url", "9999"]),
        ("unknown scheme", "store.url=mysql://h/d".into(), 78, vec!["store.url", "postgres://"]),
        ("bad provider address", "providers.sim.base_url=nonsense".into(), 78, vec!["providers.sim.base_url"]),
        ("bad level", "log.level=shouting=very".into(), 78, vec!["log.level"]),
    ];
    // Some at a time: most of them wait for what does not come.
    let tries = stream::iter(&cases).for_each_concurrent(6, |(what, set, code, words)| {
        let line = &line;
        async move { tried(line, &["run"], &["http.listen=127.0.0.1:0", set]).await.refused(what, *code, words) }
    });
    tries.await;
    let mut missing = Command::new(env!("CARGO_BIN_EXE_recharged"));
    missing.args(["run", "--config", "/nowhere/recharged.toml"]);
    ended(missing, LIMIT).await.refused("missing file", 78, &["/nowhere/recharged.toml"]);
    tried(&line, &["run", "--roles", "juggler"], &[]).await.refused("unknown role", 2, &["juggler", "intake"]);
    let by_tls =
        ["http.listen=127.0.0.1:0", "providers.sim.base_url=https://127.0.0.1:1", "providers.sim.ca_file=/nowhere/ca"];
    tried(&line, &["run"], &by_tls).await.refused("no certificates", 78, &["sim", "ca_file", "/nowhere/ca"]);
    // A tier whose topic forgets its records before they are due.
    line.set_topic("delay.1s", "retention.ms", "500").await;
    let forgets = tried(&line, &["run"], &["http.listen=127.0.0.1:0"]).await;
    forgets.refused("a forgetful tier", 78, &["delay.1s", "retention.ms", "recharged topics"]);
    line.delete_topic("delay.1s").await;
    line.make_topics().await;
    assert!(line.counts().await.is_empty(), "no order was touched");
    assert_eq!(line.simulator.stats().submits, 0);
    // And then, as it should be, they are all there.
    let _service = line.start("right", &[]).await;
    line.until_succeeded(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_login_is_told_and_never_shown() {
    let line = Line::set_up(Wishes::default()).await;
    let canary = "canary-77f2-not-the-password";
    let file = line.folder.path().join("password");
    std::fs::write(&file, canary).unwrap();
    let sets = [
        format!("kafka.brokers={}", variable("KAFKA_BROKERS_SCRAM")),
        "kafka.security_protocol=sasl_ssl".to_owned(),
        "kafka.sasl_mechanism=SCRAM-SHA-512".to_owned(),
        format!("kafka.sasl_username={}", variable("KAFKA_SCRAM_USER")),
        format!("kafka.sasl_password_file={}", file.display()),
        format!("kafka.ssl_ca_location={}", variable("KAFKA_CA_FILE")),
        "log.level=debug".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let commands = [&["run"][..], &["topics", "verify"], &["load", "--orders", "1"]];
    let tries = stream::iter(commands).for_each_concurrent(3, |command| {
        let (line, sets) = (&line, &sets);
        async move {
            let ended = tried(line, command, sets).await;
            ended.refused("wrong password", 69, &["kafka.brokers", "login"]);
            assert!(!format!("{ended:?}").contains(canary), "{command:?}");
        }
    });
    tries.await;
    // The right one works: it was the password, and nothing else.
    let right = std::fs::read_to_string(variable("KAFKA_SCRAM_PASSWORD_FILE")).unwrap();
    std::fs::write(&file, right.trim()).unwrap();
    assert_eq!(tried(&line, &["topics", "verify"], &sets).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_command_refuses_in_the_same_way() {
    let line = Line::set_up(Wishes::default()).await;
    let ledger = line.folder.path().join("ledger.jsonl").display().to_string();
    let (silent_at, _silent) = silent().await;
    let dead_broker = "kafka.brokers=127.0.0.1:1";
    let dead_store = "store.url=postgres://recharged@127.0.0.1:1/none";
    let silent_store = format!("store.url=postgres://recharged@{silent_at}/none");
    let empty = Scratch::empty().await;
    let empty_store = format!("store.url={}", empty.url);
    let absent = "kafka.topic_prefix=absent-";
    let audit = |file| ["audit", "--ledger", file];
    let cases: Vec<(&[&str], &str, i32, &[&str])> = vec![
        (&["migrate"], dead_store, 69, &["store.url"]),
        (&["migrate"], &silent_store, 69, &["store.url"]),
        (&["migrate", "--check"], dead_store, 69, &["store.url"]),
        (&["topics", "create"], dead_broker, 69, &["kafka.brokers"]),
        (&["topics", "verify"], dead_broker, 69, &["kafka.brokers"]),
        (&["orders", "list"], dead_store, 69, &["store.url"]),
        (&["orders", "export"], &silent_store, 69, &["store.url"]),
        (&["orders", "show", "x"], dead_store, 69, &["store.url"]),
        (&["orders", "list"], &empty_store, 78, &["store.url", "recharged migrate"]),
        (&["orders", "export"], &empty_store, 78, &["store.url", "recharged migrate"]),
        (&["orders", "show", "x"], &empty_store, 78, &["store.url", "recharged migrate"]),
        (&["orders", "show", "nobody"], "log.level=info", 1, &["nobody"]),
        (&["load", "--orders", "1"], absent, 78, &["absent-orders", "recharged topics create"]),
        (&["load", "--orders", "1"], dead_broker, 69, &["kafka.brokers"]),
    ];
    let tries = stream::iter(&cases).for_each_concurrent(6, |(command, set, code, words)| {
        let line = &line;
        async move { tried(line, command, &[set]).await.refused(&format!("{command:?} {set}"), *code, words) }
    });
    tries.await;
    tried(&line, &audit(&ledger), &[dead_store]).await.refused("audit, dead store", 69, &["store.url"]);
    tried(&line, &audit(&ledger), &[&empty_store]).await.refused("audit, no schema", 78, &["recharged migrate"]);
    tried(&line, &audit("/nowhere/l.jsonl"), &[]).await.refused("no ledger", 78, &["--ledger", "/nowhere/l.jsonl"]);

    let told = tried(&line, &["topics", "verify", "--json"], &[absent]).await;
    assert_eq!(told.code, Some(1));
    let told = told.objects();
    assert!(told.iter().all(|line| line["ok"] == false && line["told"].is_string()) && told.len() > 5, "{told:?}");
    let told = tried(&line, &["topics", "verify", "--json"], &[]).await;
    assert_eq!((told.code, &told.objects()[0]["ok"]), (Some(0), &json!(true)));
    let told = tried(&line, &["migrate", "--check", "--json"], &[&empty_store]).await;
    assert_eq!(told.code, Some(1));
    assert!(!told.object()["pending"].as_array().unwrap().is_empty());
    let told = tried(&line, &["migrate", "--json"], &[&empty_store]).await;
    assert_eq!(told.code, Some(0));
    assert!(told.object()["version"].is_number() && !told.object()["applied"].as_array().unwrap().is_empty());
    assert_eq!(tried(&line, &["migrate", "--check", "--json"], &[&empty_store]).await.code, Some(0));
    open(&empty.url, &StoreOptions::default()).await.unwrap().check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulator_refuses_a_taken_port_a_bad_profile_and_a_ledger_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = file("bad.toml", "[declines]\nfatal = 1.5\n");
    let unknown = file("unknown.toml", "declins = 1\n");
    let torn = file("torn.toml", "[declines\n");
    let foreign = file("foreign.jsonl", "{\"seq\":1,\"something\":\"else\"}\n");
    let simulate = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
        command.arg("simulate").args(arguments).env("NO_COLOR", "1");
        ended(command, LIMIT)
    };
    let any = ["--listen", "127.0.0.1:0"];
    simulate(&["--listen", &taken_at]).await.refused("taken port", 78, &["--listen", &taken_at]);
    simulate(&[&any[..], &["--profile", &bad]].concat()).await.refused("bad", 78, &["--profile", &bad, "declines"]);
    simulate(&[&any[..], &["--profile", &unknown]].concat()).await.refused("unknown", 78, &["--profile", "declins"]);
    simulate(&[&any[..], &["--profile", &torn]].concat()).await.refused("torn", 78, &["--profile", &torn]);
    simulate(&[&any[..], &["--profile", "/nowhere/p"]].concat()).await.refused("missing", 78, &["/nowhere/p"]);
    simulate(&[&any[..], &["--ledger", &foreign]].concat()).await.refused("foreign", 78, &[&foreign, "line 1"]);
    simulate(&[&any[..], &["--ledger", "/nowhere/l"]].concat()).await.refused("no folder", 78, &["/nowhere/l"]);
    let line = Line::set_up(Wishes::default()).await;
    let locked = line.folder.path().join("ledger.jsonl").display().to_string();
    simulate(&[&any[..], &["--ledger", &locked]].concat()).await.refused("in use", 78, &[&locked, "another simulator"]);
}
