//! Questions: what a reference is told about itself, and what stands in the way of the truth.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::super::class::FaultClass;
use super::super::dice::Dice;
use super::super::profile::{Queries, Spell};
use super::super::reply::{Reply, Word};
use super::super::stats::count;
use super::{Engine, Life, Reference, lock_shard};
use crate::domain::ClientRef;

/// A question, and how its reference stands.
#[derive(Debug)]
struct Asked {
    nth: u32,
    life: Life,
    since_submit: Option<Duration>,
    since_question: Option<Duration>,
    since_end: Option<Duration>,
    /// This is sure to strike now.
    planned: Option<FaultClass>,
    /// Something is sure to strike, now or later, or a script decided: chance stays out of it.
    is_planned: bool,
    is_unclear: bool,
}

impl Asked {
    fn of(reference: &mut Reference) -> Self {
        let now = Instant::now();
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        reference.queries = reference.queries.saturating_add(1);
        let mut asked = Self {
            nth: reference.queries,
            life: reference.life,
            since_submit: since(reference.submitted_at),
            since_question: since(reference.asked_at),
            since_end: since(reference.ended_at),
            planned: None,
            is_planned: false,
            is_unclear: false,
        };
        reference.asked_at = Some(now);
        if let Some(rest) = &mut reference.rest {
            asked.is_planned = rest.query.is_some() || rest.is_scripted;
            let is_over = !matches!(reference.life, Life::Nothing | Life::InProgress);
            asked.planned = rest.query.take_if(|class| *class != FaultClass::Stale || is_over);
            asked.is_unclear = rest.unclear_until.is_some_and(|until| now < until || !rest.was_unclear);
            rest.was_unclear |= asked.is_unclear;
        }
        asked
    }
}

impl Engine {
    pub(in super::super) async fn query(&self, client_ref: &str) -> Reply {
        let arrived = Instant::now();
        let asked = lock_shard(&self.shards, client_ref).get_mut(client_ref).map(Asked::of);
        let nth = asked.as_ref().map_or(0, |asked| asked.nth);
        let setup = self.setup();
        sleep_until(arrived + Dice::new(self.seed, "query reply", client_ref, nth).wait(setup.profile.reply)).await;
        let queries = &setup.profile.queries;
        if let Some((class, reply)) = self.trouble(client_ref, nth, asked.as_ref(), queries) {
            self.strike(class, client_ref, &setup);
            return reply;
        }
        match asked.map_or(Life::Nothing, |asked| asked.life) {
            Life::Nothing => {
                count(&self.counts.not_found);
                Reply::not_found(client_ref)
            }
            life @ (Life::InProgress | Life::Refused(_) | Life::Delivered { .. } | Life::Reversed { .. }) => {
                Reply::asked(client_ref, life)
            }
        }
    }

    /// What is answered in place of the truth.
    fn trouble(
        &self,
        client_ref: &str,
        nth: u32,
        asked: Option<&Asked>,
        queries: &Queries,
    ) -> Option<(FaultClass, Reply)> {
        let dice = |purpose| Dice::new(self.seed, purpose, client_ref, nth);
        let planned = asked.and_then(|asked| asked.planned);
        let chance = !asked.is_some_and(|asked| asked.is_planned);
        let strikes = |class, by_chance: bool| planned == Some(class) || chance && by_chance;
        if strikes(FaultClass::QueryOutage, dice("query outage").hits(queries.outage.rate)) {
            self.windows.open_query_outage(dice("query outage lasts").wait(queries.outage.lasts));
            return Some((FaultClass::QueryOutage, Reply::error(503)));
        }
        if chance && self.windows.queries_are_down() {
            return Some((FaultClass::QueryOutage, Reply::error(503)));
        }
        if strikes(FaultClass::QueryFailing, dice("query").hits(queries.failing)) {
            count(&self.counts.errors_500);
            return Some((FaultClass::QueryFailing, Reply::error(500)));
        }
        let asked = asked?;
        if let Some(wait) = missing(queries.not_before, asked.since_submit) {
            return Some((FaultClass::TooEarly, Reply::Say(Word::NotNow { code: "too_early", wait })));
        }
        if let Some(wait) = missing(queries.min_interval, asked.since_question) {
            return Some((FaultClass::TooOften, Reply::Say(Word::NotNow { code: "too_often", wait })));
        }
        if asked.since_submit.is_some_and(|since| queries.retention.is_some_and(|most| since > most)) {
            return Some((FaultClass::Forgotten, Reply::not_found(client_ref)));
        }
        // Of the reference, not of the question: it lasts over several of them.
        let lasts = |purpose, spell: Spell, since: Option<Duration>| {
            let mut dice = Dice::new(self.seed, purpose, client_ref, 0);
            dice.hits(spell.rate) && since.is_some_and(|since| since < dice.wait(spell.lasts))
        };
        if strikes(FaultClass::NotFoundLag, lasts("lag", queries.not_found_lag, asked.since_submit)) {
            return Some((FaultClass::NotFoundLag, Reply::not_found(client_ref)));
        }
        if asked.is_unclear {
            return Some((FaultClass::Unclear, Reply::Say(Word::Unclear(ClientRef::from_stored(client_ref)))));
        }
        if strikes(FaultClass::Stale, lasts("stale", queries.stale, asked.since_end)) {
            return Some((FaultClass::Stale, Reply::asked(client_ref, Life::InProgress)));
        }
        None
    }
}

/// How much of a least time is still missing.
fn missing(least: Option<Duration>, since: Option<Duration>) -> Option<Duration> {
    let wait = least?.checked_sub(since?)?;
    (!wait.is_zero()).then_some(wait)
}
