//! What is found, and which cases are opened, on both stores.

use std::collections::BTreeMap;
use std::time::Duration;

use recharged::domain::route::{Lane, Route, RouteTable};
use recharged::domain::{CaseKind, ClaimId, Input, Order, ProviderId, Receipt, RefFormat, RetryAdvice, SubmitOutcome};
use recharged::ports::{CaseFilter, Listed, ListedState, Store};
use recharged::reconcile::{CaseState, Class, Day, Entry, Here, ReconcileError, Reconciled, Task, reconcile};

use super::{Books, Lines, SLACK, day_that_began, line, order_id};
use crate::store::fixture::{lane, policy};
use crate::store::on_every_adapter;
use crate::store::place::Place;

use ListedState::{Delivered, Failed, InProgress, Reversed, Unknown};

on_every_adapter!(
    every_class_is_found_with_its_case_and_twice_is_the_same_as_once,
    an_order_that_is_open_is_never_moved_by_a_list,
    near_midnight_nothing_is_called_missing_that_may_stand_on_the_neighbours_list,
    what_was_claimed_on_another_day_is_known_by_its_reference,
    too_many_cases_are_none_and_a_dry_run_writes_nothing,
    a_list_that_lacks_most_of_what_was_delivered_is_not_believed_unless_somebody_says_so,
    an_attempt_of_an_order_that_went_on_in_another_lane_is_no_strangers,
    two_at_once_open_each_case_once,
    a_list_that_cannot_be_true_ends_it_before_a_case_is_opened,
    many_attempts_pass_in_batches,
);

const NOON: Duration = Duration::from_hours(12);

struct Runs {
    dry: bool,
    most: Option<usize>,
}

const WRITES: Runs = Runs { dry: false, most: None };

async fn run(books: &Books<'_>, day: Day, lines: &[Listed], runs: &Runs) -> Result<Reconciled, ReconcileError> {
    let policy = policy();
    let (now, dry_run, cases_max) = (books.now, runs.dry, runs.most);
    let task = Task { provider: lane(), day, now, policy: &policy, dry_run, cases_max };
    reconcile(books.store, &mut Lines::of(lines), &task, |_| ()).await
}

async fn found(books: &Books<'_>, day: Day, lines: &[Listed]) -> (Reconciled, BTreeMap<String, Entry>) {
    let done = run(books, day, lines, &WRITES).await.unwrap();
    let entries = by_reference(&done, false);
    (done, entries)
}

fn by_reference(done: &Reconciled, matched: bool) -> BTreeMap<String, Entry> {
    done.entries(matched).map(|entry| (entry.client_ref.clone(), entry)).collect()
}

/// A difference: its reference, its class, and what became of its case.
type Told<'a> = (&'a str, Class, Option<(CaseKind, CaseState)>);

fn told(entries: &BTreeMap<String, Entry>) -> Vec<Told<'_>> {
    entries.iter().map(|(name, entry)| (name.as_str(), entry.class, entry.case.zip(entry.case_state))).collect()
}

async fn cases(store: &dyn Store) -> Vec<(String, CaseKind)> {
    let all = store.cases(&CaseFilter::default(), None, 1_000).await.unwrap();
    let mut all: Vec<_> = all.into_iter().map(|case| (case.key.order_id.to_string(), case.key.kind)).collect();
    all.sort();
    all
}

