//! What an upstream team starts from: the shops of `examples/`, as they stand there, and an outbox.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use recharged::domain::{Reason, State};
use serde_json::{Value, json};

use super::refusals::{Ended, ended};
use super::support::UNHURRIED;
use crate::harness::{Line, PATIENCE, Wishes};

/// Which of them say that their language is not on this machine.
const NOT_HERE: Option<i32> = Some(69);
/// So many for each of the four things that such a shop does with an order.
const OF_EACH: u64 = 3;

fn example(line: &Line, name: &str, arguments: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/examples");
    let mut command = Command::new(script);
    command.arg(name).args(["--brokers", &line.brokers, "--prefix", &line.prefix]).args(arguments);
    command
}

fn wishes() -> Wishes {
    Wishes { send_window: UNHURRIED, ..Wishes::default() }
}

fn is_here(ended: &Ended, name: &str) -> bool {
    if ended.code == NOT_HERE {
        // Past the test harness, which would keep the line to itself.
        let said = format!("\nSKIPPED: the {name} example was not run: {}\n", ended.stderr.trim());
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return false;
    }
    assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
    true
}

/// It creates, pays and cancels orders, and confirms their refunds; it ends when each has ended.
/// Whether it could be run here.
async fn a_shop_hears_what_became_of_each_of_its_orders(name: &str) -> bool {
    let line = Line::set_up(wishes()).await;
    let mut service = line.start("one", &[]).await;
    let orders = (4 * OF_EACH).to_string();
    // What it needs is installed at the first time.
    let ended = ended(example(&line, name, &["--orders", &orders]), 4 * PATIENCE).await;
    let is_here = is_here(&ended, name);
    if is_here {
        let told: Value = serde_json::from_str(ended.stdout.trim()).unwrap_or_else(|_| panic!("{name}: {ended:?}"));
        let expected = json!({
            "succeeded": 2 * OF_EACH, "failed": OF_EACH, "cancelled": OF_EACH, "refunds_confirmed": OF_EACH,
        });
        assert_eq!(told, expected, "{name}");
        let report = line.audit().await;
        assert!(report.audit.clean, "{name}: {report:?}");
        assert_eq!((report.succeeded, report.refunds), (2 * OF_EACH, OF_EACH), "{name}");
        for row in line.rows().await {
            let paid_for_nothing = row.state == State::Failed;
            assert_eq!(row.refund_id.is_some(), paid_for_nothing, "{name}: {row:?}");
            assert!(!paid_for_nothing || row.reason == Some(Reason::InvalidPhone), "{name}: {row:?}");
        }
        assert!(line.read_all("dead-letters").await.is_empty(), "{name}: nothing that it says is unfit");
    }
    service.end_well(std::time::Duration::from_secs(15)).await;
    is_here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_shop_hears_what_became_of_each_of_its_orders() {
    a_shop_hears_what_became_of_each_of_its_orders("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_shop_writes_to_its_own_table_becomes_events_though_they_are_published_twice() {
    let line = Line::set_up(wishes()).await;
    let mut service = line.start("one", &[]).await;
    line.doctor(include_str!("../../../examples/outbox.sql")).await;
    line.doctor(
        "insert into shop_orders (id, phone, price_fen, status, payment_id, paid_at) values
             ('box-paid', '13800000001', 5000, 'paid', 'pay-1', now());
         insert into shop_orders (id, phone, price_fen) values ('box-later', '13800000002', 5000), ('box-never', '13800000003', 5000);
         update shop_orders set status = 'paid', payment_id = 'pay-2', paid_at = now() where id = 'box-later';
         update shop_orders set status = 'cancelled' where id = 'box-never';
         create table published as select * from recharge_outbox;",
    )
    .await;
    let url = line.url().to_owned();
    let publish = || example(&line, "outbox", &["--database", &url, "--once"]);
    let first = ended(publish(), 4 * PATIENCE).await;
    if is_here(&first, "outbox") {
        // As after a crash between the acknowledgement and the commit.
        line.doctor(
            "insert into recharge_outbox (event_id, event_type, order_id, data, at)
             select event_id, event_type, order_id, data, at from published order by id",
        )
        .await;
        let again = ended(publish(), PATIENCE).await;
        for ended in [&first, &again] {
            assert_eq!(ended.stdout.trim(), r#"{"published": 5}"#, "{ended:?}");
        }
        for (id, state) in
            [("box-paid", State::Succeeded), ("box-later", State::Succeeded), ("box-never", State::Cancelled)]
        {
            line.until_order(id, "ended", |order| order.state == state).await;
        }
        assert_eq!(line.delivered().len(), 2);
        assert!(line.audit().await.audit.clean);
        assert!(line.read_all("dead-letters").await.is_empty());
    }
    service.end_well(std::time::Duration::from_secs(15)).await;
}

/// `scripts/campaign examples`.
mod campaign {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a campaign: needs the languages"]
    async fn every_shop_hears_what_became_of_each_of_its_orders() {
        for name in ["python", "go", "java", "typescript"] {
            assert!(super::a_shop_hears_what_became_of_each_of_its_orders(name).await, "{name} cannot be run here");
            println!("{name}: all as it should be");
        }
    }
}
