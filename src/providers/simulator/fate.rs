//! What happens to a request, decided by the seed, its reference and how often that reference
//! has come: never by the order in which requests arrive, so that a run repeats at any concurrency.

use std::time::Duration;

use super::class::{FaultClass, Moment};
use super::dice::Dice;
use super::profile::{FaultKind, Profile};
use super::reply::Reply;
use super::script::Then;

/// What the provider does with a recharge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Deliver,
    Refuse(Refusal),
}

/// A refusal, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) retry_after: Option<Duration>,
    /// 422, or what odd providers send.
    pub(super) status: u16,
    pub(super) class: Option<FaultClass>,
}

impl Refusal {
    pub(super) const fn for_good(code: &'static str, class: Option<FaultClass>) -> Self {
        Self { code, retry_after: None, status: 422, class }
    }

    pub(super) fn declined() -> Self {
        Self::for_good("declined", Some(FaultClass::Fatal))
    }

    pub(super) fn unavailable(retry_after: Duration) -> Self {
        let class = Some(FaultClass::Retryable);
        Self { code: "operator_unavailable", retry_after: Some(retry_after), status: 422, class }
    }
}

/// What becomes of a recharge other than its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Never,
    AcceptedThenFailed,
    LateSuccess(Duration),
    Reversed(Duration),
    WrongAmount,
    Unclear(Duration),
}

/// What begins with this request and strikes others too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Outage(Duration),
    EmptyFloat(Duration),
    Ban(Duration),
}

/// How a refusal for pace looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// 429 with `Retry-After`.
    Told,
    /// 429 alone.
    Untold,
    /// A word in a 200.
    InBody,
}

/// All that happens to one submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) verdict: Verdict,
    pub(super) turn: Option<Turn>,
    pub(super) fault: Option<(FaultKind, Moment)>,
    pub(super) opening: Option<Opening>,
    pub(super) throttled: Option<Pace>,
    pub(super) reply_after: Duration,
    /// Accepted first, and completed after this long.
    pub(super) completes_after: Option<Duration>,
    /// What is sure to strike the queries of this reference.
    pub(super) query: Option<FaultClass>,
    /// What a script says in place of the provider's own answer.
    pub(super) answer: Option<(Moment, Reply)>,
    /// What is sure to strike the callbacks of this submit.
    pub(super) callback: Option<FaultClass>,
    /// Which submit of its reference it is, from 0.
    pub(super) nth: u32,
    /// A script decided: what strikes by chance or by what others did leaves this request alone.
    pub(super) is_scripted: bool,
}

/// Dice for each question about one submit, so that changing one rate of a profile does not
/// change the answers to the other questions.
#[derive(Clone, Copy)]
pub(super) struct Throws<'a> {
    pub(super) seed: u64,
    pub(super) reference: &'a str,
    pub(super) nth: u32,
}

impl Throws<'_> {
    pub(super) fn dice(self, purpose: &str) -> Dice {
        Dice::new(self.seed, purpose, self.reference, self.nth)
    }
}

impl Fate {
    /// The `nth` submit of a reference; a script goes before a number, and a number before chance.
    pub(super) fn of(
        profile: &Profile,
        seed: u64,
        (reference, nth): (&str, u32),
        phone: &str,
        script: Option<&Then>,
    ) -> Self {
        let throws = Throws { seed, reference, nth };
        if let Some(then) = script {
            return Self { is_scripted: true, ..Self::scripted(profile, throws, then) };
        }
        let mut fate = Self::by_chance(profile, throws);
        if profile.suffix_scenarios {
            fate.follow_suffix(profile, throws, phone);
        }
        fate
    }

    /// Delivered at once.
    pub(super) fn plain(profile: &Profile, throws: Throws<'_>) -> Self {
        Self {
            verdict: Verdict::Deliver,
            turn: None,
            fault: None,
            opening: None,
            throttled: None,
            reply_after: throws.dice("reply").wait(profile.reply),
            completes_after: None,
            query: None,
            answer: None,
            callback: None,
            nth: throws.nth,
            is_scripted: false,
        }
    }

