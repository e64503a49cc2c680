//! What happens to a request, decided by the seed, its reference and how often that reference
//! has come: never by the order in which requests arrive, so that a run repeats at any concurrency.

use std::time::Duration;

use super::profile::{FaultKind, Latency, Profile};

/// A stream of numbers that is the same on every machine and in every version (`SplitMix64`).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// For one thing that happens to one reference.
    pub(super) fn new(seed: u64, purpose: &str, reference: &str, nth: u32) -> Self {
        // FNV-1a gathers, the generator's finaliser mixes.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in purpose.bytes().chain([0]).chain(reference.bytes()).chain(nth.to_be_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Self(hash)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn hits(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A wait from a distribution, at most a day.
    pub(super) fn wait(&mut self, latency: Latency) -> Duration {
        /// How many standard deviations above the median the 99th percentile lies.
        const Z99: f64 = 2.326_347_874_040_841;
        let seconds = match latency {
            Latency::Fixed(wait) => return wait,
            Latency::Uniform { min, max } => min.as_secs_f64() + max.saturating_sub(min).as_secs_f64() * self.unit(),
            Latency::Lognormal { p50, p99 } => {
                let (p50, p99) = (p50.as_secs_f64(), p99.as_secs_f64());
                p50 * ((p99 / p50).ln() / Z99 * self.normal()).exp()
            }
        };
        Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
    }
}

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
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    BeforeExecution,
    AfterExecution,
}

/// All that happens to one submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) verdict: Verdict,
    pub(super) fault: Option<(FaultKind, Moment)>,
    pub(super) reply_after: Duration,
    /// Accepted first, and completed after this long.
    pub(super) completes_after: Option<Duration>,
}

impl Fate {
    /// The `nth` submit of a reference. Each question has dice of its own, so that changing one
    /// rate of a profile does not change the answers to the others.
    pub(super) fn of(profile: &Profile, seed: u64, reference: &str, nth: u32, phone: &str) -> Self {
        let dice = |purpose| Dice::new(seed, purpose, reference, nth);
        let mut fate = Self {
            verdict: verdict(profile, &mut dice("verdict")),
            fault: fault(profile, &mut dice("fault")),
            reply_after: dice("reply").wait(profile.reply),
            completes_after: dice("mode")
                .hits(profile.accepted_first)
                .then(|| dice("completion").wait(profile.completion)),
        };
        if profile.suffix_scenarios {
            fate.follow_suffix(phone);
        }
        fate
    }

    fn follow_suffix(&mut self, phone: &str) {
        let mut digits = phone.chars().rev().filter_map(|c| c.to_digit(10));
        let (units, tens, hundreds) = (digits.next(), digits.next(), digits.next());
        self.fault = None;
        let refusal = match (tens, units) {
            (Some(0), Some(2)) => Some("invalid_recipient"),
            (Some(0), Some(3)) => Some("recipient_barred"),
            (Some(0), Some(4)) => Some("operator_unavailable"),
            (Some(0), Some(5)) => Some("cooldown_active"),
            (Some(0), Some(6)) => Some("declined"),
            (_, _) => None,
        };
        self.verdict = refusal.map_or(Verdict::Deliver, |code| {
            let retry_after = (code == "operator_unavailable").then_some(Duration::from_secs(1));
            Verdict::Refuse(Refusal { code, retry_after, status: 422 })
        });
        let least = match hundreds {
            Some(1) => Duration::from_secs(3),
            Some(2) => Duration::from_secs(20),
            Some(3) => Duration::from_mins(5),
            Some(_) | None => return,
        };
        self.completes_after = Some(least.max(self.completes_after.unwrap_or_default()));
    }
}

