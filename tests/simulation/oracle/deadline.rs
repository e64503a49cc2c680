//! I6: nothing is decided before its deadline, and everything soon after it, as far as somebody could.

use std::time::Duration;

use recharged::domain::{LoggedEvent, Order, Reason, Sla, State, Timestamp};

use super::Oracle;
use crate::laws::Law;
use crate::life::{EPOCH, PRECISION, TRIED_AGAIN};

/// Where nothing held up any watchdog: a quarter of a second, and what a few operations take that are slow by themselves and
/// yet too quick to count as held up.
const SOON: Duration = Duration::from_millis(350);
/// The watchdog looks so often for deadlines that it did not know of.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And so often for what became visible behind its deadline.
const WHOLE_EVERY: Duration = Duration::from_secs(5);
impl Oracle<'_> {
    pub(super) fn look_at_deadline(&self, row: &Order) {
        let id = row.order_id.as_str();
        let mine: Vec<&LoggedEvent> = self.log.iter().filter(|event| event.order_id == row.order_id).collect();
        let mut known = None;
        let mut news = |event: &&&LoggedEvent| {
            let is_news = event.data.sla.is_some() && event.data.sla != known;
            known = event.data.sla.or(known);
            is_news
        };
        let judged: Vec<&LoggedEvent> = mine.iter().filter(&mut news).copied().collect();
        self.hold(Law::Counted, judged.len() <= 1, || format!("{id}: its deadline was judged {} times", judged.len()));
        if let Some(met) = judged.first().filter(|event| event.data.sla == Some(Sla::Met)) {
            let (at, deadline_at) = (met.at, met.data.deadline_at);
            self.hold(Law::Deadline, at < deadline_at, || {
                format!("{id} met its deadline {} after it", at - deadline_at)
            });
            return;
        }
        // What the shop cancels itself has no deadline any more.
        if row.reason == Some(Reason::CancelledUpstream) {
            return;
        }
        let unpaid = || mine.iter().find(|event| event.data.state == State::Cancelled).copied();
        let Some(event) = judged.first().copied().or_else(unpaid) else {
            self.hold(Law::Deadline, false, || format!("{id} was never judged by its deadline"));
            return;
        };
        let early = row.deadline_at - event.at;
        let is_early = early > chrono::TimeDelta::from_std(self.world.time.precision()).unwrap();
        self.hold(Law::Deadline, !is_early, || format!("{id} missed its deadline {early} before it"));
        // Decided is what everybody can see.
        let decided_at = self.committed_at(event);
        // When this deadline was set, with the order or with its payment, for all to see.
        let setting = mine.iter().find(|event| event.data.deadline_at == row.deadline_at);
        let set_at = setting.map_or(row.deadline_at, |event| self.committed_at(event));
        let late = (decided_at - row.deadline_at.max(set_at)).to_std().unwrap_or_default();
        let bound = self.patience(row.deadline_at, set_at);
        let [missed, strictly] = self.missed.get();
        self.missed.set([missed + 1, strictly + usize::from(bound <= SOON)]);
        self.hold(Law::Deadline, late <= bound, || {
            format!("{id} was decided {late:?} after its deadline, {bound:?} allowed")
        });
    }

    pub(super) fn committed_at(&self, event: &LoggedEvent) -> Timestamp {
        self.world.outside.store.committed_at(&event.order_id, event.version).unwrap_or(event.at)
    }

    /// How long after its deadline, or after it was set, an order may be decided.
    pub(super) fn patience(&self, deadline_at: Timestamp, set_at: Timestamp) -> Duration {
        // Whoever looks has passed over what is set by then, by a clock that may be ahead.
        let passed_over = set_at + self.world.time.precision() + Duration::from_millis(20);
        let next_look = if passed_over >= deadline_at {
            WHOLE_EVERY + LOOK_EVERY
        } else if passed_over + LOOK_EVERY >= deadline_at {
            LOOK_EVERY
        } else {
            Duration::ZERO
        };
        let from = (deadline_at.max(set_at) - EPOCH).to_std().unwrap_or_default();
        // Any watchdog will do.
        let held_up = self.hold_ups.iter().map(|hold_ups| held_up(hold_ups, from, next_look)).min().unwrap_or_default();
        let tries_again = if held_up.is_zero() { Duration::ZERO } else { TRIED_AGAIN };
        let wrong = self.world.time.precision().saturating_sub(PRECISION);
        held_up + tries_again + next_look + wrong + SOON
    }
}

/// For how long something that is to be done at a moment is held up, if it may also be done a little later.
fn held_up(hold_ups: &[(Duration, Duration)], from: Duration, next_look: Duration) -> Duration {
    let mut until = from;
    for (begins, ends) in hold_ups {
        if *begins <= until + next_look + SOON && *ends >= from {
            until = until.max(*ends);
        }
    }
    until.saturating_sub(from)
}