async fn every_class_is_found_with_its_case_and_twice_is_the_same_as_once(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    for name in ["same", "short", "gone", "failed-there", "back", "behind"] {
        books.delivered(name).await;
    }
    for name in ["no", "no-unlisted", "late"] {
        books.declined(name).await;
    }
    books.sent("open").await;
    books.sent("open-gone").await;
    books.sent("ended-there").await;
    books.delivered_by_the_second("twice").await;
    let at = books.at();
    let lines = [
        line("same-1", Delivered, Some(5000), at),
        line("short-1", Delivered, Some(2500), at),
        line("failed-there-1", Failed, None, at),
        line("back-1", Reversed, Some(5000), at),
        line("behind-1", InProgress, None, at),
        line("no-1", Failed, None, at),
        line("late-1", Delivered, Some(5000), at),
        line("open-1", Unknown, None, at),
        line("ended-there-1", Delivered, None, at),
        line("twice-1", Delivered, None, at),
        line("twice-2", Delivered, None, at),
        line("nobody-1", Delivered, Some(700), at),
        line("never-1", Failed, None, at),
    ];
    let day = day_that_began(books.now, NOON);
    let before: Vec<Order> = store_rows(&books).await;
    let (done, entries) = found(&books, day, &lines).await;
    let opened = |kind| Some((kind, CaseState::Opened));
    let expected = [
        ("back-1", Class::StateDiffers, opened(CaseKind::ReversedAfterSuccess)),
        ("behind-1", Class::StateDiffers, None),
        ("ended-there-1", Class::StateDiffers, None),
        ("failed-there-1", Class::StateDiffers, opened(CaseKind::Conflict)),
        ("gone-1", Class::MissingThere, opened(CaseKind::Conflict)),
        ("late-1", Class::StateDiffers, opened(CaseKind::LateSuccess)),
        ("nobody-1", Class::MissingHere, None),
        ("open-gone-1", Class::MissingThere, None),
        ("short-1", Class::AmountDiffers, opened(CaseKind::AmountMismatch)),
        ("twice-1", Class::StateDiffers, opened(CaseKind::DoubleSuccess)),
    ];
    assert_eq!(told(&entries), expected);
    let report = &done.report;
    assert!(!report.clean);
    assert_eq!((report.listing.lines, report.attempts, report.idle_strangers), (13, 16, 1));
    assert_eq!(
        (report.matched.delivered.count, report.matched.not_delivered.count, report.matched.open.count),
        (2, 2, 1)
    );
    assert_eq!((report.cases.opened, report.cases.known, report.at_the_edge), (6, 0, 0));
    let short = &report.amount_differs.money[0];
    assert_eq!((short.ours_minor, short.theirs_minor), (5000, 2500));
    let nobody = &report.missing_here.money[0];
    assert_eq!((nobody.ours_minor, nobody.theirs_minor), (0, 700));
    assert_eq!(entries["late-1"].here, Some(Here::NotDelivered));

    let cases_once = cases(books.store).await;
    assert_eq!(cases_once.len(), 6, "{cases_once:?}");
    for (was, is) in before.iter().zip(store_rows(&books).await) {
        let same = Order { version: was.version, cases: was.cases, ..is.clone() };
        // The second success is known of the attempt, too.
        let same = if is.order_id.as_str() == "twice" { Order { attempt: was.attempt.clone(), ..same } } else { same };
        assert_eq!(same, *was, "nothing but its cases");
    }

    let (again, entries) = found(&books, day, &lines).await;
    let known: Vec<_> = expected
        .iter()
        .map(|(name, class, case)| (*name, *class, case.map(|(kind, _)| (kind, CaseState::Known))))
        .collect();
    assert_eq!(told(&entries), known);
    assert_eq!((again.report.cases.opened, again.report.cases.known), (0, 6));
    assert_eq!(cases(books.store).await, cases_once);

    let all = by_reference(&again, true);
    assert_eq!(all.len(), 15, "with what matched, and without who never was");
    assert_eq!(all["same-1"].class, Class::Matched);
}

async fn store_rows(books: &Books<'_>) -> Vec<Order> {
    let filter = recharged::ports::OrderFilter::default();
    let page = books.store.page(&filter, None, 100).await.unwrap();
    page.orders.into_iter().map(|view| view.order).collect()
}

async fn an_order_that_is_open_is_never_moved_by_a_list(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    let before = books.sent("o").await;
    let day = day_that_began(books.now, NOON);
    for state in [Delivered, Failed, Reversed] {
        let (done, entries) = found(&books, day, &[line("o-1", state, None, books.at())]).await;
        assert_eq!(told(&entries), [("o-1", Class::StateDiffers, None)]);
        assert_eq!(done.report.cases, recharged::reconcile::CaseCounts::default());
    }
    assert_eq!(books.row("o").await, before);
    let (done, _) = found(&books, day, &[line("o-1", InProgress, None, books.at())]).await;
    assert!(done.report.clean);
}

