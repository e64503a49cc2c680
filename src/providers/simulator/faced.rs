//! What a script or a phone number makes of a fate.

use std::time::Duration;

use super::class::FaultClass;
use super::fate::{Fate, Opening, Pace, Refusal, Throws, Turn, Verdict, completion};
use super::profile::Profile;
use super::script::Then;

/// A recharge that a script or a number makes a query strike is completed so soon at the latest.
const COMPLETED_SOON: Duration = Duration::from_secs(1);

/// A ban by a script or a number, where the profile does not say how long.
const BANNED_FOR: Duration = Duration::from_secs(5);

/// What a script decides is answered so soon at the latest.
const ANSWERED_SOON: Duration = Duration::from_millis(500);

impl Fate {
    pub(super) fn scripted(profile: &Profile, throws: Throws<'_>, then: &Then) -> Self {
        let mut fate = Self::plain(profile, throws);
        // A caller that has gone by then would not meet it.
        fate.reply_after = fate.reply_after.min(ANSWERED_SOON);
        match then {
            Then::Deliver => {}
            Then::Accept => fate.completes_after = Some(completion(profile, throws)),
            Then::Refuse(refusal) => fate.verdict = Verdict::Refuse(*refusal),
            Then::Answer(moment, reply) => fate.answer = Some((*moment, reply.clone())),
            Then::Face(class, within) => {
                fate.face(*class, profile, throws);
                fate.completes_after = fate.completes_after.map(|wait| wait.min(within.unwrap_or(wait)));
            }
        }
        fate
    }

