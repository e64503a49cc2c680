//! A process with the watchdog whose broker is away when it starts. Deadlines need the database alone, so
//! they are decided from the first moment; everything else begins when the broker answers. One that has other
//! roles as well and finds no order to decide ends with exit code 69, as any process without its broker:
//! nothing is lost by that, and a wrong address is seen at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{App, BUDGET, Broker, Plan, Role, StartError, chain, open, open_checked_store, start_on};
use crate::domain::Timestamp;
use crate::kafka::topics::ANSWER_LIMIT;
use crate::lifecycle::Outcome;
use crate::ports::DeadlinePosition;

/// A broker that is there answers the first request in less.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// One that is far, or slow to let us in, has [`ANSWER_LIMIT`] later on, and is asked this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs a process to its end: from the start if its broker answers, else, where there is something to decide,
/// with the watchdog alone until it does.
pub async fn run(plan: Plan, signals: &mut mpsc::Receiver<&'static str>) -> Result<Outcome, StartError> {
    let decides = plan.roles.contains(&Role::Watchdog);
    let former_tiers = loop {
        let limit = if decides { FIRST_LOOK } else { ANSWER_LIMIT };
        match open::check_topics(&plan, limit).await {
            Ok(former_tiers) => break former_tiers,
            Err(StartError::NoBroker(trouble)) if decides && is_needed(&plan).await? => {
                if let Some(outcome) = until_it_answers(&plan, &trouble, signals).await? {
                    return Ok(outcome);
                }
            }
            Err(trouble) => return Err(trouble),
        }
    };
    let App { lifecycle, address, .. } = start_on(plan, Broker::Answers { former_tiers }).await?;
    info!(listen = %address, "started");
    Ok(lifecycle.run_until_done(signals).await)
}

/// Whether deadlines must be decided before a broker answers: by who has nothing else to do, and by
/// everybody else while orders are open.
async fn is_needed(plan: &Plan) -> Result<bool, StartError> {
    if plan.roles == [Role::Watchdog] {
        return Ok(true);
    }
    let store = open_checked_store(&plan.config, &plan.secrets).await?;
    let trouble = |error| StartError::Unreachable(format!("store.url: {}", chain(&error)));
    let after = DeadlinePosition { at: store.low_water().await.map_err(trouble)?, order_id: None };
    let page = store.undecided(&after, Timestamp::MAX_UTC, 1).await.map_err(trouble)?;
    Ok(!page.orders.is_empty() || !page.unreadable.is_empty())
}

/// The watchdog alone. `None` once the broker answers; how the process ended, if it was told to before.
async fn until_it_answers(
    plan: &Plan,
    trouble: &str,
    signals: &mut mpsc::Receiver<&'static str>,
) -> Result<Option<Outcome>, StartError> {
    warn!("{trouble}; until then this process decides deadlines, and does nothing else");
    let alone = Plan { roles: vec![Role::Watchdog], ..plan.clone() };
    let mut app = start_on(alone.clone(), Broker::Away).await?;
    info!(listen = %app.address, "started: the watchdog alone");
    let (drain, answered) = (app.lifecycle.drain(), Arc::new(AtomicBool::new(false)));
    let (awaited, told) = (alone.clone(), Arc::clone(&answered));
    app.lifecycle.add("broker", BUDGET, |stop| async move {
        let waiting = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                match open::check_topics(&awaited, ANSWER_LIMIT).await {
                    Err(StartError::NoBroker(_)) => {}
                    // What else may be wrong is said by the start that follows.
                    Ok(_) | Err(StartError::Config(_) | StartError::Unreachable(_) | StartError::Failed(_)) => return,
                }
            }
        };
        tokio::select! {
            biased; // Stopping comes before another look.
            () = stop.cancelled() => return Ok(()),
            () = waiting => {}
        }
        info!("the broker answers: everything else begins");
        told.store(true, Ordering::Relaxed);
        drain.cancel();
        stop.cancelled().await;
        Ok(())
    });
    let outcome = app.lifecycle.run_until_done(signals).await;
    // What the repair could not publish is asked for again.
    let goes_on = answered.load(Ordering::Relaxed) && outcome.failed.is_none() && !outcome.aborted;
    Ok(if goes_on { None } else { Some(outcome) })
}
