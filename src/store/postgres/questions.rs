//! Holds on orders that are asked about.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::postgres::PgConnection;

use super::PostgresStore;
use super::error::is_about_a_lock;
use super::locks::{Locks, Work, bearing};
use crate::domain::Timestamp;
use crate::ports::{Haste, Held, Hold, Hurried, Questions, StoreError};
use crate::store::row::version_column;

#[async_trait]
impl Questions for PostgresStore {
    async fn hold(&self, batch: &[Hold], now: Timestamp) -> Result<Vec<Held>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // In the order of the ids, as every batch locks its rows.
        let mut sorted: Vec<&Hold> = batch.iter().collect();
        sorted.sort_by(|a, b| a.order_id.cmp(&b.order_id));
        let asked = Columns::of(&sorted);
        let answers = match self.hot.run("hold", move |on| Box::pin(hold(on, asked, now))).await {
            Err(error) if is_about_a_lock(&error) => {
                let locked = self.locked("hold", Columns::of(&sorted).order_id).await?;
                if locked.is_empty() {
                    return Err(error);
                }
                // Of a row that somebody holds it is not known who may ask about it.
                sorted.retain(|hold| !locked.contains(hold.order_id.as_str()));
                let asked = Columns::of(&sorted);
                self.hot.run("hold", move |on| Box::pin(hold(on, asked, now))).await?
            }
            answers => answers?,
        };
        let answers: HashMap<String, Held> = answers.into_iter().collect();
        Ok(batch.iter().map(|hold| answers.get(hold.order_id.as_str()).copied().unwrap_or(UNKNOWN)).collect())
    }

    async fn hasten(&self, batch: &[Haste]) -> Result<Vec<Hurried>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut sorted: Vec<&Haste> = batch.iter().collect();
        sorted.sort_by(|a, b| a.order_id.cmp(&b.order_id));
        let mut locked = HashSet::new();
        let prompt = |hastes: &[&Haste]| self.hot.run("hasten", bearing(Locks::HardlyBorne, hasten(hastes)));
        let answers = match prompt(&sorted).await {
            Err(error) if is_about_a_lock(&error) => {
                let ids = sorted.iter().map(|haste| haste.order_id.as_str().to_owned()).collect();
                locked = self.locked("hasten", ids).await?;
                if locked.is_empty() {
                    return Err(error);
                }
                sorted.retain(|haste| !locked.contains(haste.order_id.as_str()));
                prompt(&sorted).await?
            }
            answers => answers?,
        };
        let answers: HashMap<String, Timestamp> = answers.into_iter().collect();
        let answer = |haste: &Haste| match answers.get(haste.order_id.as_str()) {
            Some(at) => Hurried::From(*at),
            None if locked.contains(haste.order_id.as_str()) => Hurried::Locked,
            None => Hurried::Overtaken,
        };
        Ok(batch.iter().map(answer).collect())
    }
}

/// Of an order that is not there, or whose row somebody holds.
const UNKNOWN: Held = Held::Taken { until: None, asked_version: None };

struct Columns {
    order_id: Vec<String>,
    asked_version: Vec<i32>,
    replaces: Vec<Option<Timestamp>>,
    until: Vec<Timestamp>,
}

impl Columns {
    fn of(holds: &[&Hold]) -> Self {
        Self {
            order_id: holds.iter().map(|hold| hold.order_id.as_str().to_owned()).collect(),
            asked_version: holds.iter().map(|hold| version_column(hold.asked_version)).collect(),
            replaces: holds.iter().map(|hold| hold.replaces).collect(),
            until: holds.iter().map(|hold| hold.until).collect(),
        }
    }
}

async fn hold(on: &mut PgConnection, asked: Columns, now: Timestamp) -> Result<Vec<(String, Held)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        with asked as (
            select * from unnest($1::text[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
                as a (order_id, asked_version, replaces, until)
        ), held as (
            update orders o set held_until = a.until, held_version = a.asked_version
            from asked a
            where o.order_id = a.order_id and o.order_id = any ($1) and o.asked_version = a.asked_version
              and (o.held_until is null or o.held_until <= $5 or o.held_until = a.replaces)
            returning o.order_id
        )
        -- What others hold is as it was before this statement: whoever lost to one that runs beside
        -- it does not see that one's moment.
        select o.order_id, o.held_until, o.held_version, (select true from held h where h.order_id = o.order_id) is true as "granted!"
        from orders o
        where o.order_id = any ($1)
        "#,
        &asked.order_id,
        &asked.asked_version,
        &asked.replaces as &[Option<Timestamp>],
        &asked.until,
        now,
    )
    .fetch_all(on)
    .await?;
    let answers = rows.into_iter().map(|row| {
        let until = row.held_until.filter(|until| *until > now);
        let asked_version =
            row.held_version.filter(|_| until.is_some()).and_then(|version| u32::try_from(version).ok());
        (row.order_id, if row.granted { Held::Granted } else { Held::Taken { until, asked_version } })
    });
    Ok(answers.collect())
}

/// Whoever was asked about has a hold, over or not. It is read as it was before this statement.
fn hasten(hastes: &[&Haste]) -> impl Work<Vec<(String, Timestamp)>> + use<> {
    let order_id: Vec<String> = hastes.iter().map(|haste| haste.order_id.as_str().to_owned()).collect();
    let asked_version: Vec<i32> = hastes.iter().map(|haste| version_column(haste.asked_version)).collect();
    let first: Vec<Timestamp> = hastes.iter().map(|haste| haste.to.first).collect();
    let again: Vec<Timestamp> = hastes.iter().map(|haste| haste.to.again).collect();
    move |on| {
        Box::pin(async move {
            let rows = sqlx::query!(
                r#"
                    with asked as (
                        select * from unnest($1::text[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
                            as a (order_id, asked_version, first, again)
                    ), hastened as (
                        update orders o set held_until = a.again
                        from asked a
                        where o.order_id = a.order_id and o.order_id = any ($1) and o.asked_version = a.asked_version
                          and o.held_until > a.again
                    )
                    select o.order_id, case when o.held_until is null then a.first
                                            else least(greatest(o.held_until, a.first), a.again) end as "at!"
                    from orders o join asked a on a.order_id = o.order_id
                    where o.order_id = any ($1) and o.asked_version = a.asked_version
                    "#,
                &order_id,
                &asked_version,
                &first,
                &again,
            )
            .fetch_all(on)
            .await?;
            Ok(rows.into_iter().map(|row| (row.order_id, row.at)).collect())
        })
    }
}
