//! The promises that the figures are held against.

use crate::common::goal::Goal;
use crate::report::Results;

const RATIO_MIN: f64 = 0.65;
const CEILING_CPU_MAX_US: f64 = 60.0;
const SERVICE_CPU_MAX_US: f64 = 25.0;
const WAL_MAX_BYTES: f64 = 1_700.0;
const HOT_MIN: f64 = 0.85;
const RSS_MAX_MIB: f64 = 192.0;
const OPEN_RATE: f64 = 5_000.0;
const P99_MAX_MS: f64 = 100.0;
const P999_MAX_MS: f64 = 250.0;
const IDLE_RSS_MAX_MIB: f64 = 48.0;
const IDLE_CPU_MAX_PERCENT: f64 = 1.0;

/// Every goal whose figures were measured.
pub(crate) fn judge(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut at_most = |name: &'static str, found: f64, limit: f64, unit: &str| {
        let (wanted, shown) = (format!("≤ {limit} {unit}"), format!("{found:.1} {unit}"));
        goals.push(Goal { name: name.into(), wanted, found: shown, met: found <= limit });
    };
    if let Some(ceiling) = &results.ceiling {
        at_most("a ceiling that counts: CPU per order in all, scaled", ceiling.scaled_cpu_us, CEILING_CPU_MAX_US, "µs");
    }
    if let Some(service) = &results.service {
        at_most("CPU per order in the service", service.service_cpu_us, SERVICE_CPU_MAX_US, "µs");
        at_most("WAL per order", service.wal_bytes, WAL_MAX_BYTES, "bytes");
        at_most("resident memory at full load", service.peak_rss_mib, RSS_MAX_MIB, "MiB");
    }
    if let Some(open) = results.open.iter().find(|open| (open.rate - OPEN_RATE).abs() < 1.0) {
        at_most("p99 to settled at 5,000 orders/s", open.settled.p99, P99_MAX_MS, "ms");
        at_most("p99.9 to settled at 5,000 orders/s", open.settled.p999, P999_MAX_MS, "ms");
    }
    if let Some(idle) = &results.idle {
        at_most("resident memory when idle", idle.rss_mib, IDLE_RSS_MAX_MIB, "MiB");
        let (found, limit) = (idle.service_cpu_percent, IDLE_CPU_MAX_PERCENT);
        let (wanted, shown) = (format!("< {limit} % of a core"), format!("{found:.2} %"));
        goals.push(Goal { name: "CPU when idle".into(), wanted, found: shown, met: found < limit });
    }
    let mut at_least = |name: &'static str, found: f64, limit: f64| {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        goals.push(Goal {
            name: name.into(),
            wanted: format!("≥ {}", percent(limit)),
            found: percent(found),
            met: found >= limit,
        });
    };
    if let Some(ratio) = results.ratio {
        at_least("orders/s, of the ceiling's", ratio, RATIO_MIN);
    }
    if let Some(ratio) = results.slow_ratio {
        at_least("the same with a provider that takes 50 ms", ratio, RATIO_MIN);
    }
    if let Some(service) = &results.service {
        at_least("heap-only updates", service.hot_share, HOT_MIN);
    }
    goals
}
