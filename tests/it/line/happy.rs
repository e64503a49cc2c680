//! Nothing goes wrong.

use recharged::domain::event::EventType;

use super::support::UNHURRIED;
use crate::harness::{Line, Wishes};
use crate::pace::at_least;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_orders_are_delivered_once_and_their_events_come_in_order() {
    let line = Line::set_up(Wishes { send_window: UNHURRIED, ..Wishes::default() }).await;
    let mut service = line.start("one", &[]).await;
    line.send("o", 2_000).await;
    line.until_succeeded(2_000).await;
    let report = line.audit().await;
    assert!(report.audit.clean, "{report:?}");
    assert_eq!(report.sla.met, 2_000);
    let events = line.events_in_order().await;
    // A process that the machine held up between permit and first byte sends nothing then, and
    // tries again; that may befall a whole batch of hundreds, a few times.
    for (id, _) in events.iter().filter(|(_, version)| **version != 3) {
        let kinds = line.history(id).await.kinds();
        assert_eq!(kinds, [EventType::Queued, EventType::Submitted, EventType::Succeeded], "{id}");
    }
    let at_once = events.values().filter(|version| **version == 3).count();
    at_least("of 2000 at once", at_once, 1_900.0, 100.0);
    service.end_well(std::time::Duration::from_secs(15)).await;
}
