//! A run: records are offered at a rate while something happens to the forwarder, until all have come.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::common::lateness::{Lateness, Percentiles, whole};
use crate::common::scratch::Scratch;
use crate::items::{Kind, Writer, now_ms_up, pace};
use crate::target::{Arrival, Target};

/// The tier of the paced runs, and its delay.
pub(crate) const TIER: &str = "5s";
const DELAY: Duration = Duration::from_secs(5);
/// Plain trips a second, beside the rest.
const PLAIN_RATE: f64 = 200.0;
/// The first of a run are not counted: connections are made meanwhile.
const RAMP: Duration = Duration::from_secs(2);
/// Without another record for this long, the rest is lost.
const LOST: Duration = Duration::from_secs(20);

/// Everything that one measurement needs.
pub(crate) struct Stage {
    pub(crate) scratch: Scratch,
    target: Target,
}

/// What came of a run's delayed records.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) items: usize,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// The broker took them before they were due.
    pub(crate) early: u64,
    /// Due time to the reader of the target, without the ramp.
    pub(crate) late: Percentiles,
    /// The least of these.
    pub(crate) least_ms: f64,
    /// Written to the target directly, at the same time: from the writer to the same reader.
    pub(crate) plain: Percentiles,
}

/// A run of records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
}

impl Load {
    pub(crate) fn items(self) -> usize {
        whole(self.rate * (self.seconds + RAMP.as_secs_f64()))
    }

    fn ramp(self) -> usize {
        whole(self.rate * RAMP.as_secs_f64())
    }

    /// Plain trips as well count only from when delayed records come that count.
    fn plain_ramp() -> usize {
        whole(PLAIN_RATE * (RAMP + DELAY).as_secs_f64())
    }

    fn plain_trips(self) -> usize {
        Self::plain_ramp() + whole(PLAIN_RATE * self.seconds)
    }
}

impl Stage {
    pub(crate) async fn set() -> Result<Self> {
        let scratch = Scratch::make().await?;
        let target = Target::watch(&scratch)?;
        Ok(Self { scratch, target })
    }

    pub(crate) async fn strike(self) -> Result<()> {
        drop(self.target);
        self.scratch.remove().await
    }

    /// Offers the load while `events` happen, waits for what was offered, and hands over what came since
    /// the beginning, with what the events told.
    pub(crate) fn play<T>(&self, load: Load, events: impl FnOnce() -> Result<T>) -> Result<(Vec<Arrival>, T)> {
        let (delayed, plain) = (Writer::open(&self.scratch)?, Writer::open(&self.scratch)?);
        let before = self.target.count();
        let (opened, probes) = (now_ms_up(), load.plain_trips());
        let told = std::thread::scope(|scope| {
            let items = scope.spawn(|| {
                pace(load.rate, load.items(), |number, after| {
                    let due_ms = opened + i64::try_from((after + DELAY).as_millis())?;
                    delayed.delay(TIER, number, due_ms)
                })?;
                delayed.flush()
            });
            // For as long as delayed ones come.
            let probing = scope.spawn(|| {
                pace(PLAIN_RATE, probes, |number, _| plain.plain(number))?;
                plain.flush()
            });
            let told = events();
            for writer in [items, probing] {
                writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
            }
            told
        })?;
        self.wait_for(before, load.items(), probes)?;
        Ok((self.target.arrivals().split_off(before), told))
    }

    /// Waits until so many delayed and plain records have come since `before`, each once at least, or nothing comes
    /// any more.
    pub(crate) fn wait_for(&self, before: usize, items: usize, plain: usize) -> Result<()> {
        let (mut seen, mut since) = (before, Instant::now());
        while since.elapsed() < LOST {
            let count = self.target.count();
            if count > seen {
                (seen, since) = (count, Instant::now());
            }
            if count - before >= items + plain {
                let arrivals = self.target.arrivals();
                let numbers = |kind| {
                    let new = arrivals.iter().skip(before).filter(|arrival| arrival.kind == kind);
                    new.map(|arrival| arrival.number).collect::<HashSet<_>>().len()
                };
                if numbers(Kind::Delayed) >= items && numbers(Kind::Plain) >= plain {
                    return Ok(());
                }
            }
            self.target.is_well()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.target.count()
    }

    pub(crate) fn arrivals_since(&self, before: usize) -> Vec<Arrival> {
        self.target.arrivals().split_off(before)
    }
}

/// Judges what came of a load; `ahead_ms` of an arrival is how far its forwarder's clock was ahead.
pub(crate) fn judge(load: Load, arrivals: &[Arrival], ahead_ms: impl Fn(&Arrival) -> i64) -> Result<Outcome> {
    let (mut late, mut plain) = (Lateness::new()?, Lateness::new()?);
    let (mut seen, mut repeated, mut early) = (HashSet::new(), 0, 0);
    let ramp = load.ramp();
    for arrival in arrivals {
        let took = arrival.arrived_us - arrival.meant_us;
        match arrival.kind {
            Kind::Plain if arrival.number < Load::plain_ramp() => {}
            Kind::Plain => plain.note(took),
            Kind::Delayed => {
                early += u64::from((arrival.appended_ms + ahead_ms(arrival)) * 1000 < arrival.meant_us);
                if !seen.insert(arrival.number) {
                    repeated += 1;
                } else if arrival.number >= ramp {
                    late.note(took);
                }
            }
        }
    }
    ensure!(plain.len() > 0 || load.items() == 0, "no plain record came");
    let lost = load.items().saturating_sub(seen.len()) as u64;
    let least_ms = late.least();
    Ok(Outcome {
        items: load.items(),
        lost,
        repeated,
        early,
        late: late.percentiles(),
        least_ms,
        plain: plain.percentiles(),
    })
}