async fn near_midnight_nothing_is_called_missing_that_may_stand_on_the_neighbours_list(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    books.delivered("o").await;
    // Midnight in the middle of the claim's blur, on either side of it, and far from it.
    for (since_claim, of_day, edge, missing) in [
        (SLACK + Duration::from_secs(5), true, 0, 1),
        (Duration::from_secs(3), true, 1, 0),
        (Duration::ZERO, true, 1, 0),
    ] {
        let day = day_that_began(books.now, super::AGO + since_claim);
        assert_eq!(day.holds(books.at()), of_day);
        let done = run(&books, day, &[], &Runs { dry: true, most: Some(0) }).await.unwrap();
        let counts = (done.report.at_the_edge, done.report.missing_there.count);
        assert_eq!(counts, (edge, missing), "midnight {since_claim:?} before the claim");
    }
    // Claimed well inside a day that ended a moment ago, and delivered behind its end: it may be filed under that.
    let sent = books.sent("slow").await;
    let (attempt, claim_id) = (1, sent.attempt.as_ref().unwrap().claim_id);
    let outcome = SubmitOutcome::Succeeded(Receipt::default());
    let late = books.now - Duration::from_secs(5);
    books.tell(&sent, &Input::SubmitReply { attempt, claim_id, outcome }, late).await;
    let ended = day_that_began(books.now, Duration::from_secs(24 * 3_600 + 20));
    let done = run(&books, ended, &[], &Runs { dry: true, most: Some(0) }).await.unwrap();
    assert_eq!((done.report.at_the_edge, done.report.missing_there.count), (1, 1), "the other had its end inside");
    // The day after the claim: it is none of that day's business, unless it is filed there.
    let after = day_that_began(books.now, super::AGO - Duration::from_secs(3));
    assert!(!after.holds(books.at()));
    let done = run(&books, after, &[], &WRITES).await.unwrap();
    assert_eq!((done.report.clean, done.report.attempts), (true, 0));
    let filed_there = line("o-1", Delivered, Some(5000), after.from);
    let done = run(&books, after, &[filed_there], &WRITES).await.unwrap();
    assert_eq!((done.report.clean, done.report.matched.delivered.count), (true, 1));
    // And filed on the day before by a provider whose clock is behind: no stranger there.
    let before = Day::new(after.date.pred_opt().unwrap(), after.offset, SLACK).unwrap();
    let done = run(&books, before, &[line("o-1", Delivered, Some(5000), books.at())], &WRITES).await.unwrap();
    assert_eq!((done.report.clean, done.report.matched.delivered.count), (true, 1));
}

async fn what_was_claimed_on_another_day_is_known_by_its_reference(place: &Place) {
    let mut narrow = policy();
    let format = RefFormat { max_len: 32, alphanumeric_only: true };
    narrow.providers.get_mut(&lane()).unwrap().capabilities.client_ref = format;
    let hashed = Books::open_with(place.store.as_ref(), narrow).await;
    let reference = hashed.delivered("hashed").await.attempt.unwrap().client_ref;
    assert!(reference.may_be_hashed(), "{reference}");
    let books = Books { now: hashed.now, ..Books::open(place.store.as_ref()).await };
    books.delivered("clear").await;
    books.declined("refused").await;
    // A day that began a little after all claims, and on which the provider completed them.
    let day = day_that_began(books.now, super::AGO - SLACK - Duration::from_secs(5));
    let at = day.from + Duration::from_secs(1);
    let lines = [
        line("clear-1", Delivered, Some(5000), at),
        line(reference.as_str(), Delivered, Some(5000), at),
        line("refused-1", Delivered, Some(5000), at),
        line("clear-2", Delivered, Some(5000), at),
        line("R0123456789ABCDEFGHJKMNPQRSTVWXY", Delivered, Some(5000), at),
    ];
    let (done, entries) = found(&books, day, &lines).await;
    let late = Some((CaseKind::LateSuccess, CaseState::Opened));
    let expected = [
        ("R0123456789ABCDEFGHJKMNPQRSTVWXY", Class::MissingHere, None),
        ("clear-2", Class::MissingHere, None),
        ("refused-1", Class::StateDiffers, late),
    ];
    assert_eq!(told(&entries), expected);
    assert_eq!(done.report.matched.delivered.count, 2);
    assert_eq!(entries["refused-1"].order_id, Some(order_id("refused")));

    // Of another provider nothing is ours.
    let policy = policy();
    let provider = ProviderId::new("another");
    let task = Task { provider, day, now: books.now, policy: &policy, dry_run: true, cases_max: None };
    let done = reconcile(books.store, &mut Lines::of(&lines), &task, |_| ()).await.unwrap();
    assert_eq!((done.report.missing_here.count, done.report.attempts), (5, 5));
}

