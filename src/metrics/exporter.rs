//! The recorder and its text for a scrape.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{KeyName, Recorder as _, SharedString};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::catalogue::{BUILD_INFO, CLOCK_SKEW, CONFIG_INFO, Kind, OWN, SLA_DEADLINE};

/// Histogram samples wait in memory until they are summed up; scrapes may be rare.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A bucket list is empty or a name is not allowed.
    #[error("the catalogue of metrics is not valid")]
    Catalogue(#[source] BuildError),
    /// Another library installed a recorder first.
    #[error("another metrics recorder is already installed in this process")]
    Taken,
}

/// What this process is.
#[derive(Debug, Clone)]
pub struct ProcessInfo {
    /// The configuration's fingerprint.
    pub config_hash: String,
    /// The configured deadline.
    pub sla_deadline: Duration,
}

/// Renders what was recorded.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter")
    }
}

static INSTALLED: OnceLock<Exporter> = OnceLock::new();

/// Installs the process's recorder; a second call returns the first one's exporter. Call it
/// before any handles are made: those that were made before record nothing.
pub fn install(info: &ProcessInfo) -> Result<Exporter, InstallError> {
    if let Some(exporter) = INSTALLED.get() {
        return Ok(exporter.clone());
    }
    let mut builder = PrometheusBuilder::new();
    for metric in OWN.iter().filter(|metric| metric.kind == Kind::Histogram) {
        // Without buckets of its own a histogram silently becomes a summary.
        builder = builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)
            .map_err(InstallError::Catalogue)?;
    }
    let recorder = builder.build_recorder();
    let exporter = Exporter { handle: recorder.handle(), process: metrics_process::Collector::default() };
    for metric in OWN {
        let (name, help) = (KeyName::from_const_str(metric.name), SharedString::const_str(metric.help));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
    if metrics::set_global_recorder(recorder).is_err() {
        // Two threads may have come here together; then the other one's is as good.
        return INSTALLED.get().cloned().ok_or(InstallError::Taken);
    }
    exporter.process.describe();
    let (version, rustc) = (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_RUST_VERSION"));
    let revision = option_env!("RECHARGED_REVISION").unwrap_or("unknown");
    BUILD_INFO.gauge(&[version, revision, rustc]).set(1.0);
    CONFIG_INFO.gauge(&[&info.config_hash]).set(1.0);
    SLA_DEADLINE.gauge(&[]).set(info.sla_deadline.as_secs_f64());
    for peer in ["database", "broker"] {
        CLOCK_SKEW.gauge(&[peer]).set(0.0);
    }
    Ok(INSTALLED.get_or_init(|| exporter).clone())
}

impl Exporter {
    /// The text of a scrape.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Sums up samples at a steady pace until `stop`.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.handle.run_upkeep(),
            }
        }
    }
}
