//! Replay: dead letters go back to the topics from which they came, through the same door as everything else.
//!
//! A letter is judged first, and marked before it is sent and again once it is acknowledged. What a crash leaves between
//! the two marks may be in its topic or not: after [`ABANDONED_AFTER`] it is sent again, which is harmless, since every
//! reader of these topics takes a second copy for one (`docs/adr/0011`).

mod judge;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{OrderId, Timestamp, minus};
use crate::faults;
use crate::ports::{
    InRecord, LetterKey, LetterMark, LetterMarks, LetterState, Loaded, OrderStore, OutRecord, PublishError, Publisher,
    StoreError,
};

use super::dead_letter::DeadLetter;
use super::patience;

pub use judge::{Fit, Readers};

/// Letters that are sent together.
pub const BATCH_MAX: usize = 200;
/// A replay that was begun so long ago and has not ended will not: longer than a record may wait for its acknowledgement.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(60);
/// A database that has not answered after this long is away.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A record of the dead letters' topic.
#[derive(Debug, Clone)]
pub struct Found {
    /// As it stands there.
    pub record: InRecord,
    /// What its headers say; nothing, where it is no dead letter of ours.
    pub letter: Option<DeadLetter>,
    /// Under what its marks stand.
    pub key: LetterKey,
}

impl Found {
    /// Reads a record.
    pub fn of(record: InRecord) -> Self {
        let letter = DeadLetter::read(&record);
        let stamp = |at: Option<Timestamp>| at.map_or(-1, |at| at.timestamp_millis());
        let key = match &letter {
            Some(letter) => LetterKey {
                topic: letter.topic.clone(),
                partition: letter.partition,
                offset: letter.offset,
                stamp: stamp(letter.timestamp),
            },
            None => LetterKey {
                topic: record.topic.to_string(),
                partition: record.partition,
                offset: record.offset,
                stamp: stamp(record.timestamp),
            },
        };
        Self { record, letter, key }
    }
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is back in its topic. `again`: a run that died may have sent it before.
    Replayed {
        /// A run that died may have sent it before.
        again: bool,
    },
    /// It can be used; nothing was done, as asked.
    Usable {
        /// A run that died may have sent it before.
        again: bool,
    },
    /// It was dealt with before.
    Done(LetterMark),
    /// The same record stands there a second time, and is dealt with where it stands first.
    Twin,
    /// Another run is at it.
    UnderWay(LetterMark),
    /// It is still wrong, and stays where it is.
    StillWrong(Unfit),
    /// Its topic did not take it, and it stays where it is.
    NotTaken(PublishError),
    /// It was not acknowledged, and may be there: after [`ABANDONED_AFTER`] it can be sent again.
    Unsure(PublishError),
}

/// A letter, and what became of it.
#[derive(Debug)]
pub struct Told {
    /// The letter.
    pub found: Found,
    /// Whose it is, where it could be read.
    pub fit: Option<Fit>,
    /// What became of it.
    pub outcome: Outcome,
}

/// One run of the command.
#[derive(Debug)]
pub struct Replay {
    /// What is done with.
    pub marks: Arc<dyn LetterMarks>,
    /// The orders.
    pub orders: Arc<dyn OrderStore>,
    /// To the topics.
    pub publisher: Arc<dyn Publisher>,
    /// Who reads what.
    pub readers: Readers,
    /// This run.
    pub run: Uuid,
    /// Who replays.
    pub by: String,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// A letter that is to be sent, by its place in the batch.
struct Chosen {
    place: usize,
    fit: Fit,
    again: bool,
}

impl Replay {
    /// Takes at most [`BATCH_MAX`] letters; answers in their order.
    pub async fn take(&self, batch: Vec<Found>) -> Result<Vec<Told>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let now = patiently("now", || self.orders.now()).await?;
        let keys: Vec<LetterKey> = batch.iter().map(|found| found.key.clone()).collect();
        let marks = patiently("letter_marks", || self.marks.letter_marks(&keys)).await?;
        let mut outcomes: HashMap<usize, Outcome> = HashMap::new();
        let (mut chosen, mut seen) = (Vec::new(), HashSet::new());
        for (place, (found, mark)) in batch.iter().zip(marks).enumerate() {
            match self.choose(found, mark, seen.insert(&found.key), now) {
                Ok((fit, again)) => chosen.push(Chosen { place, fit, again }),
                Err(outcome) => drop(outcomes.insert(place, outcome)),
            }
        }
        self.drop_orphans(&mut chosen, &mut outcomes).await?;
        let sent = if self.dry_run {
            chosen.iter().map(|one| Outcome::Usable { again: one.again }).collect()
        } else {
            self.send(&batch, &chosen, now).await?
        };
        let mut fits: HashMap<usize, Fit> = HashMap::new();
        for (one, outcome) in chosen.into_iter().zip(sent) {
            outcomes.insert(one.place, outcome);
            fits.insert(one.place, one.fit);
        }
        let told = |(place, found)| {
            let outcome = outcomes.remove(&place).unwrap_or(Outcome::Twin);
            Told { found, fit: fits.remove(&place), outcome }
        };
        Ok(batch.into_iter().enumerate().map(told).collect())
    }

