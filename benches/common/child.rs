//! The system under test, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use crate::common::scratch::Scratch;

/// A drain takes seconds at most; this is for one that hangs.
const STOP_MAX: Duration = Duration::from_secs(30);

/// What a child process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The bare program.
    Ceiling,
    /// The service with a stub provider.
    Service,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Service => "service",
        }
    }
}

/// How a measurement starts itself again as its own subject.
#[derive(Debug, Args)]
pub(crate) struct ChildArguments {
    /// Be this part of a measurement
    #[arg(id = "child", long = "child", value_enum, hide = true)]
    role: Option<Role>,
    /// The child's configuration
    #[arg(long, hide = true)]
    config: Option<PathBuf>,
    /// The stub provider answers after this long
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    answer_after_ms: u64,
    /// The service runs without its watchdog
    #[arg(long, hide = true)]
    without_watchdog: bool,
}

impl ChildArguments {
    /// What this process is, if it is a child, and its configuration.
    pub(crate) fn role(&self) -> Result<Option<(Role, &Path)>> {
        let Some(role) = self.role else { return Ok(None) };
        Ok(Some((role, self.config.as_deref().context("a child needs --config")?)))
    }

    /// What a service that is started by hand is to be.
    pub(crate) const fn subject(&self) -> Subject {
        Subject {
            role: Role::Service,
            answer_after: Duration::from_millis(self.answer_after_ms),
            watchdog: !self.without_watchdog,
        }
    }
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) role: Role,
    pub(crate) answer_after: Duration,
    pub(crate) watchdog: bool,
}

impl Subject {
    pub(crate) const fn ceiling() -> Self {
        Self { role: Role::Ceiling, answer_after: Duration::ZERO, watchdog: false }
    }

    pub(crate) const fn service(answer_after: Duration) -> Self {
        Self { role: Role::Service, answer_after, watchdog: true }
    }
}

/// A running child. It ends with this value.
pub(crate) struct Child {
    process: Process,
    role: Role,
}

impl Child {
    pub(crate) fn start(subject: Subject, scratch: &Scratch) -> Result<Self> {
        let (program, role) = (std::env::current_exe()?, subject.role);
        let process = Command::new(program)
            .args(["--child", role.as_str(), "--answer-after-ms", &subject.answer_after.as_millis().to_string()])
            .args((!subject.watchdog).then_some("--without-watchdog"))
            .arg("--config")
            .arg(&scratch.config_path)
            .spawn()
            .with_context(|| format!("the {} could not be started", role.as_str()))?;
        Ok(Self { process, role })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Fails if the child has ended by itself.
    pub(crate) fn is_alive(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the {} ended early: {status}", self.role.as_str()),
        }
    }

    /// Asks it to stop, and waits for it.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let began = Instant::now();
        while began.elapsed() < STOP_MAX {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the {} did not stop within {STOP_MAX:?}", self.role.as_str())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _gone = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}
