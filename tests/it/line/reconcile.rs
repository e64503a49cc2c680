//! A day that the service has worked, against what the provider says of it: its list, and its day file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use recharged::domain::{CaseKind, State};
use recharged::ports::CaseFilter;
use recharged::providers::simulator::{
    Declines, FaultClass, Faults, Latency, Outcomes, Profile, Queries, Rates, Script, Spell,
};
use serde_json::Value;

use super::refusals::{Ended, ended};
use super::support::{UNHURRIED, assert_no_numbers};
use crate::harness::{Line, PATIENCE, Wishes};
use crate::reconcile::zone_of_noon;

/// A provider on a bad day that tells no lies about it.
fn bad_day() -> Profile {
    let often = Rates { before: 0.03, after: 0.03 };
    Profile {
        reply: Latency::Fixed(Duration::from_millis(5)),
        accepted_first: 0.3,
        completion: Latency::Fixed(Duration::from_millis(200)),
        declines: Declines { fatal: 0.05, retryable: 0.1, throttled: 0.02, ..Declines::default() },
        faults: Faults { reset: often, error_500: often, truncated: often, unknown_code: often, ..Faults::default() },
        outcomes: Outcomes { accepted_then_failed: 0.03, wrong_amount: 0.02, ..Outcomes::default() },
        queries: Queries { failing: 0.05, ..Queries::default() },
        ..Profile::default()
    }
}

/// What the day was, to the command.
struct Day {
    of_it: Vec<String>,
    file: std::path::PathBuf,
}

impl Day {
    async fn now(line: &Line) -> Self {
        let now = line.store.now().await.unwrap();
        let zone = zone_of_noon(now);
        let day = now.with_timezone(&zone).date_naive().to_string();
        let of_it = ["--provider", "sim", "--day", &day, "--timezone", &zone.to_string(), "--slack", "1s"];
        Self { of_it: of_it.map(str::to_owned).to_vec(), file: line.folder.path().join("day.csv") }
    }

    /// Writes the provider's day file, with its lines changed by reference: another line, or none.
    async fn write_file(&self, line: &Line, changes: &BTreeMap<&str, Option<String>>) {
        let url = format!("{}/day-file", line.simulator.admin_url());
        let text = crate::reconcile::get(&line.simulator, &url).await;
        let mut changed = String::new();
        for row in text.lines() {
            let reference = row.split(',').next().unwrap().trim_matches('"');
            match changes.get(reference) {
                None => changed.push_str(row),
                Some(None) => continue,
                Some(Some(other)) => changed.push_str(other),
            }
            changed.push('\n');
        }
        for other in changes
            .iter()
            .filter(|(name, _)| !text.contains(&format!("\"{name}\"")))
            .filter_map(|(_, row)| row.as_ref())
        {
            changed.push_str(other);
            changed.push('\n');
        }
        std::fs::write(&self.file, changed).unwrap();
    }

    async fn reconcile(&self, line: &Line, more: &[&str]) -> Ended {
        let arguments: Vec<&str> = ["reconcile", "--json"]
            .into_iter()
            .chain(self.of_it.iter().map(String::as_str))
            .chain(more.iter().copied())
            .collect();
        let done = ended(line.command(&arguments), PATIENCE).await;
        assert_no_numbers(&done.stdout, "the report");
        done
    }

    async fn by_file(&self, line: &Line) -> Ended {
        self.reconcile(line, &["--file", self.file.to_str().unwrap()]).await
    }
}

fn report(done: &Ended) -> Value {
    let last = done.stdout.lines().last().unwrap_or_else(|| panic!("{done:?}"));
    serde_json::from_str(last).unwrap()
}

/// Reference, class and case of each difference.
fn differences(done: &Ended) -> Vec<(String, String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut all: Vec<_> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["type"] == "difference")
        .map(|line| (text(&line["client_ref"]).unwrap(), text(&line["class"]).unwrap(), text(&line["case"])))
        .collect();
    all.sort();
    all
}

