//! Replaying and discarding.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::list::{reason, state};
use super::read::Letters;
use super::{Desk, Place, Which};
use crate::app::broker_trouble;
use crate::cli::orders::{time, trouble};
use crate::cli::output::{CliError, Exit, Output};
use crate::domain::{Timestamp, minus};
use crate::kafka::{Producer, ProducerOptions};
use crate::ports::{LetterKey, LetterMark, LetterState, Publisher};
use crate::roles::replay::{ABANDONED_AFTER, Found, Outcome, Replay, Told};

/// A mark is kept for so much longer than any letter that it can be of: clocks differ.
const KEPT_LONGER: std::time::Duration = std::time::Duration::from_hours(24);

/// What became of one letter, as programs read it.
#[derive(Serialize)]
struct Line {
    place: String,
    partition: i32,
    offset: i64,
    outcome: &'static str,
    order_id: Option<String>,
    /// Why it was not done, or what will come of it.
    told: Option<String>,
}

/// What became of all.
#[derive(Debug, Default, Serialize)]
struct Summary {
    dry_run: bool,
    /// Replayed, discarded; or could be.
    done: u64,
    /// Dealt with before.
    already: u64,
    /// Left where they are.
    left: u64,
    #[serde(skip)]
    verb: &'static str,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would be " } else { "" };
        write!(
            f,
            "{} {would}{}, {} were dealt with before, {} stay as they are",
            self.done, self.verb, self.already, self.left
        )
    }
}

impl Summary {
    fn tell(&self, output: Output) -> Result<(), CliError> {
        output.result(self)?;
        if self.left > 0 { Err(CliError::silent(Exit::Failed)) } else { Ok(()) }
    }
}

/// Hands on what is meant, a few at a time.
enum Source<'a> {
    Places(std::slice::Iter<'a, Place>, &'a Desk),
    /// With the oldest that was met.
    All(Letters<'a>, &'a Which, Option<Timestamp>),
}

impl<'a> Source<'a> {
    fn of(desk: &'a Desk, which: &'a Which) -> Self {
        if which.place.is_empty() {
            Self::All(Letters::all(desk), which, None)
        } else {
            Self::Places(which.place.iter(), desk)
        }
    }

    /// The next few; nothing at the end.
    async fn next(&mut self, output: Output) -> Result<Option<Vec<Found>>, CliError> {
        match self {
            Self::Places(places, desk) => match places.next() {
                Some(place) => Ok(Some(vec![desk.letter(*place).await?])),
                None => Ok(None),
            },
            Self::All(letters, which, oldest) => {
                let mut batch = letters.next(output).await?;
                if batch.is_empty() {
                    return Ok(None);
                }
                let met = batch.iter().filter_map(|found| found.record.timestamp).min();
                *oldest = [*oldest, met].into_iter().flatten().min();
                batch.retain(|found| which.means(found));
                Ok(Some(batch))
            }
        }
    }

    /// Removes the marks of letters that are no longer there: they were made before the oldest that is.
    async fn clean(self, desk: &Desk) -> Result<(), CliError> {
        if let Self::All(_, _, Some(oldest)) = self {
            desk.store.forget_letters(minus(oldest, KEPT_LONGER)).await.map_err(|error| trouble(&error))?;
        }
        Ok(())
    }
}

pub(super) async fn replay(
    desk: &Desk,
    which: &Which,
    by: String,
    dry_run: bool,
    output: Output,
) -> Result<(), CliError> {
    let producer =
        Producer::new(&desk.kafka, ProducerOptions::default()).map_err(|error| broker_trouble(&desk.config, &error))?;
    let publisher: Arc<dyn Publisher> = Arc::new(producer);
    let replay = Replay {
        marks: desk.store.clone(),
        orders: desk.store.clone(),
        publisher,
        readers: desk.readers()?,
        run: Uuid::new_v4(),
        by,
        dry_run,
    };
    let mut source = Source::of(desk, which);
    let mut summary = Summary { dry_run, verb: "replayed", ..Summary::default() };
    while let Some(batch) = source.next(output).await? {
        for told in replay.take(batch).await.map_err(|error| trouble(&error))? {
            tell(&told, which, &mut summary, output)?;
        }
    }
    if !dry_run {
        source.clean(desk).await?;
    }
    summary.tell(output)
}