    fn by_chance(profile: &Profile, throws: Throws<'_>) -> Self {
        let accepted_first = throws.dice("mode").hits(profile.accepted_first);
        let mut fate = Self {
            verdict: verdict(profile, &mut throws.dice("verdict")),
            fault: fault(profile, &mut throws.dice("fault")),
            completes_after: accepted_first.then(|| completion(profile, throws)),
            ..Self::plain(profile, throws)
        };
        if let Some(class) = turn(profile, &mut throws.dice("outcome")) {
            fate.face(class, profile, throws);
        }
        for (purpose, rate, class) in [
            ("pace", profile.declines.throttled, FaultClass::Throttled),
            ("float", profile.empty_float.rate, FaultClass::EmptyFloat),
            ("outage", profile.outage.rate, FaultClass::Outage),
        ] {
            if throws.dice(purpose).hits(rate) {
                fate.face(class, profile, throws);
            }
        }
        fate
    }
}

pub(super) fn completion(profile: &Profile, throws: Throws<'_>) -> Duration {
    throws.dice("completion").wait(profile.completion)
}

fn verdict(profile: &Profile, dice: &mut Dice) -> Verdict {
    /// Final codes, picked alike.
    const FATAL: [&str; 4] = ["invalid_recipient", "recipient_barred", "limit_reached", "declined"];
    let declines = profile.declines;
    let roll = dice.unit();
    let refusal = if roll < declines.fatal {
        Refusal::for_good(dice.pick(&FATAL).unwrap_or("declined"), Some(FaultClass::Fatal))
    } else if roll < declines.fatal + declines.retryable {
        Refusal::unavailable(declines.retry_after)
    } else {
        return Verdict::Deliver;
    };
    let status = match (dice.hits(declines.odd_status), dice.hits(0.5)) {
        (false, _) => 422,
        (true, true) => 500,
        (true, false) => 200,
    };
    Verdict::Refuse(Refusal { status, ..refusal })
}

fn fault(profile: &Profile, dice: &mut Dice) -> Option<(FaultKind, Moment)> {
    let rates = profile.faults.rates().into_iter().flat_map(|(kind, rates)| {
        [((kind, Moment::BeforeExecution), rates.before), ((kind, Moment::AfterExecution), rates.after)]
    });
    one_of(rates, dice)
}

fn turn(profile: &Profile, dice: &mut Dice) -> Option<FaultClass> {
    let outcomes = &profile.outcomes;
    let rates = [
        (FaultClass::Never, outcomes.never),
        (FaultClass::AcceptedThenFailed, outcomes.accepted_then_failed),
        (FaultClass::LateSuccess, outcomes.late_success.rate),
        (FaultClass::Reversed, outcomes.reversed.rate),
        (FaultClass::WrongAmount, outcomes.wrong_amount),
        (FaultClass::Unclear, outcomes.unknown.rate),
    ];
    one_of(rates.into_iter(), dice)
}

/// One of several that exclude each other, or none.
fn one_of<T>(rates: impl Iterator<Item = (T, f64)>, dice: &mut Dice) -> Option<T> {
    let mut roll = dice.unit();
    for (what, rate) in rates {
        if roll < rate {
            return Some(what);
        }
        roll -= rate;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(profile: &Profile, seed: u64, reference: &str, nth: u32) -> Fate {
        Fate::of(profile, seed, (reference, nth), "+8613800000042", None)
    }

    #[test]
    fn the_same_seed_reference_and_turn_have_the_same_fate_and_others_differ() {
        let profile = Profile::storm();
        let fate = |seed, nth| fate(&profile, seed, "order-7-1", nth);
        assert_eq!(fate(1, 0), fate(1, 0));
        assert_ne!(fate(1, 0).reply_after, fate(2, 0).reply_after);
        assert_ne!(fate(1, 0).reply_after, fate(1, 1).reply_after);
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn faults_refusals_and_outcomes_strike_as_often_as_the_profile_says() {
        let profile = Profile::storm();
        let fates: Vec<_> = (0..20_000).map(|n| fate(&profile, 3, &format!("order-{n}-1"), 0)).collect();
        let share =
            |hit: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| hit(fate)).count() as f64 / fates.len() as f64;
        assert!((share(&|f| f.fault.is_some()) - 0.25).abs() < 0.015);
        assert!((share(&|f| f.fault == Some((FaultKind::Hang, Moment::AfterExecution))) - 0.0104).abs() < 0.003);
        assert!((share(&|f| matches!(f.verdict, Verdict::Refuse(_))) - 0.165).abs() < 0.015);
        assert!((share(&|f| f.turn.is_some()) - 0.045).abs() < 0.006);
        assert!((share(&|f| f.completes_after.is_some()) - 0.5).abs() < 0.025);
        assert!((share(&|f| f.throttled.is_some()) - 0.03).abs() < 0.005);
    }
}
