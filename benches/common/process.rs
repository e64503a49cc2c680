//! The program as it is shipped, in a process of its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::scratch::Scratch;

/// For a start, or an end, that hangs.
const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(5);

/// `recharged run --roles …`. It ends with this value.
pub(crate) struct Service {
    process: Child,
    listen: SocketAddr,
}

impl Service {
    /// Starts it; `name` is its lasting name, where it has one.
    pub(crate) fn start(scratch: &Scratch, roles: &str, name: Option<&str>) -> Result<Self> {
        // Free a moment ago, and nobody else takes ports here.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::options().create(true).append(true).open(scratch.log_path())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_recharged"));
        command.args(["run", "--roles", roles, "--config"]).arg(&scratch.config_path);
        command.args(["--set", &format!("http.listen={listen}")]);
        if let Some(name) = name {
            command.args(["--set", &format!("process.name={name}")]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { process: command.spawn().context("the service could not be started")?, listen })
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn ready(scratch: &Scratch, roles: &str, name: Option<&str>) -> Result<Self> {
        let mut service = Self::start(scratch, roles, name)?;
        service.until_ready(scratch)?;
        Ok(service)
    }

    /// Waits until `/readyz` says so: it has joined every group.
    pub(crate) fn until_ready(&mut self, scratch: &Scratch) -> Result<()> {
        let began = Instant::now();
        while self.get("/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.process.try_wait()? {
                bail!("the service ended early: {status}\n{}", scratch.log_tail());
            }
            ensure!(began.elapsed() < PATIENCE, "the service is not ready\n{}", scratch.log_tail());
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "the service ended with {status}");
                return Ok(());
            }
            std::thread::sleep(TICK);
        }
        bail!("the service did not stop within {PATIENCE:?}")
    }

    /// A metric's value, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let of_this =
            |line: &&str| line.starts_with(name) && matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{'));
        let values = text.lines().filter(of_this).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Some(values.sum())
    }

    /// Waits until a metric is as it should be.
    pub(crate) fn until(&self, name: &str, is: impl Fn(f64) -> bool) -> Result<()> {
        let began = Instant::now();
        while !self.metric(name).is_some_and(&is) {
            ensure!(began.elapsed() < PATIENCE, "{name} stays at {:?}", self.metric(name));
            std::thread::sleep(TICK * 10);
        }
        Ok(())
    }

    /// Waits until a metric is as it should be and has stayed the same for so long.
    pub(crate) fn until_steady(&self, name: &str, steady: Duration, is: impl Fn(f64) -> bool) -> Result<()> {
        let began = Instant::now();
        let mut since = (None, began);
        while since.1.elapsed() < steady {
            let value = self.metric(name).filter(|value| is(*value));
            if value.is_none() || value != since.0 {
                since = (value, Instant::now());
            }
            ensure!(began.elapsed() < PATIENCE, "{name} does not settle: {value:?}");
            std::thread::sleep(TICK * 10);
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.listen).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _gone = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}
