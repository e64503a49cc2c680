//! The second scenario: orders are not paid when they are created. Whoever does not pay in time is cancelled, whoever
//! asked for it is told after a while where the order stands, and whoever has paid in vain gets the money back.

use std::sync::Arc;
use std::time::Duration;

use super::{DemoArgs, Scenario};
use crate::cli::output::CliError;
use crate::config::Topics;
use crate::shop::customers::Customers;

mod aftermath;
mod verdict;

pub(super) use aftermath::Aftermath;
pub(super) use verdict::{Verdict, left_to_come};

/// The shortest time to pay: what follows an order shall come before it is over, and be seen.
const SHORTEST: Duration = Duration::from_secs(5);

/// Time to pay, in place of half an hour.
fn unpaid_timeout(args: &DemoArgs) -> Duration {
    args.unpaid_timeout.unwrap_or(Duration::from_secs(20))
}

/// The times of the scenario, in place of minutes.
pub(super) fn sets(args: &DemoArgs) -> [String; 2] {
    let notify_after = args.notify_after.unwrap_or(Duration::from_secs(5));
    [
        format!("sla.unpaid_timeout={}", humantime::format_duration(unpaid_timeout(args))),
        format!("sla.notify_after={}", humantime::format_duration(notify_after)),
    ]
}

/// What cannot be played.
pub(super) fn check(args: &DemoArgs) -> Result<(), CliError> {
    if args.scenario == Scenario::Paid {
        let given = [("--unpaid-timeout", args.unpaid_timeout), ("--notify-after", args.notify_after)];
        let Some((flag, _)) = given.into_iter().find(|(_, time)| time.is_some()) else { return Ok(()) };
        return Err(CliError::config(format!(
            "{flag}: in this scenario orders are paid at once: add --scenario unpaid"
        )));
    }
    if args.faults.is_some_and(|faults| faults != super::Faults::None) {
        return Err(CliError::config(
            "--faults: in the scenario unpaid the provider behaves, so that each order's end is known: leave it out",
        ));
    }
    if unpaid_timeout(args) < SHORTEST {
        let (given, least) = (humantime::format_duration(unpaid_timeout(args)), humantime::format_duration(SHORTEST));
        return Err(CliError::config(format!(
            "--unpaid-timeout: {given} is too short to watch: give at least {least}"
        )));
    }
    if args.notify_after.is_some_and(|wait| wait.is_zero()) {
        return Err(CliError::config("--notify-after: 0s is no wait: give at least 1ms"));
    }
    Ok(())
}

pub(super) fn customers(args: &DemoArgs, seed: u64, topics: &Topics) -> Customers {
    Customers {
        rate: args.rate,
        orders: args.orders,
        prefix: format!("demo-{:06x}", seed & 0xff_ffff),
        seed,
        unpaid_timeout: unpaid_timeout(args),
        orders_topic: Arc::clone(&topics.orders),
        lifecycle_topic: Arc::clone(&topics.lifecycle),
    }
}
