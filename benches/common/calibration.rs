//! How fast this machine is just now: a fixed amount of work, in CPU time of its own thread.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// The CPU time of [`measure`] on the machine on which the limits were set, otherwise idle.
pub(crate) const REFERENCE: Duration = Duration::from_millis(36);

const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 64;

/// What the fixed work cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calibration {
    /// CPU time of the thread that did it.
    pub(crate) cpu: Duration,
    /// Time that passed meanwhile; more than `cpu` where others had the core.
    pub(crate) wall: Duration,
}

impl Calibration {
    /// What a cost measured beside this would have been on the machine of reference.
    pub(crate) fn scale(self) -> f64 {
        REFERENCE.as_secs_f64() / self.cpu.as_secs_f64()
    }
}

/// SHA-256 of 64 MiB, the middle one of three.
pub(crate) fn measure() -> Calibration {
    let block = vec![0xA5_u8; BLOCK];
    let mut found: Vec<Calibration> = (0..3).map(|_| once(&block)).collect();
    found.sort_by_key(|calibration| calibration.cpu);
    let last = once(&block);
    found.get(1).copied().unwrap_or(last)
}

fn once(block: &[u8]) -> Calibration {
    let (began, cpu_began) = (Instant::now(), thread_cpu());
    let mut hasher = Sha256::new();
    for _ in 0..BLOCKS {
        hasher.update(block);
    }
    std::hint::black_box(hasher.finalize());
    Calibration { cpu: thread_cpu().saturating_sub(cpu_began), wall: began.elapsed() }
}

fn thread_cpu() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}
