//! The hot path of the Postgres store: insert, claim, settle, in batches, on a database of its own.
//!
//!     DATABASE_URL=postgres://… cargo bench --bench store
//!
//! Prints orders a second, WAL an order, and how many updates stayed heap-only. WAL is counted for
//! the whole server, so nothing else should write there meanwhile. `BENCH_ORDERS`, `BENCH_BATCH`,
//! `BENCH_WRITERS` set the size; `BENCH_SQL` is run on the migrated schema, to compare variants.
#![expect(clippy::print_stdout, clippy::expect_used, clippy::cast_precision_loss, reason = "a benchmark")]

use std::sync::Arc;
use std::time::Instant;

use recharged::ports::Store;
use recharged::store::{StoreOptions, migrate, open};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

#[path = "../tests/it/store/fixture.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod fixture;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    let Ok(server) = std::env::var("DATABASE_URL") else {
        println!("store: skipped, DATABASE_URL is not set: eval \"$(scripts/services up)\"");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&server));
}

async fn run(server: &str) {
    let name = format!("store_bench_{}", uuid::Uuid::new_v4().simple());
    let mut control = PgConnection::connect(server).await.expect("the server answers");
    control.execute(AssertSqlSafe(format!("create database {name}"))).await.expect("makes a database");
    let mut url = url::Url::parse(server).expect("an address");
    url.set_path(&name);
    measure(url.as_str()).await;
    control.execute(AssertSqlSafe(format!("drop database {name} with (force)"))).await.expect("drops it");
}

async fn measure(url: &str) {
    let (orders, batch) = (setting("BENCH_ORDERS", 100_000), setting("BENCH_BATCH", 500));
    let writers = setting("BENCH_WRITERS", 4);
    migrate(url, &StoreOptions::default()).await.expect("migrates");
    let mut control = PgConnection::connect(url).await.expect("connects");
    if let Ok(sql) = std::env::var("BENCH_SQL") {
        control.execute(AssertSqlSafe(sql)).await.expect("the variant's statements run");
    }
    let store = open(url, &StoreOptions::default()).await.expect("opens");
    control.execute("checkpoint").await.expect("a checkpoint");
    let before = wal(&mut control).await;
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| tokio::spawn(work(Arc::clone(&store), writer, orders / writers / batch, batch)))
        .collect();
    for task in tasks {
        task.await.expect("a writer ends well");
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = wal(&mut control).await;
    let done = (orders / writers / batch * batch * writers) as f64;
    drop(store);
    // Statistics come a moment after a connection ends.
    let (updates, hot) = loop {
        let row = control
            .fetch_one("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'orders'")
            .await
            .expect("statistics");
        let (updates, hot): (i64, i64) = (row.get(0), row.get(1));
        if updates as f64 >= done * 2.0 || begin.elapsed().as_secs_f64() > seconds + 15.0 {
            break (updates, hot);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    println!(
        "store: orders={done} batch={batch} writers={writers} orders_per_second={:.0} wal_bytes_per_order={:.0} \
         of_that_page_images={:.0} hot_percent={:.1}",
        done / seconds,
        (after.0 - before.0) / done,
        (after.1 - before.1) * 8192.0 / done,
        100.0 * hot as f64 / updates.max(1) as f64,
    );
}

/// WAL bytes, and full page images.
async fn wal(control: &mut PgConnection) -> (f64, f64) {
    let row = control
        .fetch_one(
            "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, wal_fpi::float8 from pg_stat_wal",
        )
        .await
        .expect("WAL statistics");
    (row.get(0), row.get(1))
}

async fn work(store: Arc<dyn Store>, writer: usize, rounds: usize, batch: usize) {
    for round in 0..rounds {
        let now = store.now().await.expect("the time");
        let arrived: Vec<_> = (0..batch)
            .map(|n| {
                let order_id = format!("ord-{:016x}", spread(writer, round * batch + n));
                fixture::arrive(fixture::new_order(&order_id, now), now)
            })
            .collect();
        store.insert(&arrived).await.expect("inserts");
        let claimed: Vec<_> = arrived.iter().map(|arrived| fixture::claim(&arrived.after, now)).collect();
        store.apply(&claimed).await.expect("claims");
        let done: Vec<_> = claimed.iter().map(|claimed| fixture::succeed(&claimed.after, now)).collect();
        store.apply(&done).await.expect("settles");
    }
}

/// Ids that fall anywhere in the index, as those of a shop do.
fn spread(writer: usize, number: usize) -> u64 {
    let seed = (writer as u64) << 40 | number as u64;
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}
