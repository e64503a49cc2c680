//! Where the time goes: `perf record` on the child (and on Postgres) while a round runs.

use std::path::PathBuf;
use std::process::{Child as Process, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::common::meter::{self, Servers};

/// Samples a second; odd, so that nothing periodic hides between them.
const RATE: &str = "997";

/// What to look at, and where the recordings go.
pub(crate) struct Profile {
    folder: PathBuf,
    postgres: bool,
}

impl Profile {
    /// Fails where `perf` is not there or may not look at processes.
    pub(crate) fn new(postgres: bool) -> Result<Self> {
        let tried = Command::new("perf")
            .args(["stat", "-e", "cpu-clock", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("there is no perf: apt-get install linux-perf")?;
        ensure!(tried.success(), "perf may not look at processes: sysctl kernel.perf_event_paranoid=1, or run as root");
        let folder = std::env::temp_dir().join("recharged-profile");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, postgres })
    }

    /// Begins to record.
    pub(crate) fn attach(&self, child: u32, servers: Servers) -> Result<Profiling> {
        let mut recordings = vec![Recording::start(self.folder.join("service.data"), &[child], true)?];
        if self.postgres {
            // Its connections come later than this, but it forks them, and perf follows.
            let mut pids = meter::children(servers.postmaster())?;
            pids.push(servers.postmaster());
            recordings.push(Recording::start(self.folder.join("postgres.data"), &pids, false)?);
        }
        Ok(Profiling { recordings })
    }
}

/// Recordings under way.
pub(crate) struct Profiling {
    recordings: Vec<Recording>,
}

impl Profiling {
    /// Stops them and prints what they saw.
    pub(crate) fn finish(self) -> Result<()> {
        self.recordings.into_iter().try_for_each(Recording::finish)
    }
}

struct Recording {
    perf: Process,
    file: PathBuf,
    stacks: bool,
}

impl Recording {
    fn start(file: PathBuf, pids: &[u32], stacks: bool) -> Result<Self> {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut perf = Command::new("perf");
        // Not every machine lends its counters, so the clock; 8 KiB of stack reach the callers.
        perf.args(["record", "-q", "-e", "cpu-clock", "-F", RATE, "-p", &pids.join(","), "-o"]).arg(&file);
        if stacks {
            perf.args(["--call-graph", "dwarf,8192"]);
        }
        let perf = perf.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { perf, file, stacks })
    }

    fn finish(mut self) -> Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.perf), rustix::process::Signal::INT)?;
        self.perf.wait()?;
        println!("\nprofile: {} (perf report -i {})", self.file.display(), self.file.display());
        print_report(&self.file, &["--no-children", "-g", "none", "--sort", "comm"], 20, |_| true)?;
        print_report(&self.file, &["--no-children", "-g", "none", "--sort", "symbol"], 45, |_| true)?;
        if self.stacks {
            println!("functions of ours and of the drivers, with what they call:");
            print_report(&self.file, &["--children", "-g", "none", "--sort", "symbol"], 70, is_telling)?;
        }
        Ok(())
    }
}

/// Not the runtime's frames, which are on every stack.
fn is_telling(line: &str) -> bool {
    let ours = ["recharged::", "sqlx", "rdkafka::", "rd_kafka_", "serde_json::"];
    let dull = ["(inlined)", "closure_env", "do_call", "catch_unwind", "Running::new"];
    ours.iter().any(|name| line.contains(name)) && !dull.iter().any(|name| line.contains(name))
}

fn print_report(file: &std::path::Path, options: &[&str], lines: usize, telling: fn(&str) -> bool) -> Result<()> {
    let mut perf = Command::new("perf");
    perf.args(["report", "--stdio", "--percent-limit", "0.4"]).args(options).arg("-i").arg(file);
    let output = perf.stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for line in
        text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty() && telling(line)).take(lines)
    {
        println!("{}", line.chars().take(150).collect::<String>());
    }
    println!();
    Ok(())
}
