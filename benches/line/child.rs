//! The system under test, in a process of its own.

use std::process::{Child as Process, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::arguments::Role;
use crate::scratch::Scratch;

/// A drain takes seconds at most; this is for one that hangs.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A running child. It ends with this value.
pub(crate) struct Child {
    process: Process,
    role: Role,
}

impl Child {
    pub(crate) fn start(role: Role, scratch: &Scratch, answer_after: Duration) -> Result<Self> {
        let program = std::env::current_exe()?;
        let process = Command::new(program)
            .args(["--child", role.as_str(), "--answer-after-ms", &answer_after.as_millis().to_string()])
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
