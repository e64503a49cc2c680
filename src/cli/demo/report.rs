//! What the demo says at its end.

use std::fmt;

use serde::Serialize;

use super::plan::Expected;
use super::tap::Seen;
use super::unpaid::Verdict;
use crate::audit::{Percentiles, Report};
use crate::cli::audit::Shown;
use crate::providers::simulator::{FaultClass, Strike};

/// The report of the demo: the audit's, what a downstream consumer saw, and what the provider did.
#[derive(Debug, Serialize)]
pub(super) struct DemoReport {
    #[serde(flatten)]
    report: Report,
    /// Attempts that were put off to be made again.
    retries: u64,
    /// Orders that ever were in doubt.
    doubts: u64,
    /// What each class of trouble has struck, without those that struck nobody and need not have.
    faults: Vec<Strike>,
    /// Classes that had to strike somebody and struck nobody: a failure of the demo.
    untouched: Vec<FaultClass>,
    /// Classes that are rated so high that chance had to strike somebody with them, besides whom they were sent to,
    /// and did not: a failure of the demo.
    never_by_chance: Vec<FaultClass>,
    /// Records that the embedded broker dropped before they were read: a failure of the demo.
    records_dropped: u64,
    seed: u64,
    /// In the scenario unpaid: whether each order ended as its customer's doings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    unpaid: Option<Verdict>,
    /// Whether it was played to its end: then nothing is left open.
    #[serde(skip)]
    is_whole: bool,
}

impl DemoReport {
    pub(super) fn new(
        report: Report,
        (records_dropped, seed): (u64, u64),
        is_whole: bool,
        told: &Seen,
        strikes: &[Strike],
        expected: &Expected,
    ) -> Self {
        let (untouched, never_by_chance) = expected.untouched(strikes);
        let is_told = |strike: &&Strike| strike.requests > 0 || untouched.contains(&strike.class);
        let faults = strikes.iter().filter(is_told).copied().collect();
        let (retries, doubts) = (told.retries, told.doubts);
        let unpaid = None;
        Self { report, retries, doubts, faults, untouched, never_by_chance, records_dropped, seed, unpaid, is_whole }
    }

    /// With what was found in the scenario unpaid.
    pub(super) fn with_verdict(self, unpaid: Option<Verdict>) -> Self {
        Self { unpaid, ..self }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.report.is_clean()
            && self.report.early == 0
            && self.records_dropped == 0
            && self.untouched.is_empty()
            && self.never_by_chance.is_empty()
            && self.left_open() == 0
            // One that was broken off had no time for everything.
            && (!self.is_whole || self.unpaid.as_ref().is_none_or(Verdict::is_clean))
    }

    /// Orders that nobody decided though the demo waited for that.
    fn left_open(&self) -> u64 {
        if self.is_whole { self.report.open } else { 0 }
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.faults.is_empty() {
            writeln!(f, "what the provider did, and to how many orders")?;
            for strike in &self.faults {
                writeln!(f, "  {:<34} {:>7}   {} by chance", strike.class.as_str(), strike.orders, strike.by_chance)?;
            }
        }
        writeln!(f, "retries       {:>10}   {} orders were in doubt for a time", self.retries, self.doubts)?;
        if self.report.delay_lateness_ms != Percentiles::default() {
            writeln!(f, "after the due {}, early {}", Shown(self.report.delay_lateness_ms), self.report.early)?;
        }
        if let Some(unpaid) = &self.unpaid {
            writeln!(f, "{unpaid}")?;
        }
        write!(f, "{}", self.report)?;
        for (classes, what) in [
            (&self.untouched, "struck no order, though the provider was to do it"),
            (&self.never_by_chance, "struck nobody by chance, though its rate is high enough"),
        ] {
            if !classes.is_empty() {
                let names: Vec<&str> = classes.iter().map(|class| class.as_str()).collect();
                write!(f, "\n{what}: {}", names.join(", "))?;
            }
        }
        if self.left_open() > 0 {
            write!(f, "\n{} orders were never decided", self.left_open())?;
        }
        if self.records_dropped > 0 {
            write!(f, "\nthe embedded broker dropped {} records: lower --rate, or use --kafka", self.records_dropped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, SlaCount};

    fn report(open: u64, is_whole: bool) -> DemoReport {
        let none = Percentiles::default();
        let report = Report {
            orders: 10,
            succeeded: 10 - open,
            failed: 0,
            cancelled: 0,
            in_doubt: 0,
            open,
            refunds: 0,
            sla: SlaCount::default(),
            orders_per_second: None,
            resolution_ms: none,
            delay_lateness_ms: none,
            early: 0,
            reversals: 0,
            cases: 0,
            audit: Audit { clean: true, ..Audit::default() },
            events: None,
        };
        DemoReport::new(report, (0, 1), is_whole, &Seen::default(), &[], &Expected::default())
    }

    #[test]
    fn a_demo_that_was_played_to_its_end_leaves_no_order_open() {
        assert!(report(0, true).is_clean());
        assert!(!report(1, true).is_clean(), "an order is stuck");
        assert!(report(1, true).to_string().contains("1 orders were never decided"));
        assert!(report(1, false).is_clean(), "it was broken off");
    }
}