fn expected(all: &[(&str, &str, Option<CaseKind>)]) -> Vec<(String, String, Option<String>)> {
    let one = |(name, class, case): &(&str, &str, Option<CaseKind>)| {
        ((*name).to_owned(), (*class).to_owned(), case.map(|kind| kind.to_string()))
    };
    let mut all: Vec<_> = all.iter().map(one).collect();
    all.sort();
    all
}

async fn cases(line: &Line) -> Vec<(String, CaseKind)> {
    let all = line.store.cases(&CaseFilter::default(), None, 1_000).await.unwrap();
    let mut all: Vec<_> = all.into_iter().map(|case| (case.key.order_id.to_string(), case.key.kind)).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_faults_the_providers_own_list_and_file_match_and_what_is_changed_in_them_is_found() {
    let wishes = Wishes { profile: bad_day(), call_timeout: "2s", send_window: "1s", ..Wishes::default() };
    let line = Line::set_up(wishes).await;
    let mut service = line.start("one", &[]).await;
    line.send("o", 400).await;
    // One is accepted and never completed, and stays so.
    line.simulator.script(&Script::for_orders([(vec!["open".to_owned()], FaultClass::Never)])).unwrap();
    line.write(vec![line.order("open")]).await;
    line.until_counts("all but one are decided", |counts| {
        let closed = [State::Succeeded, State::Failed].iter().filter_map(|state| counts.get(state)).sum::<u64>();
        closed == 400
    })
    .await;
    service.kill();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let day = Day::now(&line).await;
    day.write_file(&line, &BTreeMap::new()).await;
    let (known_before, rows) = (cases(&line).await, line.rows().await);

    // What the line was told differently than ordered it knows already; nothing else differs.
    for done in [day.by_file(&line).await, day.reconcile(&line, &[]).await] {
        let report = report(&done);
        assert!(
            differences(&done)
                .iter()
                .all(|(_, class, case)| { class == "amount_differs" && case.as_deref() == Some("amount_mismatch") }),
            "{done:?}"
        );
        assert_eq!(report["cases"]["known"], report["amount_differs"]["count"], "{report}");
        assert_eq!((report["cases"]["opened"].as_u64(), report["unreadable"].as_u64()), (Some(0), Some(0)), "{report}");
        assert_eq!(
            (report["missing_here"]["count"].as_u64(), report["at_the_edge"].as_u64()),
            (Some(0), Some(0)),
            "{report}"
        );
        assert_eq!(report["matched"]["open"]["count"].as_u64(), Some(1), "{report}");
        let delivered = report["matched"]["delivered"]["count"].as_u64().unwrap();
        let wrong = report["amount_differs"]["count"].as_u64().unwrap();
        let succeeded = rows.iter().filter(|row| row.state == State::Succeeded).count() as u64;
        assert_eq!((delivered + wrong, wrong > 0), (succeeded, true), "{report}");
    }
    assert_eq!(cases(&line).await, known_before);

    // One difference of each kind, in orders that have none of their own.
    let plain = |state: State| {
        let fits =
            move |row: &&recharged::domain::Order| row.state == state && row.cases == 0 && row.attempt_number() == 1;
        rows.iter().filter(fits).map(|row| row.order_id.to_string()).collect::<Vec<_>>()
    };
    let (good, bad) = (plain(State::Succeeded), plain(State::Failed));
    let reference = |order: &str| format!("{order}-1");
    let [gone, failed, back, short] = [0, 1, 2, 3].map(|at| reference(&good[at]));
    let late = reference(&bad[0]);
    let row = |name: &str, rest: &str| Some(format!("{name},{rest}"));
    let changes = BTreeMap::from([
        (gone.as_str(), None),
        (failed.as_str(), row(&failed, "failed,,,,")),
        (back.as_str(), row(&back, "reversed,5000,CNY,,")),
        (short.as_str(), row(&short, "delivered,4999,CNY,,")),
        (late.as_str(), row(&late, "delivered,5000,CNY,,")),
        ("open-1", row("open-1", "delivered,5000,CNY,,")),
        ("nobody-1", row("nobody-1", "delivered,5000,CNY,,")),
    ]);
    day.write_file(&line, &changes).await;
    let injected = expected(&[
        (&gone, "missing_there", Some(CaseKind::Conflict)),
        (&failed, "state_differs", Some(CaseKind::Conflict)),
        (&back, "state_differs", Some(CaseKind::ReversedAfterSuccess)),
        (&short, "amount_differs", Some(CaseKind::AmountMismatch)),
        (&late, "state_differs", Some(CaseKind::LateSuccess)),
        ("open-1", "state_differs", None),
        ("nobody-1", "missing_here", None),
    ]);
    let mut once: Vec<(String, CaseKind)> = Vec::new();
    for (opened, known) in [(5, 0), (0, 5)] {
        let done = day.by_file(&line).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        let found: Vec<_> = differences(&done);
        let new: Vec<_> = found.iter().filter(|one| injected.contains(one)).cloned().collect();
        assert_eq!(new, injected);
        let others = found.len() - injected.len();
        let report = report(&done);
        let counts = |name: &str| report["cases"][name].as_u64().unwrap();
        assert_eq!((counts("opened"), counts("known")), (opened, known + others as u64), "{report}");
        let all = cases(&line).await;
        assert_eq!(all.len(), known_before.len() + 5, "{all:?}");
        assert!(once.is_empty() || once == all, "twice is the same as once");
        once = all;
    }
    for (was, is) in rows.iter().zip(line.rows().await) {
        assert_eq!((was.state, was.refund_requested, was.closed_at), (is.state, is.refund_requested, is.closed_at));
    }
    // Each is an event like any other, when a relay runs again.
    let _service = line.start("two", &[]).await;
    let told = |records: &[recharged::ports::InRecord]| {
        let opened = records
            .iter()
            .filter(|record| super::support::header_of(record, "ce_type") == "recharge.order.case_opened.v1");
        opened.count() >= 5
    };
    line.read("order-events", told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_word_that_the_provider_takes_back_is_found_by_its_list_the_next_day() {
    let later = Duration::from_secs(2);
    let outcomes =
        Outcomes { reversed: Spell::fixed(0.0, later), late_success: Spell::fixed(0.0, later), ..Outcomes::default() };
    let soon = Latency::Fixed(Duration::from_millis(5));
    let profile = Profile { reply: soon, completion: soon, outcomes, ..Profile::default() };
    let line = Line::set_up(Wishes { profile, send_window: UNHURRIED, ..Wishes::default() }).await;
    let _service = line.start("one", &[]).await;
    for (id, class) in [("back", FaultClass::Reversed), ("late", FaultClass::LateSuccess)] {
        line.simulator.script(&Script::for_orders([(vec![id.to_owned()], class)])).unwrap();
        line.write(vec![line.order(id)]).await;
        line.until_order(id, "closed", |order| order.state.is_closed()).await;
    }
    line.send("o", 20).await;
    line.until_counts("the others are closed", |counts| counts.values().sum::<u64>() == 22 && counts.len() == 2).await;
    let give_up = Instant::now() + PATIENCE;
    while line.simulator.struck(FaultClass::Reversed) + line.simulator.struck(FaultClass::LateSuccess) < 2 {
        assert!(Instant::now() < give_up, "{:?}", line.simulator.strikes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!line.audit().await.audit.clean, "nobody has heard of it");
    let day = Day::now(&line).await;
    let dry = day.reconcile(&line, &["--dry-run"]).await;
    assert_eq!((dry.code, cases(&line).await.len()), (Some(1), 0), "{dry:?}");
    for _ in 0..2 {
        let done = day.reconcile(&line, &[]).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        let found = expected(&[
            ("back-1", "state_differs", Some(CaseKind::ReversedAfterSuccess)),
            ("late-1", "state_differs", Some(CaseKind::LateSuccess)),
        ]);
        assert_eq!(differences(&done), found);
    }
    let told = [("back".to_owned(), CaseKind::ReversedAfterSuccess), ("late".to_owned(), CaseKind::LateSuccess)];
    assert_eq!(cases(&line).await, told);
    assert!(line.audit().await.audit.clean, "now each has its case");
}
