//! What lies among the dead letters: by reason, or each one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::read::Letters;
use super::value::shown;
use super::{Desk, Place, is_of};
use crate::cli::orders::{time, trouble};
use crate::cli::output::{CliError, Output};
use crate::domain::inbound::DeadLetterReason;
use crate::domain::{Timestamp, minus};
use crate::ports::{LetterMark, LetterState};
use crate::roles::replay::Found;

/// What stands in place of a reason where a record is no dead letter of ours.
const FOREIGN: &str = "foreign";
/// Topics of one group that are named; others' records may name any number.
const TOPICS_MAX: usize = 20;

/// Which letters to list.
pub(super) struct Wanted {
    pub(super) reasons: Vec<DeadLetterReason>,
    pub(super) since: Option<Duration>,
    pub(super) each: bool,
    pub(super) done: bool,
    pub(super) limit: u64,
}

impl Wanted {
    fn means(&self, found: &Found, mark: Option<&LetterMark>, not_before: Option<Timestamp>) -> bool {
        (self.done || !mark.is_some_and(|mark| mark.state.is_done()))
            && (self.reasons.is_empty() || is_of(found, &self.reasons))
            && not_before.is_none_or(|limit| first_seen(found).is_some_and(|seen| seen >= limit))
    }
}

pub(super) async fn run(desk: &Desk, wanted: &Wanted, output: Output) -> Result<(), CliError> {
    let now = desk.store.now().await.map_err(|error| trouble(&error))?;
    let not_before = wanted.since.map(|age| minus(now, age));
    let mut letters = Letters::all(desk);
    let (mut groups, mut told) = (Groups::new(), 0_u64);
    if wanted.each && !output.json {
        output.line(format_args!(
            "{:<14} {:<16} {:<10} {:<24}  WHAT WAS WRONG",
            "PLACE", "REASON", "STATE", "FIRST SEEN"
        ))?;
    }
    loop {
        let batch = letters.next(output).await?;
        if batch.is_empty() {
            break;
        }
        let marks = desk.marks(&batch).await?;
        for (found, mark) in batch.iter().zip(&marks) {
            if !wanted.means(found, mark.as_ref(), not_before) {
                continue;
            }
            if !wanted.each {
                add(&mut groups, found, mark.as_ref());
                continue;
            }
            if told == wanted.limit {
                output.progress("there are more: raise --limit");
                return Ok(());
            }
            told += 1;
            one(found, mark.as_ref(), output)?;
        }
    }
    if wanted.each { Ok(()) } else { print(&groups, output) }
}

pub(super) fn first_seen(found: &Found) -> Option<Timestamp> {
    found.letter.as_ref().map(|letter| letter.first_seen).or(found.record.timestamp)
}

pub(super) fn reason(found: &Found) -> String {
    found.letter.as_ref().map_or_else(|| FOREIGN.to_owned(), |letter| shown(&letter.reason))
}

/// How a letter stands.
pub(super) fn state(mark: Option<&LetterMark>) -> &'static str {
    mark.map_or("open", |mark| mark.state.as_str())
}

/// A letter as programs read it.
#[derive(Serialize)]
struct Row {
    place: String,
    partition: i32,
    offset: i64,
    reason: String,
    state: &'static str,
    error: Option<String>,
    original_topic: Option<String>,
    original_partition: Option<i32>,
    original_offset: Option<i64>,
    first_seen: Option<String>,
}

fn one(found: &Found, mark: Option<&LetterMark>, output: Output) -> Result<(), CliError> {
    let (place, letter) = (Place::of(found), found.letter.as_ref());
    let (reason, state, seen) = (reason(found), state(mark), first_seen(found).map(time));
    if output.json {
        return output.object(&Row {
            place: place.to_string(),
            partition: place.partition,
            offset: place.offset,
            reason,
            state,
            error: letter.map(|letter| letter.error.clone()),
            original_topic: letter.map(|letter| letter.topic.clone()),
            original_partition: letter.map(|letter| letter.partition),
            original_offset: letter.map(|letter| letter.offset),
            first_seen: seen,
        });
    }
    let error = letter.map_or_else(|| "no dead letter of this service".to_owned(), |letter| shown(&letter.error));
    let seen = seen.unwrap_or_default();
    output.line(format_args!("{:<14} {reason:<16} {state:<10} {seen:<24}  {error}", place.to_string()))
}

/// By reason and state.
type Groups = BTreeMap<(String, &'static str), Group>;

#[derive(Default)]
struct Group {
    count: u64,
    oldest: Option<Timestamp>,
    newest: Option<Timestamp>,
    topics: BTreeSet<String>,
}

/// A group as programs read it.
#[derive(Serialize)]
struct GroupRow<'a> {
    reason: &'a str,
    state: &'static str,
    count: u64,
    oldest: Option<String>,
    newest: Option<String>,
    topics: &'a BTreeSet<String>,
}

fn add(groups: &mut Groups, found: &Found, mark: Option<&LetterMark>) {
    // Ours are a closed list; whoever else writes there may write any.
    let known = reason(found);
    let known = if DeadLetterReason::parse(&known).is_some() { known } else { FOREIGN.to_owned() };
    let group = groups.entry((known, state(mark))).or_default();
    group.count += 1;
    if let Some(seen) = first_seen(found) {
        group.oldest = Some(group.oldest.map_or(seen, |oldest| oldest.min(seen)));
        group.newest = group.newest.max(Some(seen));
    }
    if let Some(letter) = &found.letter
        && group.topics.len() < TOPICS_MAX
    {
        group.topics.insert(shown(&letter.topic));
    }
}

fn print(groups: &Groups, output: Output) -> Result<(), CliError> {
    if output.json {
        for ((reason, state), group) in groups {
            let (oldest, newest) = (group.oldest.map(time), group.newest.map(time));
            output.object(&GroupRow { reason, state, count: group.count, oldest, newest, topics: &group.topics })?;
        }
        return Ok(());
    }
    if groups.is_empty() {
        return output.line("there are none that nobody has dealt with, as far as was asked");
    }
    output.line(format_args!(
        "{:<16} {:<10} {:>9}  {:<24}  {:<24}  FROM",
        "REASON", "STATE", "COUNT", "OLDEST", "NEWEST"
    ))?;
    for ((reason, state), group) in groups {
        let (oldest, newest) = (group.oldest.map(time).unwrap_or_default(), group.newest.map(time).unwrap_or_default());
        let topics = group.topics.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        output
            .line(format_args!("{reason:<16} {state:<10} {:>9}  {oldest:<24}  {newest:<24}  {topics}", group.count))?;
    }
    if groups.keys().any(|(_, state)| *state == LetterState::Replaying.as_str()) {
        output.progress(
            "replaying: a run is at them, or died at it; `recharged dead-letters replay` brings them to an end",
        );
    }
    Ok(())
}
