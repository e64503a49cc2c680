//! What processes use, read from /proc, and what Postgres wrote.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::common::scratch::Scratch;

/// Ticks of `utime` and `stime` in a second: the same on every Linux that has /proc.
const TICKS: f64 = 100.0;

/// The servers of a measurement, which have to run on this machine to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Servers {
    postmaster: u32,
    broker: u32,
}

/// CPU time of the servers up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerCpu {
    pub(crate) postgres: Duration,
    pub(crate) broker: Duration,
}

impl Servers {
    pub(crate) async fn find(scratch: &Scratch) -> Result<Self> {
        let backend = u32::try_from(scratch.backend_pid().await?)?;
        let stat = Stat::read(backend).context("Postgres has to run on this machine for its CPU to be read")?;
        let port = scratch.brokers.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| anyhow!("KAFKA_BROKERS is not host:port"))?;
        let broker = listener(port).context("the broker has to run on this machine for its CPU to be read")?;
        Ok(Self { postmaster: stat.parent, broker })
    }

    pub(crate) fn cpu(self) -> Result<ServerCpu> {
        Ok(ServerCpu { postgres: self.postgres()?, broker: Stat::read(self.broker)?.own })
    }

    /// The postmaster, its living children and those that have ended. A child that ends between
    /// the looks is counted by both or by none for one tick at most.
    fn postgres(self) -> Result<Duration> {
        let postmaster = Stat::read(self.postmaster)?;
        let mut all = postmaster.own + postmaster.reaped;
        for pid in pids()? {
            if let Ok(stat) = Stat::read(pid)
                && stat.parent == self.postmaster
            {
                all += stat.own + stat.reaped;
            }
        }
        Ok(all)
    }

    pub(crate) const fn postmaster(self) -> u32 {
        self.postmaster
    }
}

/// CPU time of one process.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    Ok(Stat::read(pid)?.own)
}

/// Resident memory of a process, in bytes: now, and at its greatest.
pub(crate) fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    field("VmRSS:").zip(field("VmHWM:")).ok_or_else(|| anyhow!("process {pid} has ended"))
}

/// The processes that are children of `parent`.
pub(crate) fn children(parent: u32) -> Result<Vec<u32>> {
    let of_parent = |pid: &u32| Stat::read(*pid).is_ok_and(|stat| stat.parent == parent);
    Ok(pids()?.into_iter().filter(of_parent).collect())
}

struct Stat {
    parent: u32,
    own: Duration,
    reaped: Duration,
}

impl Stat {
    fn read(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name before the last parenthesis may hold spaces.
        let (_, rest) = text.rsplit_once(") ").ok_or_else(|| anyhow!("/proc/{pid}/stat is of another form"))?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let field = |place: usize| {
            let text = fields.get(place).ok_or_else(|| anyhow!("/proc/{pid}/stat is too short"))?;
            text.parse::<u32>().map_err(anyhow::Error::from)
        };
        let time = |a: usize, b: usize| {
            let ticks = f64::from(field(a)?) + f64::from(field(b)?);
            Ok::<_, anyhow::Error>(Duration::from_secs_f64(ticks / TICKS))
        };
        Ok(Self { parent: field(1)?, own: time(11, 12)?, reaped: time(13, 14)? })
    }
}

fn pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The process that listens on a TCP port.
fn listener(port: u16) -> Result<u32> {
    let inodes: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|table| listening(table, port)).collect();
    for pid in pids()? {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in files.flatten() {
            if let Ok(target) = fs::read_link(file.path())
                && inodes.iter().any(|inode| target.to_str() == Some(&format!("socket:[{inode}]")))
            {
                return Ok(pid);
            }
        }
    }
    Err(anyhow!("no process of ours listens on port {port}"))
}

fn listening(table: &str, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let ending = format!(":{port:04X}");
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&ending) && *state == "0A").then(|| (*inode).to_owned())
        })
        .collect()
}
