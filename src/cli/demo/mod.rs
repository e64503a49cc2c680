//! `recharged demo`: everything in one process, on embedded parts.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::{CliError, Exit, Output};
use super::values;
use crate::config::{LogConfig, LogFormat};
use crate::providers::simulator::Profile;
use crate::{lifecycle, telemetry};

mod plan;
mod props;
mod report;
mod stage;
mod tap;
mod unpaid;
mod view;

use stage::Stage;

/// How badly the simulated provider behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Faults {
    /// Not at all
    None,
    /// Declines, time-outs and lost answers now and then
    Some,
    /// All of it, often
    Storm,
}

impl Faults {
    fn profile(self) -> Profile {
        match self {
            Self::None => Profile::default(),
            Self::Some => Profile::some_faults(),
            Self::Storm => Profile::storm(),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Some => "some",
            Self::Storm => "storm",
        }
    }
}

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Orders are paid when they are created: recharges against the deadline
    Paid,
    /// Orders are paid later, never, too late, or cancelled; each asks for a notification
    Unpaid,
}

/// `recharged demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// What is played
    #[arg(long, value_enum, default_value_t = Scenario::Paid)]
    pub scenario: Scenario,
    /// Orders to send; with faults a few dozen at least, so that each kind of them strikes somebody
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub orders: u64,
    /// Orders a second
    #[arg(long, value_name = "N", default_value_t = 250.0, value_parser = values::rate)]
    pub rate: f64,
    /// How badly the simulated provider behaves; left out, `some`, and `none` in the scenario unpaid
    #[arg(long, value_enum)]
    pub faults: Option<Faults>,
    /// Seed of everything that is random; a random one, if left out
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Time from payment to the deadline
    #[arg(long, value_name = "TIME", default_value = "180s", value_parser = values::duration)]
    pub sla: Duration,
    /// In the scenario unpaid: time to pay, from the creation of an order to its cancellation; 20s, if left out
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub unpaid_timeout: Option<Duration>,
    /// In the scenario unpaid: time from the creation of an order to its notification; 5s, if left out
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub notify_after: Option<Duration>,
    /// The provider's quota, in calls a second; a little above the rate, if left out
    #[arg(long, value_name = "N", value_parser = values::rate)]
    pub quota: Option<f64>,
    /// Brokers to use in place of the embedded one
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// Database to use in place of the embedded one
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// Where probes and metrics are served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9400")]
    pub listen: SocketAddr,
    /// Go on serving after the load
    #[arg(long)]
    pub keep: bool,
    /// Also write the report, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

impl DemoArgs {
    fn faults(&self) -> Faults {
        self.faults.unwrap_or(match self.scenario {
            Scenario::Paid => Faults::Some,
            Scenario::Unpaid => Faults::None,
        })
    }
}

pub(crate) async fn run(args: DemoArgs, output: Output) -> Result<(), CliError> {
    let level = if output.live { "off" } else { "warn" };
    telemetry::init(&LogConfig { format: LogFormat::Pretty, level: level.to_owned() })
        .map_err(|error| CliError::failed(error.to_string()))?;
    let mut signals =
        lifecycle::signals().map_err(|error| CliError::failed(format!("no signals can be heard ({error})")))?;
    // Found out now, not when everything has been done that it should report.
    let report_file = args.report.as_deref().map(open_report).transpose()?;
    let stage = Stage::set(&args).await?;
    output.progress(format_args!(
        "{} orders at {} a second, faults {}, seed {}; probes and metrics at http://{}",
        args.orders,
        args.rate,
        args.faults().as_str(),
        stage.seed,
        stage.address
    ));
    let sold = {
        let play = stage.play(&args, output);
        tokio::pin!(play);
        tokio::select! {
            biased; // A signal ends the play early; the report is given all the same.
            Some(_) = signals.recv() => None,
            sold = &mut play => Some(sold),
        }
    };
    if args.keep && sold.is_some() {
        output.progress("the load is over; serving until Ctrl-C");
        let _signal = signals.recv().await;
    }
    let report = stage.finish(sold).await?;
    if let Some((path, mut file)) = args.report.as_deref().zip(report_file) {
        let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        std::io::Write::write_all(&mut file, &text)
            .map_err(|error| CliError::failed(format!("--report {}: cannot be written ({error})", path.display())))?;
    }
    output.result(&report)?;
    if report.is_clean() { Ok(()) } else { Err(CliError::silent(Exit::Failed)) }
}

fn open_report(path: &Path) -> Result<File, CliError> {
    File::create(path)
        .map_err(|error| CliError::config(format!("--report {}: cannot be written ({error})", path.display())))
}
