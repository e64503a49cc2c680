//! What was measured on.

use std::collections::BTreeMap;

use anyhow::Result;

use super::calibration;
use super::scratch::Scratch;

/// The machine and its servers, for the head of a report.
pub(crate) async fn machine() -> Result<BTreeMap<String, String>> {
    let scratch = Scratch::make().await?;
    let mut machine = scratch.settings().await?;
    scratch.remove().await?;
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    machine.insert("cpu".to_owned(), model.map(|(_, name)| name.to_owned()).unwrap_or_default());
    machine.insert("cores".to_owned(), std::thread::available_parallelism()?.to_string());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    machine.insert("load_before".to_owned(), load.split(' ').next().unwrap_or_default().to_owned());
    machine.insert("reference_calibration_ms".to_owned(), (calibration::REFERENCE.as_secs_f64() * 1e3).to_string());
    Ok(machine)
}
