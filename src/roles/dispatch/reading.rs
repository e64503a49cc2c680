//! Commands as they come from a lane's topics.

use std::time::Duration;

use crate::domain::inbound::{DeadLetterReason, Unfit};
use crate::domain::{Command, CommandKind, Timestamp, plus};
use crate::ports::InRecord;

/// A question comes when it is due, or after the longest delay, and then it is put off again, as its
/// row says, rather than to hold a place and its partition's offset.
const EARLY_MAX: Duration = Duration::from_mins(1);
/// No provider remembers for so long; a question that is so early is none of ours.
const NEVER: Duration = Duration::from_hours(24 * 366);

/// Reads a record of a lane's topics.
pub(crate) fn read_command(record: &InRecord, now: Timestamp) -> Result<Command, Unfit> {
    let value = record.value.as_deref();
    let value = value.ok_or_else(|| Unfit::new(DeadLetterReason::NullValue, "a command without a value"))?;
    let command: Command = serde_json::from_slice(value).map_err(|error| {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(value).is_ok();
        let reason = if is_json { DeadLetterReason::Schema } else { DeadLetterReason::Malformed };
        Unfit::new(reason, format!("not a command, line {} column {}", error.line(), error.column()))
    })?;
    // None of ours waits so long; a submit would hold a place, and its partition's offset.
    let is_too_late = match command.kind {
        CommandKind::Submit => command.wake_at.is_some_and(|until| until > command.deadline_at),
        CommandKind::Query | CommandKind::Confirm => command.wake_at.is_some_and(|until| until > plus(now, NEVER)),
    };
    if is_too_late {
        return Err(Unfit::new(DeadLetterReason::BadDueTime, "a command that wakes after its deadline, or in years"));
    }
    Ok(command)
}

/// Until when a command is kept here; a question that comes far too early is looked at now.
pub(crate) fn held_until(command: &Command, now: Timestamp) -> Option<Timestamp> {
    let is_far = |until: &Timestamp| *until > plus(now, EARLY_MAX);
    command.wake_at.filter(|until| command.kind == CommandKind::Submit || !is_far(until))
}

#[cfg(test)]
mod tests {
    use crate::domain::OrderId;

    use super::*;

    #[test]
    fn a_question_that_comes_far_too_early_is_looked_at_now_to_be_put_off_again() {
        let now = Timestamp::from_timestamp(1_800_000_000, 0).unwrap();
        let command = |kind, wake_at| Command {
            kind,
            order_id: OrderId::parse("o-1").unwrap(),
            attempt: 1,
            version: 3,
            deadline_at: plus(now, Duration::from_mins(3)),
            wake_at,
            hastened: false,
            provider_ref: None,
            tries: 0,
        };
        let (soon, far) = (plus(now, EARLY_MAX), plus(now, Duration::from_hours(24 * 23)));
        let query = |wake_at| held_until(&command(CommandKind::Query, wake_at), now);
        assert_eq!([query(None), query(Some(soon)), query(Some(far))], [None, Some(soon), None]);
        let later = plus(now, Duration::from_mins(2));
        assert_eq!(held_until(&command(CommandKind::Submit, Some(later)), now), Some(later));
    }
}
