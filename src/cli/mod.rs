//! The command line: arguments in, one exit code out (`interface.md` section 1).

pub mod audit;
pub mod cases;
pub mod config;
pub mod dead_letters;
pub mod demo;
pub mod lanes;
pub mod load;
pub mod migrate;
pub mod orders;
pub mod output;
pub mod reconcile;
pub mod run;
pub mod simulate;
pub mod topics;
mod values;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use output::{CliError, Exit, Output, complain};

/// Keeps the three-minute promise of prepaid phone recharges: orders from Kafka in, one recharge or one refund out.
#[derive(Debug, Parser)]
#[command(
    name = "recharged",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  recharged demo --orders 1000 --faults some\n\n\
                  Exit codes: 0 done, 1 failed while running, 2 wrong usage, 69 a needed service could not be reached, 78 bad configuration."
)]
struct Cli {
    /// Write for programs: one JSON object, or JSON Lines for lists
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows everything in one process: broker, store, provider, load, and a report with an audit
    #[command(after_help = "Example:\n  recharged demo --orders 5000 --rate 500 --faults storm --seed 7")]
    Demo(demo::DemoArgs),
    /// Runs the service
    #[command(
        after_help = "Example:\n  recharged run --config recharged.toml --roles intake,relay --set log.format=pretty"
    )]
    Run(run::RunArgs),
    /// Brings the store's schema to what this build needs
    #[command(after_help = "Example:\n  recharged migrate --config recharged.toml --check")]
    Migrate(migrate::MigrateArgs),
    /// Makes the topics, or compares them with the configuration
    #[command(after_help = "Example:\n  recharged topics verify --config recharged.toml")]
    Topics(topics::TopicsArgs),
    /// Shows, lists and exports orders
    #[command(after_help = "Example:\n  recharged orders list --state in_doubt --json")]
    Orders(orders::OrdersArgs),
    /// Lists, shows and resolves what a person has to look at
    #[command(after_help = "Example:\n  recharged cases list --escalated")]
    Cases(cases::CasesArgs),
    /// Lists, shows, replays and discards records that could not be used
    #[command(after_help = "Example:\n  recharged dead-letters list --since 24h")]
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Lists lanes, and pauses and resumes them for the whole fleet
    #[command(after_help = "Example:\n  recharged lanes pause primary --by \"A. Duty\" --why \"their incident 4711\"")]
    Lanes(lanes::LanesArgs),
    /// Sends orders as a shop would
    #[command(after_help = "Example:\n  recharged load --config recharged.toml --rate 200 --duration 60s")]
    Load(load::LoadArgs),
    /// Serves a simulated provider
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(simulate::SimulateArgs),
    /// Compares the store with simulators' ledgers; exit 1 on anything lost, double or wrong
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::AuditArgs),
    /// Compares a provider's day with the provider's own list; exit 1 on any difference
    #[command(after_help = reconcile::EXAMPLES)]
    Reconcile(reconcile::ReconcileArgs),
    /// Checks and shows the configuration, and prints its schema
    #[command(after_help = "Example:\n  recharged config check --config recharged.toml")]
    Config(config::ConfigCommand),
}

/// Does what the arguments say; returns the exit code. Whatever has to be said was said.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return answer_usage(&error) as u8,
    };
    match dispatch(cli) {
        Ok(()) => Exit::Done as u8,
        Err(error) => {
            for line in error.message.lines() {
                complain(format_args!("recharged: {line}"));
            }
            error.exit as u8
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    let output = Output::detect(cli.json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start: the system gives no threads ({error})")))?;
    let result = runtime.block_on(execute(cli.command, output));
    // Threads that are inside a driver's blocking call end with the process.
    runtime.shutdown_background();
    result
}

async fn execute(command: Command, output: Output) -> Result<(), CliError> {
    match command {
        Command::Demo(args) => Box::pin(demo::run(args, output)).await,
        Command::Run(args) => Box::pin(run::run(args, output)).await,
        Command::Migrate(args) => Box::pin(migrate::run(args, output)).await,
        Command::Topics(args) => Box::pin(topics::run(args, output)).await,
        Command::Orders(args) => Box::pin(orders::run(args, output)).await,
        Command::Cases(args) => Box::pin(cases::run(args, output)).await,
        Command::DeadLetters(args) => Box::pin(dead_letters::run(args, output)).await,
        Command::Lanes(args) => Box::pin(lanes::run(args, output)).await,
        Command::Load(args) => Box::pin(load::run(args, output)).await,
        Command::Simulate(args) => Box::pin(simulate::run(args, output)).await,
        Command::Audit(args) => Box::pin(audit::run(args, output)).await,
        Command::Reconcile(args) => Box::pin(reconcile::run(args, output)).await,
        Command::Config(command) => config::run(&command, output),
    }
}

/// Help and version are results; anything else is one line on stderr.
fn answer_usage(error: &clap::Error) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return error.print().map_err(CliError::from).map_or_else(|error| error.exit, |()| Exit::Done);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        complain(error.render());
    } else {
        complain(format_args!("recharged: {}; try --help", in_one_line(&error.render().to_string())));
    }
    Exit::Usage
}

/// What clap spreads over a paragraph, without its usage and its pointer to the help.
fn in_one_line(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let kept = lines.take_while(|line| !line.starts_with("Usage:")).filter(|line| !line.starts_with("For more info"));
    kept.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}
