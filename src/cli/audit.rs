//! `recharged audit`: the store against what a simulator really delivered.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::config::{ConfigArgs, environment};
use super::output::{CliError, Exit, Output};
use crate::app::{chain, open_checked_store};
use crate::audit::{self, Deliveries, Percentiles, Report};
use crate::config::Needs;
use crate::domain::Money;
use crate::providers::simulator::LedgerReader;

/// `recharged audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    pub(crate) from: ConfigArgs,
    /// The simulator's ledger
    #[arg(long, value_name = "FILE")]
    pub ledger: PathBuf,
}

pub(crate) async fn run(args: AuditArgs, output: Output) -> Result<(), CliError> {
    let loaded = args.from.load(Needs::STORE)?;
    let secrets = loaded.secrets(environment())?;
    let delivered = read_deliveries(&args.ledger)?;
    let store = open_checked_store(&loaded.config, &secrets).await?;
    let progress = |orders: u64| {
        if orders.is_multiple_of(100_000) {
            output.progress(format_args!("{orders} orders read"));
        }
    };
    let report = audit::reckon(store.as_ref(), &delivered, None, progress)
        .await
        .map_err(|error| CliError::failed(format!("store.url: {}", chain(&error))))?;
    output.result(&report)?;
    if report.audit.clean { Ok(()) } else { Err(CliError::silent(Exit::Failed)) }
}

/// What was delivered under each reference.
pub(crate) fn read_deliveries(path: &Path) -> Result<Deliveries, CliError> {
    let told = |error: &dyn std::error::Error| format!("--ledger: {}", chain(error));
    let mut delivered = Deliveries::new();
    for delivery in LedgerReader::open(path).map_err(|error| CliError::config(told(&error)))? {
        let delivery = delivery.map_err(|error| CliError::failed(told(&error)))?;
        let amount = Money { minor: delivery.amount_minor, currency: delivery.currency };
        audit::count_delivery(&mut delivered, delivery.client_ref.to_string(), delivery.phone, amount);
    }
    Ok(delivered)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "orders        {:>10}", self.orders)?;
        writeln!(f, "  succeeded   {:>10}", self.succeeded)?;
        writeln!(f, "  failed      {:>10}   refunds requested {}", self.failed, self.refunds)?;
        if self.cancelled > 0 {
            writeln!(f, "  cancelled   {:>10}", self.cancelled)?;
        }
        writeln!(f, "  in doubt    {:>10}", self.in_doubt)?;
        writeln!(f, "  open        {:>10}   outcome not known yet", self.open)?;
        writeln!(f, "deadline      {:>10}   met, {} missed", self.sla.met, self.sla.missed)?;
        if let Some(rate) = self.orders_per_second {
            writeln!(f, "throughput    {rate:>10.0}   orders/s")?;
        }
        writeln!(f, "to the end    {}", Shown(self.resolution_ms))?;
        let audit = &self.audit;
        write!(
            f,
            "audit         {:>10}   lost {}, delivered twice {}, wrongly failed {}, unaccounted {}, misdelivered {}",
            if audit.clean { "clean" } else { "NOT CLEAN" },
            audit.lost,
            audit.double,
            audit.wrongly_failed,
            audit.unaccounted,
            audit.misdelivered
        )
    }
}

/// Percentiles for people.
pub(crate) struct Shown(pub(crate) Percentiles);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: Option<f64>| match value {
            None => "-".to_owned(),
            Some(ms) if ms < 1_000.0 => format!("{ms:.0} ms"),
            Some(ms) => format!("{:.1} s", ms / 1e3),
        };
        let Percentiles { p50, p99, p999, max } = self.0;
        write!(f, "p50 {}, p99 {}, p99.9 {}, max {}", shown(p50), shown(p99), shown(p999), shown(max))
    }
}
