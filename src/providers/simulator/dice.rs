//! Chance that repeats: of the seed, what is asked, of which reference, and for which time.

use std::time::Duration;

use super::profile::Latency;

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

    /// One of these, each as likely; `None` where there are none.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
        from.get(usize::try_from(self.next() % count).ok()?).copied()
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
}