    /// Lets it meet a class of trouble.
    pub(super) fn face(&mut self, class: FaultClass, profile: &Profile, throws: Throws<'_>) {
        if let Some(fault) = class.fault() {
            self.fault = Some(fault);
            return;
        }
        if class.is_of_queries() {
            // What is completed at once is never asked about.
            self.completes_after = Some(completion(profile, throws).min(COMPLETED_SOON));
            self.query = Some(class);
            return;
        }
        let outcomes = &profile.outcomes;
        let accepted = |fate: &mut Self, turn| {
            fate.completes_after = Some(fate.completes_after.unwrap_or_else(|| completion(profile, throws)));
            fate.verdict = Verdict::Deliver;
            fate.turn = Some(turn);
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is left has nothing to be done here")]
        match class {
            FaultClass::Outage => {
                self.opening = Some(Opening::Outage(throws.dice("outage lasts").wait(profile.outage.lasts)));
            }
            FaultClass::EmptyFloat => {
                self.verdict = Verdict::Deliver;
                self.opening = Some(Opening::EmptyFloat(throws.dice("float lasts").wait(profile.empty_float.lasts)));
            }
            FaultClass::Ban => self.opening = Some(Opening::Ban(profile.ban.map_or(BANNED_FOR, |ban| ban.lasts))),
            FaultClass::Throttled => {
                let styles = [Pace::Told, Pace::Untold, Pace::InBody];
                self.throttled = throws.dice("pace style").pick(&styles);
            }
            FaultClass::Fatal => self.verdict = Verdict::Refuse(Refusal::declined()),
            FaultClass::Retryable => {
                self.verdict = Verdict::Refuse(Refusal::unavailable(profile.declines.retry_after));
            }
            FaultClass::OddStatus => self.verdict = Verdict::Refuse(Refusal { status: 500, ..Refusal::declined() }),
            FaultClass::Never => accepted(self, Turn::Never),
            FaultClass::AcceptedThenFailed => {
                accepted(self, Turn::AcceptedThenFailed);
                self.verdict = Verdict::Refuse(Refusal::declined());
            }
            FaultClass::Unclear => {
                accepted(self, Turn::Unclear(throws.dice("unknown lasts").wait(outcomes.unknown.lasts)));
            }
            FaultClass::LateSuccess => {
                self.verdict = Verdict::Refuse(Refusal::declined());
                self.turn = Some(Turn::LateSuccess(throws.dice("late after").wait(outcomes.late_success.lasts)));
            }
            FaultClass::Reversed => {
                self.verdict = Verdict::Deliver;
                self.turn = Some(Turn::Reversed(throws.dice("reversed after").wait(outcomes.reversed.lasts)));
            }
            FaultClass::WrongAmount => {
                self.verdict = Verdict::Deliver;
                self.turn = Some(Turn::WrongAmount);
            }
            // Without two ends there is nothing to swap, and without an acceptance no time before the end.
            FaultClass::CallbackSwapped => {
                self.face(FaultClass::Reversed, profile, throws);
                self.callback = Some(class);
            }
            FaultClass::CallbackInProgress => {
                self.completes_after = Some(completion(profile, throws).min(COMPLETED_SOON));
                self.callback = Some(class);
            }
            _ if class.is_of_callbacks() => self.callback = Some(class),
            // The others are done above, and nothing makes anybody meet a limit.
            _ => {}
        }
    }

    pub(super) fn follow_suffix(&mut self, profile: &Profile, throws: Throws<'_>, phone: &str) {
        let mut digits = phone.chars().rev().filter_map(|c| c.to_digit(10));
        let (units, tens, hundreds) = (digits.next(), digits.next(), digits.next());
        *self = Self { completes_after: self.completes_after, ..Self::plain(profile, throws) };
        let ending = units.zip(tens).and_then(|(units, tens)| usize::try_from(10 * tens + units).ok()).unwrap_or(0);
        let refused = |code| Verdict::Refuse(Refusal::for_good(code, Some(FaultClass::Fatal)));
        match ending {
            2 => self.verdict = refused("invalid_recipient"),
            3 => self.verdict = refused("recipient_barred"),
            4 => self.verdict = Verdict::Refuse(Refusal::unavailable(Duration::from_secs(1))),
            5 => self.verdict = refused("cooldown_active"),
            6 => self.verdict = refused("declined"),
            _ => {
                if let Some(class) = FaultClass::of_number_ending(ending) {
                    self.face(class, profile, throws);
                }
            }
        }
        let at_least = match hundreds {
            Some(1) => Duration::from_secs(3),
            Some(2) => Duration::from_secs(20),
            Some(3) => Duration::from_mins(5),
            Some(_) | None => return,
        };
        self.completes_after = Some(at_least.max(self.completes_after.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::Spell;
    use super::*;

    #[test]
    fn the_last_digits_of_a_number_decide_where_scenarios_are_on() {
        let profile = Profile { suffix_scenarios: true, ..Profile::storm() };
        let fate = |phone| Fate::of(&profile, 1, ("r", 0), phone, None);
        assert!(matches!(fate("+8613800000003").verdict, Verdict::Refuse(Refusal { code: "recipient_barred", .. })));
        assert_eq!(fate("+8613800000000").verdict, Verdict::Deliver);
        assert!(fate("+8613800000201").completes_after >= Some(Duration::from_secs(20)));
        for class in FaultClass::scriptable() {
            let phone = format!("+86138000000{}", class.number_ending().unwrap());
            let fate = Fate::of(&profile, 1, ("r", 0), &phone, None);
            let mut faced = Fate::plain(&profile, Throws { seed: 1, reference: "r", nth: 0 });
            faced.completes_after = Fate::of(&profile, 1, ("r", 0), "+8613800000000", None).completes_after;
            faced.face(class, &profile, Throws { seed: 1, reference: "r", nth: 0 });
            assert_eq!(fate, faced, "{class}");
        }
    }

    #[test]
    fn a_script_goes_before_chance_and_names_every_class() {
        let worst = Profile { outage: Spell::fixed(1.0, Duration::ZERO), ..Profile::storm() };
        let throws = Throws { seed: 1, reference: "order-1-1", nth: 0 };
        let plain = Fate { is_scripted: true, ..Fate::plain(&worst, throws) };
        let scripted = |then: &Then| Fate::of(&worst, 1, ("order-1-1", 0), "+8613800000042", Some(then));
        assert_eq!(scripted(&Then::Deliver), plain);
        for class in FaultClass::ALL.iter().copied().filter(|class| !class.is_limit()) {
            assert_ne!(scripted(&Then::Face(class, None)), plain, "{class}");
        }
    }
}