async fn too_many_cases_are_none_and_a_dry_run_writes_nothing(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    for number in 0..4 {
        books.delivered(&format!("o-{number}")).await;
    }
    let day = day_that_began(books.now, NOON);
    let counts = |done: &Reconciled| (done.report.missing_there.count, done.report.cases);
    let dry = run(&books, day, &[], &Runs { dry: true, ..WRITES }).await.unwrap();
    let none = recharged::reconcile::CaseCounts::default();
    assert_eq!(counts(&dry), (4, recharged::reconcile::CaseCounts { due: 4, ..none }));
    let withheld = run(&books, day, &[], &Runs { most: Some(3), ..WRITES }).await.unwrap();
    assert_eq!(counts(&withheld), (4, recharged::reconcile::CaseCounts { withheld: 4, ..none }));
    assert_eq!(cases(books.store).await, []);
    let opened = run(&books, day, &[], &Runs { most: Some(4), ..WRITES }).await.unwrap();
    assert_eq!(counts(&opened), (4, recharged::reconcile::CaseCounts { opened: 4, ..none }));
    // What is known counts for nothing.
    let known = run(&books, day, &[], &Runs { most: Some(0), ..WRITES }).await.unwrap();
    assert_eq!(counts(&known), (4, recharged::reconcile::CaseCounts { known: 4, ..none }));
}

async fn a_list_that_lacks_most_of_what_was_delivered_is_not_believed_unless_somebody_says_so(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    let names: Vec<String> = (0..25).map(|number| format!("o-{number}")).collect();
    super::insert_delivered(&books, &names).await;
    let (day, at) = (day_that_began(books.now, NOON), books.at());
    let first = |count: usize| -> Vec<Listed> {
        names.iter().take(count).map(|name| line(&format!("{name}-1"), Delivered, Some(5000), at)).collect()
    };
    // Empty, and cut off between two lines.
    for listed in [0, 12] {
        let done = run(&books, day, &first(listed), &WRITES).await.unwrap();
        let cases = done.report.cases;
        assert_eq!((cases.withheld, cases.opened), (25 - listed as u64, 0), "{listed} are listed");
        assert_eq!(done.report.missing_there.count, cases.withheld);
    }
    assert_eq!(cases(books.store).await, []);
    let done = run(&books, day, &first(13), &WRITES).await.unwrap();
    assert_eq!(done.report.cases.opened, 12, "most are there");
    let done = run(&books, day, &[], &Runs { most: Some(25), ..WRITES }).await.unwrap();
    assert_eq!((done.report.cases.opened, done.report.cases.known), (13, 12), "somebody says so");
}