/// Says what became of a letter, and counts it.
fn tell(told: &Told, which: &Which, summary: &mut Summary, output: Output) -> Result<(), CliError> {
    const AGAIN: &str = "a run that died may have sent it before: a second copy does nothing";
    let note = || told.fit.as_ref().and_then(|fit| fit.note).map(str::to_owned);
    let before = |again: &bool| if *again { Some(AGAIN.to_owned()) } else { note() };
    let (count, outcome, words) = match &told.outcome {
        Outcome::Replayed { again } => (&mut summary.done, "replayed", before(again)),
        Outcome::Usable { again } => (&mut summary.done, "would_replay", before(again)),
        Outcome::Done(mark) => (&mut summary.already, mark.state.as_str(), Some(decided(mark))),
        Outcome::Twin => (&mut summary.already, "twin", Some("the same record stands there twice".to_owned())),
        Outcome::StillWrong(unfit) => (&mut summary.left, "still_wrong", Some(unfit.to_string())),
        Outcome::NotTaken(error) => (&mut summary.left, "not_taken", Some(error.to_string())),
        Outcome::Unsure(error) => (&mut summary.left, "unsure", Some(format!("{error}; {}", try_again()))),
        Outcome::UnderWay(mark) => {
            (&mut summary.left, "under_way", Some(format!("another run, by {}, is at it; {}", mark.by, try_again())))
        }
    };
    *count += 1;
    let is_done_before = matches!(told.outcome, Outcome::Done(_) | Outcome::Twin);
    // Of those that were found by looking through all, what was dealt with before is no news.
    if is_done_before && which.place.is_empty() {
        return Ok(());
    }
    let order_id = told.fit.as_ref().map(|fit| fit.order_id.to_string());
    line(&told.found, outcome, order_id, words, output)
}

fn try_again() -> String {
    format!("run this again after {} s", ABANDONED_AFTER.as_secs())
}

fn decided(mark: &LetterMark) -> String {
    let why = if mark.why.is_empty() { String::new() } else { format!(": {}", mark.why) };
    format!("at {} by {}{why}", time(mark.at), mark.by)
}

fn line(
    found: &Found,
    outcome: &'static str,
    order_id: Option<String>,
    told: Option<String>,
    output: Output,
) -> Result<(), CliError> {
    let place = Place::of(found);
    if output.json {
        let (partition, offset) = (place.partition, place.offset);
        return output.object(&Line { place: place.to_string(), partition, offset, outcome, order_id, told });
    }
    let whose = order_id.map_or_else(|| "-".to_owned(), |id| format!("order {id}"));
    let told = told.map_or(String::new(), |told| format!("  {told}"));
    output.line(format_args!("{:<14} {:<16} {outcome:<12} {whose}{told}", place.to_string(), reason(found)))
}

/// What a person decided about letters that are not to be used.
pub(super) struct Ruling {
    pub(super) why: String,
    pub(super) by: String,
    pub(super) dry_run: bool,
}

pub(super) async fn discard(desk: &Desk, which: &Which, ruling: Ruling, output: Output) -> Result<(), CliError> {
    let Ruling { why, by, dry_run } = ruling;
    let at = desk.store.now().await.map_err(|error| trouble(&error))?;
    let mut mark = LetterMark { state: LetterState::Discarded, by, why, at, run: Uuid::new_v4() };
    let mut source = Source::of(desk, which);
    let mut summary = Summary { dry_run, verb: "discarded", ..Summary::default() };
    while let Some(batch) = source.next(output).await? {
        mark.at = desk.store.now().await.map_err(|error| trouble(&error))?;
        let before = desk.marks(&batch).await?;
        let abandoned = minus(mark.at, ABANDONED_AFTER);
        let open: Vec<&Found> =
            batch.iter().zip(&before).filter(|(_, mark)| is_open(mark.as_ref())).map(|it| it.0).collect();
        let keys: Vec<LetterKey> = open.iter().map(|found| found.key.clone()).collect();
        let stands = if dry_run {
            let can = |mark: &Option<LetterMark>| mark.as_ref().is_none_or(|mark| mark.at < abandoned);
            before.iter().filter(|mark| is_open(mark.as_ref())).map(can).collect()
        } else {
            desk.store.mark_letters(&keys, &mark, abandoned).await.map_err(|error| trouble(&error))?
        };
        let mut stands = stands.into_iter();
        for (found, before) in batch.iter().zip(&before) {
            if !is_open(before.as_ref()) {
                summary.already += 1;
                if !which.place.is_empty() {
                    line(found, state(before.as_ref()), None, before.as_ref().map(decided), output)?;
                }
            } else if stands.next() == Some(true) {
                summary.done += 1;
                let unsure = before.as_ref().map(|_| "a replay that died may have sent it before".to_owned());
                line(found, if dry_run { "would_discard" } else { "discarded" }, None, unsure, output)?;
            } else {
                summary.left += 1;
                line(found, "under_way", None, Some(format!("a replay is at it; {}", try_again())), output)?;
            }
        }
    }
    if !dry_run {
        source.clean(desk).await?;
    }
    summary.tell(output)
}

fn is_open(mark: Option<&LetterMark>) -> bool {
    !mark.is_some_and(|mark| mark.state.is_done())
}