    /// Whether a letter is to be sent, and whether it may have been before; or what is to be said of it.
    fn choose(
        &self,
        found: &Found,
        mark: Option<LetterMark>,
        is_first: bool,
        now: Timestamp,
    ) -> Result<(Fit, bool), Outcome> {
        if !is_first {
            return Err(Outcome::Twin);
        }
        let again = mark.is_some();
        match mark {
            Some(mark) if mark.state.is_done() => return Err(Outcome::Done(mark)),
            Some(mark) if mark.at >= minus(now, ABANDONED_AFTER) => return Err(Outcome::UnderWay(mark)),
            Some(_) | None => {}
        }
        self.readers.judge(found, now).map(|fit| (fit, again)).map_err(Outcome::StillWrong)
    }

    /// Leaves out what would wait for its order in vain once more.
    async fn drop_orphans(
        &self,
        chosen: &mut Vec<Chosen>,
        outcomes: &mut HashMap<usize, Outcome>,
    ) -> Result<(), StoreError> {
        let wanted: Vec<OrderId> =
            chosen.iter().filter(|one| one.fit.needs_its_order).map(|one| one.fit.order_id.clone()).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let rows = patiently("load", || self.orders.load(&wanted)).await?;
        let absent: HashSet<&OrderId> =
            wanted.iter().zip(&rows).filter(|(_, row)| **row == Loaded::Absent).map(|(id, _)| id).collect();
        chosen.retain(|one| {
            let is_orphan = one.fit.needs_its_order && absent.contains(&one.fit.order_id);
            if is_orphan {
                let detail =
                    "/order_id: there is still no order of this id, and none within 15 min would make it one again";
                outcomes.insert(one.place, Outcome::StillWrong(Unfit::new(DeadLetterReason::Orphan, detail)));
            }
            !is_orphan
        });
        Ok(())
    }

    /// Marks, sends, and marks again; answers in the order of `chosen`.
    async fn send(&self, batch: &[Found], chosen: &[Chosen], now: Timestamp) -> Result<Vec<Outcome>, StoreError> {
        let found: Vec<&Found> = chosen.iter().filter_map(|one| batch.get(one.place)).collect();
        let keys: Vec<LetterKey> = found.iter().map(|found| found.key.clone()).collect();
        let mark = LetterMark {
            state: LetterState::Replaying,
            by: self.by.clone(),
            why: String::new(),
            at: now,
            run: self.run,
        };
        let abandoned = minus(now, ABANDONED_AFTER);
        let ours = patiently("mark_letters", || self.marks.mark_letters(&keys, &mark, abandoned)).await?;
        faults::point("replay::marked");
        let records: Vec<OutRecord> =
            found.iter().zip(&ours).filter(|(_, ours)| **ours).filter_map(|(found, _)| outgoing(found)).collect();
        let mut results = self.publisher.publish(&records).await.into_iter();
        faults::point("replay::published");
        let (mut done, mut failed, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for ((one, key), ours) in chosen.iter().zip(keys).zip(ours) {
            if !ours {
                outcomes.push(Outcome::UnderWay(mark.clone()));
                continue;
            }
            let unanswered = || Err(PublishError::Unacknowledged("it was not answered".to_owned()));
            outcomes.push(match results.next().unwrap_or_else(unanswered) {
                Ok(()) => {
                    done.push(key);
                    Outcome::Replayed { again: one.again }
                }
                Err(error @ PublishError::Unacknowledged(_)) => Outcome::Unsure(error),
                Err(error @ (PublishError::NoSuchTopic(_) | PublishError::Refused(_))) => {
                    failed.push(key);
                    Outcome::NotTaken(error)
                }
            });
        }
        if !done.is_empty() {
            let at = patiently("now", || self.orders.now()).await?;
            patiently("replays_done", || self.marks.replays_done(&done, self.run, at)).await?;
        }
        if !failed.is_empty() {
            patiently("replays_failed", || self.marks.replays_failed(&failed, self.run)).await?;
        }
        Ok(outcomes)
    }
}

/// The record as it came, for the topic that it came from.
fn outgoing(found: &Found) -> Option<OutRecord> {
    let letter = found.letter.as_ref()?;
    let InRecord { topic, headers, key, value, .. } = judge::original(&found.record, letter);
    Some(OutRecord { topic, key, value, headers })
}

/// Asks the store until it answers, for a while.
async fn patiently<T, F, Fut>(operation: &'static str, attempt: F) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let stop = tokio_util::sync::CancellationToken::new();
    let asking = patience::stored(operation, &stop, attempt);
    tokio::pin!(asking);
    tokio::select! {
        biased; // An answer that is there counts.
        done = &mut asking => return done,
        () = tokio::time::sleep(ANSWERS_WITHIN) => {}
    }
    stop.cancel();
    asking.await
}
