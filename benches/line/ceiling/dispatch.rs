//! The second and third step: the row says that a request is about to leave, then that it has
//! succeeded. The provider answers at once.

use std::sync::Arc;

use anyhow::Result;
use recharged::clock::SystemClock;
use recharged::domain::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::records::Batch;
use super::{Ceiling, SLA, statements};
use crate::common::scratch::LANE;

#[derive(Deserialize)]
struct Command<'a> {
    order_id: &'a str,
    deadline_at: i64,
}

/// What both steps write alike. The orders' other columns follow from their ids and deadlines, so
/// they need not be read.
struct Orders<'a> {
    ids: Vec<&'a str>,
    deadlines: Vec<Timestamp>,
    payment_ids: Vec<String>,
    client_refs: Vec<String>,
    claims: Vec<Uuid>,
    claimed_at: Timestamp,
}

pub(super) async fn claim_and_settle(ceiling: Arc<Ceiling>, batch: Batch) -> Result<()> {
    let mut commands = batch.values().map(serde_json::from_slice).collect::<Result<Vec<Command<'_>>, _>>()?;
    // Two batches never hold the same order, but the store sorts its batches too.
    commands.sort_unstable_by_key(|command| command.order_id);
    let orders = Orders {
        ids: commands.iter().map(|command| command.order_id).collect(),
        deadlines: commands.iter().filter_map(|c| Timestamp::from_timestamp_millis(c.deadline_at)).collect(),
        payment_ids: commands.iter().map(|command| format!("pay-{}", command.order_id)).collect(),
        client_refs: commands.iter().map(|command| format!("{}-1", command.order_id)).collect(),
        claims: commands.iter().map(|_| Uuid::new_v4()).collect(),
        claimed_at: SystemClock::local(),
    };
    apply(&ceiling, &orders, &Step::Claim).await?;
    apply(&ceiling, &orders, &Step::Settle { at: SystemClock::local() }).await
}

enum Step {
    Claim,
    Settle { at: Timestamp },
}

async fn apply(ceiling: &Ceiling, orders: &Orders<'_>, step: &Step) -> Result<()> {
    let rows = orders.ids.len();
    let (from, to, state, attempt_state, kind, closed_at) = match step {
        Step::Claim => (1_i32, 2_i32, "in_flight", "sent", "submitted", None),
        Step::Settle { at } => (2, 3, "succeeded", "succeeded", "succeeded", Some(*at)),
    };
    let provider_refs = orders.client_refs.iter().map(|reference| match step {
        Step::Claim => None,
        Step::Settle { .. } => Some(format!("p-{reference}")),
    });
    let at = closed_at.unwrap_or(orders.claimed_at).timestamp_micros();
    let each = orders.ids.iter().zip(&orders.deadlines).zip(&orders.client_refs).zip(&orders.claims);
    let entries = each.map(|(((id, deadline), reference), claim)| {
        let deadline = deadline.timestamp_micros();
        let start = format!(
            r#"{{"id":"{id}","v":{to},"k":"{kind}","at":{at},"st":"{state}","dl":{deadline},"a":1,"p":"{LANE}""#
        );
        match step {
            Step::Claim => format!(r#"{start},"n":{{"s":"sent","cl":"{claim}"}}}}"#),
            Step::Settle { .. } => format!(r#"{start},"sla":"met","n":{{"s":"succeeded","pr":"p-{reference}"}}}}"#),
        }
    });
    let (no_text, no_time) = (vec![None::<&str>; rows], vec![None::<Timestamp>; rows]);
    let (zeros, ones) = (vec![0_i32; rows], vec![1_i32; rows]);
    #[expect(clippy::disallowed_methods, reason = "the store's own statement, checked there")]
    sqlx::query(*statements::APPLY)
        .bind(&orders.ids)
        .bind(vec![from; rows])
        .bind(vec![to; rows])
        .bind(vec![state; rows])
        .bind(&ones) // asked_version
        .bind(orders.deadlines.iter().map(|deadline| *deadline - SLA).collect::<Vec<_>>())
        .bind(&orders.payment_ids)
        .bind(&orders.deadlines)
        .bind(vec![LANE; rows])
        .bind(&ones) // attempt
        .bind(vec![attempt_state; rows])
        .bind(&orders.client_refs)
        .bind(&orders.claims)
        .bind(vec![orders.claimed_at; rows])
        .bind(provider_refs.collect::<Vec<_>>())
        .bind(&no_text) // inquiry
        .bind(&zeros)
        .bind(&no_time) // wake_at
        .bind(&no_text) // reason
        .bind(vec![closed_at.map(|_| "met"); rows])
        .bind(vec![closed_at; rows])
        .bind(vec![false; rows])
        .bind(&zeros)
        .bind(entries.collect::<Vec<_>>())
        .bind(&no_text) // refund_id
        .bind("[]")
        .bind("[]")
        .bind("[]")
        .bind("[]")
        .bind("[]")
        .fetch_all(&ceiling.writers)
        .await?;
    Ok(())
}
