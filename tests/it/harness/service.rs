//! Processes of the binary under test, and what their probes say.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{Line, PATIENCE};
use crate::pace::{at_most, is_quiet};

/// How a process begins that tells a person what it leaves.
const LEFT: &str = "recharged: not everything could be written or published: ";

impl Line {
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
}

/// A running service process; it is killed when dropped.
pub(crate) struct Service {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pub(crate) listen: SocketAddr,
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
        self.metric_of(name, "").await
    }

    /// Only with this label.
    pub(crate) async fn metric_of(&self, name: &str, label: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await?;
        let is_named =
            |line: &str| line.starts_with(name) && matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{'));
        let of_this = |line: &&str| is_named(line) && line.contains(label);
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

    /// SIGTERM, and how it ended. On a quiet machine it must not take longer than promised, and on
    /// none so long that the grace period may have ended it.
    pub(crate) async fn terminate(&mut self, promised: Duration) -> ExitStatus {
        let began = Instant::now();
        self.signal(rustix::process::Signal::TERM);
        let status = self.until_ended(PATIENCE).await;
        at_most("the end", began.elapsed(), promised, Duration::from_secs(45));
        status
    }

    /// SIGTERM, and it ends with nothing left to do. Where the machine is held up, what it waits for at
    /// its end may not come in time: then it must have said what it leaves, with its exit code. That
    /// comes again, and does nothing then.
    pub(crate) async fn end_well(&mut self, promised: Duration) {
        let status = self.terminate(promised).await;
        let log = self.log_text();
        let left = log.lines().rev().find_map(|line| line.strip_prefix(LEFT)).unwrap_or_default();
        let bearable = !is_quiet() && status.code() == Some(69) && !left.is_empty();
        let told: Vec<&str> = log.lines().filter(|line| !line.contains(r#""INFO""#)).collect();
        assert!(status.success() || bearable, "{status}, left: {left}\n{}", told.join("\n"));
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

/// An address that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What a probe answers: status and body.
pub(crate) async fn get(listen: SocketAddr, path: &str) -> Option<(u16, String)> {
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
