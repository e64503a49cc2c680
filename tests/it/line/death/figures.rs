//! What a play has come to, in numbers.

use std::fmt;

use recharged::domain::{Order, Sla, State};

/// From creation to the end, in seconds; what has not ended took for ever.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies(Vec<f64>);

impl Latencies {
    pub(super) fn of<'a>(orders: impl Iterator<Item = &'a Order>) -> Self {
        let took = |order: &Order| {
            let took = order.closed_at.map(|closed| (closed - order.created_at).as_seconds_f64());
            took.unwrap_or(f64::INFINITY)
        };
        let mut all: Vec<f64> = orders.map(took).collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    /// So many, of 1, took at most this.
    pub(super) fn percentile(&self, of_one: f64) -> f64 {
        let rank = (self.0.len() as f64 * of_one).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|of_one| self.percentile(of_one));
        write!(f, "p50 {p50:.3} s, p90 {p90:.3} s, p99 {p99:.3} s, max {max:.3} s of {}", self.0.len())
    }
}

/// What became of some orders.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    pub(super) orders: u64,
    /// Delivered, or refunded, by the deadline.
    pub(super) met: u64,
    /// Of these, delivered.
    pub(super) delivered_in_time: u64,
    pub(super) refunded: u64,
    /// In doubt at the end.
    pub(super) in_doubt: u64,
}

impl Kept {
    pub(super) fn of<'a>(orders: impl Iterator<Item = &'a Order>) -> Self {
        orders.fold(Self::default(), |mut kept, order| {
            let is_met = order.sla == Some(Sla::Met);
            kept.orders += 1;
            kept.met += u64::from(is_met);
            kept.delivered_in_time += u64::from(is_met && order.state == State::Succeeded);
            kept.refunded += u64::from(order.state == State::Failed);
            kept.in_doubt += u64::from(order.state == State::InDoubt);
            kept
        })
    }

    pub(super) fn adherence(&self) -> f64 {
        self.met as f64 / self.orders.max(1) as f64
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} % of {} decided in time, {:.3} % delivered in time; {} refunded, {} in doubt",
            100.0 * self.adherence(),
            self.orders,
            100.0 * self.delivered_in_time as f64 / self.orders.max(1) as f64,
            self.refunded,
            self.in_doubt,
        )
    }
}

#[derive(Debug, Clone)]
pub(super) struct Figures {
    /// Orders that only the healthy provider can serve; those of them whose first answer settled them; those that were sold
    /// before the other one died; and those that were sold while it was dead.
    pub(super) healthy: Latencies,
    pub(super) plain: Latencies,
    pub(super) before: Latencies,
    pub(super) meanwhile: Latencies,
    pub(super) of_healthy: Kept,
    /// Orders that both can serve, without those that were open at the one when it died.
    pub(super) either: Kept,
    pub(super) caught: Kept,
    /// How many of them were sold while the one was dead and delivered by the other.
    pub(super) went_on: u64,
    /// Orders that only the one that dies can serve, with and without time.
    pub(super) only_sick: Kept,
    pub(super) hurried: Kept,
    /// Of 1.
    pub(super) faults: f64,
    /// How often a lane of a process rested.
    pub(super) rests: usize,
    pub(super) took: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "decided after {:.0} s; {:.1} % of the calls failed in doubt; lanes rested {} times",
            self.took,
            100.0 * self.faults,
            self.rests
        )?;
        writeln!(f, "  healthy lane       {}", self.healthy)?;
        writeln!(f, "    untroubled       {}", self.plain)?;
        writeln!(f, "    sold before      {}", self.before)?;
        writeln!(f, "    sold meanwhile   {}", self.meanwhile)?;
        writeln!(f, "                     {}", self.of_healthy)?;
        writeln!(f, "  both can serve     {}", self.either)?;
        writeln!(f, "    sold meanwhile and delivered by the other one: {}", self.went_on)?;
        writeln!(f, "    open at its death {}", self.caught)?;
        writeln!(f, "  only the one       {}", self.only_sick)?;
        write!(f, "    with little time {}", self.hurried)
    }
}