fn verdict(profile: &Profile, dice: &mut Dice) -> Verdict {
    /// Final codes, picked alike.
    const FATAL: [&str; 4] = ["invalid_recipient", "recipient_barred", "limit_reached", "declined"];
    let declines = profile.declines;
    let roll = dice.unit();
    let (code, retry_after) = if roll < declines.fatal {
        let index = usize::try_from(dice.next() % FATAL.len() as u64).unwrap_or(0);
        (FATAL.get(index).copied().unwrap_or("declined"), None)
    } else if roll < declines.fatal + declines.retryable {
        ("operator_unavailable", Some(declines.retry_after))
    } else {
        return Verdict::Deliver;
    };
    let status = match (dice.hits(declines.odd_status), dice.hits(0.5)) {
        (false, _) => 422,
        (true, true) => 500,
        (true, false) => 200,
    };
    Verdict::Refuse(Refusal { code, retry_after, status })
}

fn fault(profile: &Profile, dice: &mut Dice) -> Option<(FaultKind, Moment)> {
    let mut roll = dice.unit();
    for (kind, rates) in profile.faults.rates() {
        for (moment, share) in [(Moment::BeforeExecution, rates.before), (Moment::AfterExecution, rates.after)] {
            if roll < share {
                return Some((kind, moment));
            }
            roll -= share;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(latency: Latency) -> Vec<Duration> {
        let mut waits: Vec<_> = (0..20_000).map(|n| Dice::new(7, "test", "ref", n).wait(latency)).collect();
        waits.sort_unstable();
        waits
    }

    fn close(measured: Duration, wanted_ms: f64, tolerance: f64) {
        let off = (measured.as_secs_f64() * 1000.0 / wanted_ms - 1.0).abs();
        assert!(off < tolerance, "{measured:?} is not within {tolerance} of {wanted_ms} ms");
    }

    #[test]
    fn waits_have_the_median_and_the_tail_that_the_profile_asks_for() {
        let lognormal = waits(Latency::Lognormal { p50: Duration::from_millis(40), p99: Duration::from_millis(400) });
        close(lognormal[10_000], 40.0, 0.05);
        close(lognormal[19_800], 400.0, 0.15);
        let uniform = waits(Latency::Uniform { min: Duration::from_millis(10), max: Duration::from_millis(30) });
        close(uniform[10_000], 20.0, 0.03);
        assert!(uniform[0] >= Duration::from_millis(10) && uniform[19_999] <= Duration::from_millis(30));
        assert!(waits(Latency::Fixed(Duration::from_millis(5))).iter().all(|w| *w == Duration::from_millis(5)));
    }

    #[test]
    fn the_same_seed_reference_and_turn_have_the_same_fate_and_others_differ() {
        let profile = Profile::storm();
        let fate = |seed, nth| Fate::of(&profile, seed, "order-7-1", nth, "+8613800000042");
        assert_eq!(fate(1, 0), fate(1, 0));
        assert_ne!(fate(1, 0).reply_after, fate(2, 0).reply_after);
        assert_ne!(fate(1, 0).reply_after, fate(1, 1).reply_after);
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn faults_and_refusals_strike_as_often_as_the_profile_says() {
        let profile = Profile::storm();
        let fates: Vec<_> =
            (0..20_000).map(|n| Fate::of(&profile, 3, &format!("order-{n}-1"), 0, "+8613800000042")).collect();
        let share =
            |hit: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| hit(fate)).count() as f64 / fates.len() as f64;
        assert!((share(&|f| f.fault.is_some()) - 0.25).abs() < 0.015);
        assert!((share(&|f| f.fault == Some((FaultKind::Hang, Moment::AfterExecution))) - 0.025).abs() < 0.005);
        assert!((share(&|f| matches!(f.verdict, Verdict::Refuse(_))) - 0.15).abs() < 0.015);
        assert!((share(&|f| f.completes_after.is_some()) - 0.5).abs() < 0.015);
    }

    #[test]
    fn the_last_digits_of_a_number_decide_where_scenarios_are_on() {
        let profile = Profile { suffix_scenarios: true, ..Profile::storm() };
        let fate = |phone| Fate::of(&profile, 1, "r", 0, phone);
        assert!(matches!(fate("+8613800000003").verdict, Verdict::Refuse(Refusal { code: "recipient_barred", .. })));
        assert_eq!(fate("+8613800000000").verdict, Verdict::Deliver);
        assert!(fate("+8613800000201").completes_after >= Some(Duration::from_secs(20)));
    }
}