async fn an_attempt_of_an_order_that_went_on_in_another_lane_is_no_strangers(place: &Place) {
    let mut two_lanes = policy();
    let second = ProviderId::new("second");
    two_lanes.providers.insert(second.clone(), two_lanes.providers[&lane()].clone());
    let lanes = [lane(), second.clone()].map(|id| Lane { id, products: Vec::new(), sells_anything: true });
    two_lanes.routes = std::sync::Arc::new(RouteTable::new(vec![Route::everything(lanes.into())]));
    let books = Books::open_with(place.store.as_ref(), two_lanes).await;
    let sent = books.sent("moved").await;
    let moved = books.reply(&sent, SubmitOutcome::Rejected(super::no(RetryAdvice::Never))).await;
    assert_eq!(moved.provider, Some(second));
    let again = books.tell(&moved, &Input::Claim { claim_id: ClaimId::random() }, books.at()).await;
    books.reply(&again, SubmitOutcome::Succeeded(Receipt::default())).await;
    // The first provider files it on the next day, and delivered it after all.
    let day = day_that_began(books.now, super::AGO - SLACK - Duration::from_secs(5));
    let at = day.from + Duration::from_secs(1);
    // The second attempt was made elsewhere: of that reference this provider knows nothing of ours.
    let lines = [line("moved-1", Delivered, Some(5000), at), line("moved-2", Delivered, Some(5000), at)];
    let (_, entries) = found(&books, day, &lines).await;
    let double = Some((CaseKind::DoubleSuccess, CaseState::Opened));
    assert_eq!(told(&entries), [("moved-1", Class::StateDiffers, double), ("moved-2", Class::MissingHere, None)]);
}

async fn two_at_once_open_each_case_once(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    for number in 0..40 {
        books.delivered(&format!("o-{number}")).await;
    }
    let day = day_that_began(books.now, NOON);
    let runs = Runs { most: Some(40), ..WRITES };
    let (one, other) = tokio::join!(run(&books, day, &[], &runs), run(&books, day, &[], &runs));
    let (one, other) = (one.unwrap().report.cases, other.unwrap().report.cases);
    assert_eq!(one.opened + other.opened, 40, "{one:?} {other:?}");
    assert_eq!(one.known + other.known, 40, "{one:?} {other:?}");
    assert_eq!(cases(books.store).await.len(), 40);
}

async fn a_list_that_cannot_be_true_ends_it_before_a_case_is_opened(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    books.delivered("gone").await;
    let (day, at) = (day_that_began(books.now, NOON), books.at());
    let place_of = |place, listed: Listed| Listed { place, ..listed };
    let far = at - Duration::from_hours(72);
    for (lines, words) in [
        (
            vec![place_of(2, line("x-1", Delivered, None, at)), place_of(3, line("x-1", Failed, None, at))],
            "line 3: its reference stands on line 2 already, and it stands there with another state",
        ),
        (vec![line("x-1", Delivered, None, far), line("y-1", Failed, None, far)], "none of its 2 lines is of"),
        (vec![line(&"x".repeat(200), Delivered, None, at)], "is it the right column?"),
    ] {
        let error = run(&books, day, &lines, &WRITES).await.unwrap_err();
        assert!(matches!(&error, ReconcileError::List(told) if told.to_string().contains(words)), "{error}");
    }
    assert_eq!(cases(books.store).await, []);
    // The same again is no contradiction, and a recharge may have moved on between two pages.
    let moved = [line("gone-1", InProgress, None, at), line("gone-1", Delivered, None, at)];
    let done = run(&books, day, &moved, &WRITES).await.unwrap();
    assert_eq!((done.report.clean, done.report.listing.repeated), (true, 1));
}

async fn many_attempts_pass_in_batches(place: &Place) {
    let books = Books::open(place.store.as_ref()).await;
    let at = books.at();
    let (mut lines, mut gone) = (Vec::new(), 0);
    let names: Vec<String> = (0..1_203).map(|number| format!("m-{number}")).collect();
    super::insert_delivered(&books, &names).await;
    for (number, name) in names.iter().enumerate() {
        if number % 100 == 7 {
            gone += 1;
        } else {
            lines.push(line(&format!("{name}-1"), Delivered, Some(5000), at));
        }
    }
    let done = run(&books, day_that_began(books.now, NOON), &lines, &WRITES).await.unwrap();
    let report = &done.report;
    assert_eq!((report.matched.delivered.count, report.missing_there.count), (1_203 - gone, gone));
    assert_eq!((report.cases.opened, cases(books.store).await.len() as u64), (gone, gone));
    assert_eq!(report.matched.delivered.money[0].ours_minor, i128::from(1_203 - gone) * 5_000);
}
