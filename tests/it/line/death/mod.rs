//! Two providers, each in the words of its own dialect and with a ledger of its own, a fifth of whose calls fail in
//! doubt; and one of them dies in the middle. What the other one serves must not notice, what both can serve goes on
//! there, and what only the dead one can serve ends honestly.

mod campaign;
mod figures;
mod plan;
mod reckoning;
mod sale;
mod stage;

use std::time::Duration;

use figures::Latencies;
use plan::Plan;
use stage::Stage;

/// A decision is written so soon after its deadline, where nothing else is on the machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Beside other work only what must never happen is asserted, and that things go their way at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_dies_takes_nothing_with_it_that_another_can_serve() {
    let plan = Plan::small();
    let stage = Stage::set(&plan).await;
    let played = stage.play(&plan, true).await;
    let figures = played.reckon(&plan).await;
    println!("{figures}");
    let loose = |latencies: &Latencies| latencies.percentile(0.5) < plan.deadline.as_secs_f64();
    assert!(loose(&figures.before) && loose(&figures.meanwhile), "the healthy lane stood still: {figures}");
    assert!(figures.either.adherence() > 0.9, "{figures}");
    assert!(figures.went_on > 0, "nothing went on to the other lane: {figures}");
}
