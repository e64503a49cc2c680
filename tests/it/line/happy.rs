//! Nothing goes wrong.

use super::support::UNHURRIED;
use crate::harness::{Line, Wishes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_orders_are_delivered_once_and_their_events_come_in_order() {
    let line = Line::set_up(Wishes { toml: UNHURRIED.to_owned(), ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    line.send("o", 2_000).await;
    line.until_succeeded(2_000).await;
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    assert_eq!(report.sla.met, 2_000);
    let events = line.events_in_order().await;
    // Queued, submitted, succeeded. A process that the machine held up between permit and first byte
    // sends nothing then, and tries again: two events more.
    assert!(events.values().all(|version| version % 2 == 1 && *version >= 3), "{events:?}");
    let at_once = events.values().filter(|version| **version == 3).count();
    assert!(at_once >= 1_900, "only {at_once} of 2000 went through at once");
    assert!(service.terminate(std::time::Duration::from_secs(15)).await.success());
}
