//! Sending at intended times, open loop: what is late goes out at once, and its time stays the intended one.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ports::{Clock, OutRecord, Publisher};

/// Batches on their way to the broker at once.
const UNDER_WAY: usize = 8;
/// Orders in a batch at most.
const BATCH: u64 = 1_000;
/// Records in a batch at most.
const RECORDS: usize = 2_000;
/// How often the pace is looked at.
const TICK: Duration = Duration::from_millis(5);

/// What goes out at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// From the beginning.
    pub after: Duration,
    /// The records, in their order.
    pub records: Vec<OutRecord>,
    /// Whether an order is among them.
    pub is_order: bool,
}

/// What was sold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sold {
    /// Orders that the broker has acknowledged.
    pub acknowledged: u64,
    /// Orders of which that is not known.
    pub unacknowledged: u64,
}

/// Sends `parcels`, which come in the order of their times, until there are no more or until told to stop. `room` tells how many more
/// orders the broker can hold (an embedded one holds little); `on_sold` hears of each acknowledged batch.
pub async fn send(
    parcels: impl Iterator<Item = Parcel>,
    publisher: Arc<dyn Publisher>,
    clock: &dyn Clock,
    room: &(impl Fn() -> u64 + Sync),
    on_sold: &(impl Fn(u64) + Sync),
    stop: &CancellationToken,
) -> Sold {
    let began = clock.since_boot();
    let mut parcels = parcels.peekable();
    let mut under_way = JoinSet::new();
    let mut sold = Sold::default();
    while !stop.is_cancelled() && parcels.peek().is_some() {
        let passed = clock.since_boot().saturating_sub(began);
        let most = if under_way.len() < UNDER_WAY { BATCH.min(room()) } else { 0 };
        let (mut batch, mut orders) = (Vec::new(), 0);
        // What follows an order needs no room: without it the order would never end.
        let may_go = |parcel: &Parcel, orders: u64| parcel.after <= passed && (!parcel.is_order || orders < most);
        while under_way.len() < UNDER_WAY && batch.len() < RECORDS {
            let Some(parcel) = parcels.next_if(|parcel| may_go(parcel, orders)) else { break };
            orders += u64::from(parcel.is_order);
            batch.extend(parcel.records);
        }
        if batch.is_empty() {
            tokio::select! {
                biased; // What is acknowledged makes room.
                Some(done) = under_way.join_next() => count(&done, &mut sold, on_sold),
                () = tokio::time::sleep(TICK) => {}
            }
            continue;
        }
        let publisher = Arc::clone(&publisher);
        under_way.spawn(async move {
            let failed = publisher.publish(&batch).await.iter().filter(|result| result.is_err()).count() as u64;
            (orders.saturating_sub(failed), failed.min(orders))
        });
    }
    while let Some(done) = under_way.join_next().await {
        count(&done, &mut sold, on_sold);
    }
    sold
}

fn count(done: &Result<(u64, u64), tokio::task::JoinError>, sold: &mut Sold, on_sold: &impl Fn(u64)) {
    let Ok((acknowledged, failed)) = done else { return };
    sold.acknowledged += acknowledged;
    sold.unacknowledged += failed;
    on_sold(*acknowledged);
}
