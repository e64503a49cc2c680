//! What only Postgres can do wrong: other transactions, lost connections, plans, partitions.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use recharged::domain::inquiry::Hastened;
use recharged::domain::{
    Input, LoggedEvent, NewOrder, Notification, Policy, Reason, State, Timestamp, Transition, decide,
};
use recharged::ports::{
    DeadlinePosition, Haste, Held, Hold, Hurried, Inserted, Loaded, LogPosition, Store, StoreErrorKind, Written,
};
use recharged::store::{StoreOptions, open};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::{
    applied, apply_one, arrive, claim, id, in_flight, insert_one, load_one, new_order, policy, succeed,
};
use super::laws::{assert_in_order, follow};
use super::place::{Place, on_server, server};
use crate::pace::at_most;

/// Writers whose transactions stay open for a while after they have written: the log's reader
/// must wait for them, or it would pass their entries by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_waits_for_transactions_that_are_still_open() {
    const WRITERS: u64 = 8;
    const ENTRIES: u64 = 25;
    let place = Place::postgres().await;
    let now = place.store.now().await.unwrap();
    let sample = arrive(new_order("sample", now), now);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (url, sample) = (place.url.clone(), sample.event.clone());
        writers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(writer);
            let mut connection = PgConnection::connect(&url).await.unwrap();
            for entry in 0..ENTRIES {
                connection.execute("begin").await.unwrap();
                let event = LoggedEvent {
                    order_id: id(&format!("slow-{writer}")),
                    version: u32::try_from(entry + 1).unwrap(),
                    ..sample.clone()
                };
                let insert = format!(
                    "insert into order_event_batches (xid, at, size, entries)
                     values (pg_current_xact_id()::text::bigint, clock_timestamp(), 1, '{}')",
                    event.to_line(),
                );
                connection.execute(AssertSqlSafe(insert)).await.unwrap();
                let pause = Duration::from_millis(random.random_range(0..25));
                tokio::time::sleep(pause).await;
                connection.execute("commit").await.unwrap();
            }
        }));
    }
    let log = follow(place.store.as_ref(), usize::try_from(WRITERS * ENTRIES).unwrap()).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert_in_order(&log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_after_every_connection_was_terminated() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 40;
    let place = Place::postgres().await;
    let now = place.store.now().await.unwrap();
    let stored = Arc::new(AtomicUsize::new(0));
    let cutter = {
        let (url, stored) = (place.url.clone(), Arc::clone(&stored));
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let mut cut = 0;
            loop {
                let rows = connection
                    .fetch_all(
                        "select pg_terminate_backend(pid) from pg_stat_activity
                         where datname = current_database() and pid <> pg_backend_pid()
                         and backend_type = 'client backend'",
                    )
                    .await
                    .unwrap();
                cut += rows.len();
                // Not before something was stored since: how soon a machine connects anew is its own matter.
                let before = stored.load(Ordering::Relaxed);
                while stored.load(Ordering::Relaxed) == before {
                    if before == WRITERS * ROUNDS {
                        return cut;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (store, stored) = (Arc::clone(&place.store), Arc::clone(&stored));
        writers.push(tokio::spawn(async move {
            let mut failures = 0;
            for round in 0..ROUNDS {
                let batch: Vec<_> =
                    (0..5).map(|n| arrive(new_order(&format!("t-{writer}-{round}-{n}"), now), now)).collect();
                let mut tries = 0;
                while let Err(error) = store.insert(&batch).await {
                    assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error:?}");
                    failures += 1;
                    tries += 1;
                    assert!(tries < 50, "the store recovers by itself: {error:?}");
                }
                stored.fetch_add(1, Ordering::Relaxed);
            }
            failures
        }));
    }
    let mut failures = 0;
    for writer in writers {
        failures += writer.await.unwrap();
    }
    let cuts = cutter.await.unwrap();
    assert!(cuts > 0 && failures > 0, "the test did cut connections: {cuts} cut, {failures} failures");
    // One failure is enough to give up every connection that died with it.
    let healed = place.store.load(&[id("t-0-0-0")]).await;
    if healed.is_err() {
        place.store.load(&[id("t-0-0-0")]).await.unwrap();
    }
    assert_eq!(place.number("select count(*) from orders").await, 800);
    assert_eq!(place.number("select count(*) from order_events").await, 800);
}

/// Tries until it succeeds: a store of short time-outs refuses what it would do at other times where
/// the machine is held up.
async fn patiently<T, E: std::fmt::Debug>(mut try_it: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        match try_it().await {
            Ok(done) => return done,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_hangs_is_ended_and_its_connection_is_not_lost() {
    let place = Place::postgres().await;
    let options =
        StoreOptions { max_connections: 1, statement_timeout: Duration::from_millis(200), ..StoreOptions::default() };
    // Patiently, since any statement may be slow on a busy machine.
    let order = in_flight(place.store.as_ref(), "held").await;
    let store = patiently(async || open(&place.url, &options).await).await;
    let mut holder = PgConnection::connect(&place.url).await.unwrap();
    holder.execute("begin").await.unwrap();
    holder.execute("select * from orders for update").await.unwrap();
    let done = succeed(&order, order.deadline_at);
    let error = store.apply(std::slice::from_ref(&done)).await.expect_err("the row is held");
    assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error:?}");
    holder.execute("rollback").await.unwrap();
    // Its only connection serves again, and what was ended has written nothing.
    patiently(async || store.load(&[id("held")]).await).await;
    assert_eq!(place.store.apply(&[done]).await.unwrap(), [Written::Stored]);
}

/// A plan that was made while the table was empty would scan it for ever after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_find_their_rows_by_the_key_also_in_a_table_that_was_empty() {
    let place = Place::postgres().await;
    let options = StoreOptions { max_connections: 1, ..StoreOptions::default() };
    let store = open(&place.url, &options).await.unwrap();
    let mut control = PgConnection::connect(&place.url).await.unwrap();
    control.execute("alter table orders set (autovacuum_enabled = off)").await.unwrap();
    control.execute("alter table cases set (autovacuum_enabled = off)").await.unwrap();
    let now = store.now().await.unwrap();
    // Prepared on the empty table, more often than the server's five trials.
    for n in 0..8 {
        in_flight(store.as_ref(), &format!("early-{n}")).await;
    }
    control
        .execute(
            "insert into cases (order_id, kind, opened_at, escalate_at, evidence)
             select 'other-' || n, 'in_doubt', now(), now(), '' from generate_series(1, 1000) as n",
        )
        .await
        .unwrap();
    control
        .execute(
            "insert into timers (order_id, kind, due_at)
             select 'other-' || n, 'notification', now() from generate_series(1, 1000) as n",
        )
        .await
        .unwrap();
    control.execute("alter table refunds set (autovacuum_enabled = off)").await.unwrap();
    control
        .execute(
            "insert into refunds (order_id, amount_minor, currency, reason, requested_at, confirm_by)
             select 'other-' || n, 1, 'CNY', 'no_route', now(), now() from generate_series(1, 1000) as n",
        )
        .await
        .unwrap();
    let mut batches = Vec::new();
    for round in 0..8 {
        let batch: Vec<_> = (0..500).map(|n| arrive(new_order(&format!("o-{round}-{n}"), now), now)).collect();
        store.insert(&batch).await.unwrap();
        batches.push(batch);
    }
    let [_, _, inserted] = scans(store.as_ref(), &mut control, |[_, _, inserted]| inserted >= 4_008).await;
    let [before, _, _] = scans(store.as_ref(), &mut control, |_| true).await;
    assert_eq!(inserted, 4_008);
    for batch in &batches {
        let claims: Vec<_> = batch.iter().map(|arrived| claim(&arrived.after, now)).collect();
        assert!(store.apply(&claims).await.unwrap().iter().all(|written| *written == Written::Stored));
        let ids: Vec<_> = batch.iter().map(|arrived| arrived.after.order_id.clone()).collect();
        assert!(store.load(&ids).await.unwrap().into_iter().all(|row| row.order().is_some()));
    }
    let [after, _, _] = scans(store.as_ref(), &mut control, |[_, fetched, _]| fetched >= 8_000).await;
    assert_eq!(after, before, "no sequential scan");
    let cases = "select idx_tup_read + pg_stat_get_tuples_returned('cases'::regclass)
                 from pg_stat_user_indexes where indexrelname = 'cases_pkey'";
    assert_eq!(place.number(cases).await, 0, "cases of other orders are not looked at");
    let refunds = "select (sum(idx_tup_read) + pg_stat_get_tuples_returned('refunds'::regclass))::bigint
                   from pg_stat_user_indexes where relname = 'refunds'";
    assert_eq!(place.number(refunds).await, 0, "refunds of other orders are not looked at");
    for batch in &batches {
        let stands = |arrived: &Transition| Notification {
            order_id: arrived.after.order_id.clone(),
            due_at: now,
            version: 2,
            state: State::InFlight,
            deadline_at: arrived.after.deadline_at,
        };
        let events: Vec<_> = batch.iter().map(|arrived| stands(arrived).request(now)).collect();
        assert!(store.fire(&events).await.unwrap().iter().all(|written| *written == Written::Overtaken));
    }
    scans(store.as_ref(), &mut control, |_| true).await;
    let timers = "select (sum(idx_tup_read) + pg_stat_get_tuples_returned('timers'::regclass))::bigint
                  from pg_stat_user_indexes where relname = 'timers'";
    assert_eq!(place.number(timers).await, 0, "timers of other orders are not looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_or_a_timer_that_somebody_holds_keeps_no_other_from_being_told_of() {
    let place = Place::postgres().await;
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    for order in ["free", "held-order", "held-timer"] {
        insert_one(store, &arrive(NewOrder { notify: true, ..new_order(order, now) }, now)).await;
    }
    let start = DeadlinePosition { at: Timestamp::UNIX_EPOCH, order_id: None };
    let at = now + policy().notify_after;
    let due = store.due(&start, at, 10).await.unwrap().due;
    let events: Vec<_> = due.iter().map(|due| due.request(at)).collect();
    let mut console = PgConnection::connect(&place.url).await.unwrap();
    console.execute("begin").await.unwrap();
    console.execute("select 1 from orders where order_id = 'held-order' for update").await.unwrap();
    console.execute("select 1 from timers where order_id = 'held-timer' for update").await.unwrap();
    let written = store.fire(&events).await.unwrap();
    assert_eq!(written, [Written::Stored, Written::Overtaken, Written::Overtaken]);
    console.execute("rollback").await.unwrap();
    let written = store.fire(&events).await.unwrap();
    assert_eq!(written, [Written::Overtaken, Written::Stored, Written::Stored]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_holds_keeps_no_other_of_its_batch_from_being_written_or_asked_about() {
    let place = Place::postgres().await;
    let store = place.store.as_ref();
    let mut orders = Vec::new();
    for order in ["a", "held", "z"] {
        orders.push(in_flight(store, order).await);
    }
    let mut console = PgConnection::connect(&place.url).await.unwrap();
    console.execute("begin").await.unwrap();
    console.execute("select 1 from orders where order_id = 'held' for update").await.unwrap();
    let now = store.now().await.unwrap();
    let holds: Vec<Hold> = orders
        .iter()
        .map(|order| Hold {
            order_id: order.order_id.clone(),
            asked_version: order.asked_version,
            replaces: None,
            until: now + Duration::from_secs(9),
        })
        .collect();
    let taken = Held::Taken { until: None, asked_version: None };
    assert_eq!(store.hold(&holds, now).await.unwrap(), [Held::Granted, taken, Held::Granted]);
    let ends: Vec<_> = orders.iter().map(|order| succeed(order, now)).collect();
    assert_eq!(store.apply(&ends).await.unwrap(), [Written::Stored, Written::Locked, Written::Stored]);
    // Also where it stands alone, and beside one that was moved meanwhile.
    assert_eq!(store.apply(&ends[1..]).await.unwrap(), [Written::Locked, Written::Overtaken]);
    assert_eq!(store.apply(&ends[1..2]).await.unwrap(), [Written::Locked]);
    console.execute("rollback").await.unwrap();
    assert_eq!(store.apply(&ends).await.unwrap(), [Written::Overtaken, Written::Stored, Written::Overtaken]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_waited_for_waits_a_fraction_of_a_second_for_a_row_that_somebody_holds_and_nobody_else_does() {
    let place = Place::postgres().await;
    let options = StoreOptions { max_connections: 1, ..StoreOptions::default() };
    let store = open(&place.url, &options).await.unwrap();
    let (now, mut orders) = (store.now().await.unwrap(), Vec::new());
    for order in ["a", "held", "z"] {
        orders.push(in_flight(store.as_ref(), order).await);
    }
    let holds = orders.iter().map(|order| Hold {
        order_id: order.order_id.clone(),
        asked_version: order.asked_version,
        replaces: None,
        until: now + Duration::from_mins(1),
    });
    assert_eq!(store.hold(&holds.collect::<Vec<_>>(), now).await.unwrap(), [Held::Granted; 3]);
    let mut console = PgConnection::connect(&place.url).await.unwrap();
    console.execute("begin").await.unwrap();
    console.execute("select 1 from orders where order_id = 'held' for update").await.unwrap();
    let to = Hastened { first: now, again: now + Duration::from_secs(5) };
    let hastes =
        orders.iter().map(|order| Haste { order_id: order.order_id.clone(), asked_version: order.asked_version, to });
    let began = Instant::now();
    let hurried = store.hasten(&hastes.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(hurried, [Hurried::From(to.again), Hurried::Locked, Hurried::From(to.again)]);
    let ends: Vec<_> = orders.iter().map(|order| succeed(order, now)).collect();
    let written = store.apply_promptly(&ends).await.unwrap();
    assert_eq!(written, [Written::Stored, Written::Locked, Written::Stored]);
    let prompt = began.elapsed();
    assert!(prompt < Duration::from_millis(1_500), "both took {prompt:?}: a callback is not waited for longer");
    // The connection waits for locks as before.
    let began = Instant::now();
    assert_eq!(store.apply(&ends[1..2]).await.unwrap(), [Written::Locked]);
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    console.execute("rollback").await.unwrap();
    assert_eq!(store.apply_promptly(&ends).await.unwrap(), [Written::Overtaken, Written::Stored, Written::Overtaken]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_says_how_many_entries_it_holds_those_that_are_told_beside_included() {
    let place = Place::postgres().await;
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let telling = Policy { notify_at_end: true, ..policy() };
    let hopeless = |order: &str| {
        let new = NewOrder { notify: true, ..new_order(order, now) };
        let input = Input::Arrived { new: Box::new(new), verdict: Err(Reason::NoRoute) };
        applied(decide(None, &input, now, &telling))
    };
    let unpaid = NewOrder { notify: true, paid_at: None, payment_id: None, ..new_order("c", now) };
    store.insert(&[hopeless("a"), hopeless("b"), arrive(unpaid, now)]).await.unwrap();
    let order = load_one(store, &id("c")).await.unwrap();
    let cancelled = applied(decide(Some(&order), &Input::CancelRequested, now, &telling));
    assert_eq!(apply_one(store, &cancelled).await, Written::Stored);
    let of_size = "select sum(size)::bigint from order_event_batches";
    let of_lines = "select sum(cardinality(string_to_array(entries, e'\\n')))::bigint from order_event_batches";
    assert_eq!((place.number(of_size).await, place.number(of_lines).await), (7, 7));
}

/// Sequential scans of `orders`, rows fetched by its indexes, and rows inserted, once they are
/// `enough`. A server process reports them when it next has something to do, a second later.
async fn scans(store: &dyn Store, control: &mut PgConnection, enough: impl Fn([i64; 3]) -> bool) -> [i64; 3] {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        store.now().await.unwrap();
        let row = control
            .fetch_one("select seq_scan, idx_tup_fetch, n_tup_ins from pg_stat_user_tables where relname = 'orders'")
            .await
            .unwrap();
        let counts = [row.get(0), row.get(1), row.get(2)];
        if enough(counts) {
            return counts;
        }
        assert!(tokio::time::Instant::now() < deadline, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_go_to_their_day_and_an_unforeseen_day_stops_nothing() {
    let place = Place::postgres().await;
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    assert_eq!(store.insert(&[arrive(new_order("today", now), now)]).await.unwrap(), [Inserted::Stored]);
    let today = format!("order_event_batches_{}", now.format("%Y%m%d"));
    assert_eq!(place.number(&format!("select count(*) from {today}")).await, 1);
    assert_eq!(place.number("select make_event_partitions(14)::bigint").await, 0, "all are there");
    assert_eq!(place.number("select make_event_partitions(16)::bigint").await, 2);
    let mut control = PgConnection::connect(&place.url).await.unwrap();
    control.execute(AssertSqlSafe(format!("drop table {today}"))).await.unwrap();
    assert_eq!(store.insert(&[arrive(new_order("unforeseen", now), now)]).await.unwrap(), [Inserted::Stored]);
    assert_eq!(place.number("select count(*) from order_event_batches_default").await, 1);
    assert_eq!(store.timeline(&id("unforeseen")).await.unwrap().len(), 1);
    // The default partition has taken the day; the days after it are made.
    assert_eq!(place.number("select make_event_partitions(20)::bigint").await, 4);
}

/// Readers leave out the days before the cursor's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_looks_only_at_the_days_from_the_cursor_on() {
    let place = Place::postgres().await;
    let store = place.store.as_ref();
    let now = store.now().await.unwrap();
    let later = now + Duration::from_hours(24 * 6);
    store.insert(&[arrive(new_order("now", now), now)]).await.unwrap();
    let mut control = PgConnection::connect(&place.url).await.unwrap();
    let line = arrive(new_order("later", later), later).event.to_line();
    let insert = format!(
        "insert into order_event_batches (xid, at, size, entries)
         values (pg_current_xact_id()::text::bigint, clock_timestamp() + interval '6 days', 1, '{line}')"
    );
    control.execute(AssertSqlSafe(insert)).await.unwrap();
    let log = follow(store, 2).await;
    assert!(store.advance_cursor(store.cursor().await.unwrap(), log[1].0).await.unwrap());
    let plan = control
        .fetch_all(
            "explain (analyze, costs off) select * from order_event_batches
             where (xid, seq) > (0, 0) and at >= (select at - interval '1 day' from relay_cursor where only_one)
               and xid < (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
             order by xid, seq limit 10",
        )
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let old = format!("order_event_batches_{}", now.format("%Y%m%d"));
    let looked: HashSet<&str> =
        plan.iter().filter(|line| line.contains("(actual")).flat_map(|line| line.split(' ')).collect();
    assert!(looked.contains(format!("order_event_batches_{}", later.format("%Y%m%d")).as_str()), "{plan:#?}");
    assert!(!looked.contains(old.as_str()), "{plan:#?}");
}

/// The relay after an outage: what it has not published yet is millions of entries long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_long_backlog_is_read_by_position_and_holds_what_was_asked_for() {
    let place = Place::postgres().await;
    let mut control = PgConnection::connect(&place.url).await.unwrap();
    let now = place.store.now().await.unwrap();
    let line = arrive(new_order("sample", now), now).event.to_line();
    // 20,000 batches of 50: as many entries as a third of a million orders leave.
    let fill = format!(
        "insert into order_event_batches (xid, at, size, entries)
         select n - 20000, clock_timestamp(), 50, rtrim(repeat('{line}' || e'\\n', 50), e'\\n') from generate_series(1, 20000) as n"
    );
    control.execute(AssertSqlSafe(fill)).await.unwrap();
    let after = LogPosition { xid: -11_000, seq: i64::MAX };
    let page = place.store.read_log(after, 5_000).await.unwrap();
    assert_eq!(page.iter().map(|batch| batch.lines().count()).sum::<usize>(), 5_000);
    assert_eq!(page.first().unwrap().position.xid, -10_999);
    assert!(page.is_sorted_by_key(|batch| batch.position));
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        place.store.read_log(after, 5_000).await.unwrap();
    }
    println!("a page of 5,000 entries is read in {:?}", began.elapsed() / 10);
    let read = place.number(
        "select sum(idx_tup_read)::bigint from pg_stat_user_indexes where indexrelname like 'order_event_batches_2%'",
    );
    // Statistics come a moment late, so this may miss a page, never count one too many.
    assert!(read.await <= 11 * 257, "no more than a page's rows are looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_said_to_be_so_in_bounded_time() {
    let place = Place::postgres().await;
    in_flight(place.store.as_ref(), "before").await;
    let name = place.url.rsplit('/').next().unwrap().to_owned();
    on_server(&format!("alter database {name} allow_connections false")).await.unwrap();
    on_server(&format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"))
        .await
        .unwrap();
    let begin = tokio::time::Instant::now();
    for _ in 0..3 {
        place.store.load(&[id("before")]).await.expect_err("nobody is let in");
    }
    at_most("three refusals", begin.elapsed(), Duration::from_secs(10), Duration::from_secs(30));
    on_server(&format!("alter database {name} allow_connections true")).await.unwrap();
    assert!(load_one(place.store.as_ref(), &id("before")).await.is_some(), "and it is used again when it is back");
}

/// Passes connections on to the server, until it falls silent: it then keeps them and says nothing.
async fn proxy(silent: Arc<AtomicBool>) -> std::net::SocketAddr {
    let server = url::Url::parse(&server()).unwrap();
    let target = (server.host_str().unwrap().to_owned(), server.port().unwrap_or(5432));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (target, silent) = (target.clone(), Arc::clone(&silent));
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let (mut question, mut answer) = (vec![0; 16 << 10], vec![0; 16 << 10]);
                loop {
                    let sent = tokio::select! {
                        read = near.read(&mut question) => match read {
                            Ok(1..) if silent.load(Ordering::Relaxed) => std::future::pending().await,
                            Ok(bytes @ 1..) => far.write_all(&question[..bytes]).await,
                            _ => return,
                        },
                        read = far.read(&mut answer) => match read {
                            Ok(bytes @ 1..) => near.write_all(&answer[..bytes]).await,
                            _ => return,
                        },
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_costs_a_bounded_time_and_no_connection_for_ever() {
    let place = Place::postgres().await;
    let silent = Arc::new(AtomicBool::new(false));
    let address = proxy(Arc::clone(&silent)).await;
    let mut url = url::Url::parse(&place.url).unwrap();
    url.set_ip_host(address.ip()).unwrap();
    url.set_port(Some(address.port())).unwrap();
    let options = StoreOptions {
        max_connections: 2,
        statement_timeout: Duration::from_millis(300),
        acquire_timeout: Duration::from_millis(500),
        ..StoreOptions::default()
    };
    in_flight(place.store.as_ref(), "before").await;
    let store = patiently(async || open(url.as_str(), &options).await).await;
    // A connection stands when the server falls silent.
    patiently(async || store.load(&[id("before")]).await).await;
    silent.store(true, Ordering::Relaxed);
    for _ in 0..4 {
        let begin = tokio::time::Instant::now();
        let error = store.load(&[id("before")]).await.expect_err("nobody answers");
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error:?}");
        at_most("the refusal", begin.elapsed(), Duration::from_secs(4), Duration::from_secs(12));
    }
    silent.store(false, Ordering::Relaxed);
    let found = patiently(async || store.load(&[id("before")]).await).await;
    assert!(matches!(found.as_slice(), [Loaded::Order(_)]));
}
