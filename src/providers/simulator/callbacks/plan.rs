//! What goes wrong with the callbacks about one end: decided by the seed, the reference, and which
//! of its submits and ends it is, like everything else that happens by chance.

use std::time::Duration;

use super::super::class::FaultClass;
use super::super::dice::Dice;
use super::super::profile::{Callbacks, Latency};
use crate::domain::ClientRef;

/// Between a message and its replay.
const REPLAY: Latency = Latency::Uniform { min: Duration::from_secs(2), max: Duration::from_secs(10) };

/// Whose end it is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct End<'a> {
    pub(in super::super) seed: u64,
    pub(in super::super) reference: &'a str,
    /// Which submit of the reference began it.
    pub(in super::super) nth: u32,
    /// The first end, or one that came after it.
    pub(in super::super) word: u32,
    /// What is sure to strike.
    pub(in super::super) planned: Option<FaultClass>,
    /// A script decided: chance stays out of it.
    pub(in super::super) is_scripted: bool,
}

/// All that happens to the callbacks about one end.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is thrown on its own")]
pub(in super::super) struct Plan {
    pub(in super::super) after: Duration,
    pub(in super::super) is_lost: bool,
    pub(in super::super) is_swapped: bool,
    pub(in super::super) is_early: bool,
    pub(in super::super) late: Option<Duration>,
    /// From the end to the other copy.
    pub(in super::super) duplicated: Option<Duration>,
    pub(in super::super) is_forged: bool,
    pub(in super::super) is_stale: bool,
    pub(in super::super) replayed: Option<Duration>,
    /// Of whom nobody has heard.
    pub(in super::super) stranger: Option<ClientRef>,
}

impl End<'_> {
    fn dice(&self, purpose: &str, word: u32) -> Dice {
        Dice::new(self.seed, purpose, self.reference, self.nth.wrapping_mul(2).wrapping_add(word))
    }

    fn strikes(&self, callbacks: &Callbacks, class: FaultClass, word: u32) -> bool {
        let by_chance = || !self.is_scripted && self.dice(class.as_str(), word).hits(callbacks.rate(class));
        self.planned == Some(class) || self.planned.is_none() && by_chance()
    }

    /// Whether "in progress" is told before it.
    pub(in super::super) fn has_progress(&self, callbacks: &Callbacks) -> Option<Duration> {
        let strikes = self.strikes(callbacks, FaultClass::CallbackInProgress, 0);
        strikes.then(|| self.dice("callback progress", 0).wait(callbacks.after))
    }

    /// For what else is thrown about it.
    pub(in super::super) fn throw(&self, purpose: &str) -> Dice {
        self.dice(purpose, self.word)
    }
}

impl Plan {
    pub(in super::super) fn of(callbacks: &Callbacks, end: &End<'_>) -> Self {
        let strikes = |class| end.strikes(callbacks, class, end.word);
        let wait = |purpose, latency| end.throw(purpose).wait(latency);
        let stranger = || {
            let mut dice = end.throw("callback stranger");
            ClientRef::from_stored(&format!("R{:011X}", dice.next() >> 20))
        };
        Self {
            after: wait("callback after", callbacks.after),
            is_lost: strikes(FaultClass::CallbackLost),
            // Of the recharge, not of one of its ends: what is lost is not held back.
            is_swapped: end.strikes(callbacks, FaultClass::CallbackSwapped, 0)
                && !end.strikes(callbacks, FaultClass::CallbackLost, 0),
            is_early: end.word == 0 && strikes(FaultClass::CallbackEarly),
            late: strikes(FaultClass::CallbackLate).then(|| wait("callback late", callbacks.late.lasts)),
            duplicated: strikes(FaultClass::CallbackDuplicated).then(|| wait("callback copy", callbacks.after)),
            is_forged: strikes(FaultClass::CallbackForged),
            is_stale: strikes(FaultClass::CallbackStale),
            replayed: strikes(FaultClass::CallbackReplayed).then(|| wait("callback replay", REPLAY)),
            stranger: strikes(FaultClass::CallbackUnknown).then(stranger),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(seed: u64, reference: &str, planned: Option<FaultClass>, is_scripted: bool) -> End<'_> {
        End { seed, reference, nth: 0, word: 0, planned, is_scripted }
    }

    #[test]
    fn the_same_seed_and_end_have_the_same_plan_and_others_differ() {
        let callbacks = Callbacks { enabled: true, ..Callbacks::default() };
        let plan = |seed, word| Plan::of(&callbacks, &End { word, ..end(seed, "order-7-1", None, false) });
        assert_eq!(plan(1, 0), plan(1, 0));
        assert_ne!(plan(1, 0).after, plan(2, 0).after);
        assert_ne!(plan(1, 0).after, plan(1, 1).after);
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn each_class_strikes_as_often_as_the_profile_says() {
        let spell = super::super::super::profile::Spell { rate: 0.1, ..Callbacks::default().late };
        let callbacks =
            Callbacks { late: spell, lost: 0.2, forged: 0.3, unknown_reference: 0.4, ..Callbacks::default() };
        let references: Vec<String> = (0..20_000).map(|n| format!("order-{n}-1")).collect();
        let plans: Vec<Plan> =
            references.iter().map(|reference| Plan::of(&callbacks, &end(3, reference, None, false))).collect();
        let share = |hit: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| hit(plan)).count() as f64 / 20_000.0;
        for (measured, wanted) in [
            (share(&|plan| plan.late.is_some()), 0.1),
            (share(&|plan| plan.is_lost), 0.2),
            (share(&|plan| plan.is_forged), 0.3),
            (share(&|plan| plan.stranger.is_some()), 0.4),
            (share(&|plan| plan.is_lost && plan.is_forged), 0.06),
            (share(&|plan| plan.is_stale || plan.is_swapped || plan.is_early), 0.0),
        ] {
            assert!((measured - wanted).abs() < 0.015, "{measured} is not about {wanted}");
        }
        let strangers: std::collections::HashSet<_> =
            plans.iter().filter_map(|plan| plan.stranger.clone()).map(|name| name.to_string()).collect();
        assert!(strangers.len() > 7_000 && strangers.iter().all(|name| name.len() == 12), "and of each another one");
    }

    #[test]
    fn what_a_script_calls_for_strikes_alone_and_where_it_calls_for_nothing_nothing_does() {
        let worst = Callbacks { lost: 1.0, forged: 1.0, stale: 1.0, ..Callbacks::default() };
        let plan = Plan::of(&worst, &end(1, "order-7-1", Some(FaultClass::CallbackForged), true));
        assert_eq!((plan.is_forged, plan.is_lost, plan.is_stale), (true, false, false));
        let plan = Plan::of(&worst, &end(1, "order-7-1", None, true));
        assert_eq!((plan.is_forged, plan.is_lost, plan.is_stale), (false, false, false));
    }
}
