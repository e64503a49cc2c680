//! What must hold of every play, whoever died: the books against both ledgers, one refund for each order that failed, and
//! a decision for each order by its deadline.

use std::collections::HashMap;

use recharged::domain::{EventType, LoggedEvent, Order, OrderId, ProviderId, State};
use serde_json::Value;

use super::figures::{Figures, Kept, Latencies};
use super::plan::{Death, Plan};
use super::sale::Class;
use super::stage::Played;
use crate::harness::PATIENCE;
use crate::line::refusals::ended;
use crate::line::storm::refunded;

/// What a process says when a lane rests.
const RESTS: &str = "the lane rests";

impl Played {
    pub(super) async fn reckon(&self, plan: &Plan) -> Figures {
        self.audited(plan).await;
        let rows = self.line.rows().await;
        self.refunded_once(&rows).await;
        self.decided_by_their_deadlines(&rows, plan).await;
        for abuse in ["queries.not_before", "queries.min_interval"] {
            assert_eq!(self.trouble.strikes[abuse], 0, "a provider was asked sooner or more often than it allows");
        }
        self.figures(&rows, plan).await
    }

    /// By the command that people have, with the ledger of each provider.
    async fn audited(&self, plan: &Plan) {
        let ledgers =
            [&self.sick, &self.healthy].map(|provider| format!("{}={}", provider.name(), provider.ledger().display()));
        let command =
            self.line.command(&["audit", "--json", "--events", "--ledger", &ledgers[0], "--ledger", &ledgers[1]]);
        let audited = ended(command, PATIENCE).await;
        let report: Value = serde_json::from_str(&audited.stdout).unwrap_or_else(|_| panic!("{audited:?}"));
        println!("{report}");
        assert_eq!((audited.code, &report["audit"]["clean"]), (Some(0), &Value::Bool(true)), "{report}");
        assert_eq!((&report["orders"], &report["open"]), (&plan.orders.into(), &0.into()), "{report}");
    }

    async fn refunded_once(&self, rows: &[Order]) {
        let refunded = refunded(&self.line.read_all("refunds").await);
        let failed: HashMap<String, usize> =
            rows.iter().filter(|row| row.state == State::Failed).map(|row| (row.order_id.to_string(), 1)).collect();
        assert_eq!(refunded, failed, "one refund for each that failed, and for none else");
    }

    /// What was not closed by its deadline was in doubt then, with a case: the audit has seen to that.
    async fn decided_by_their_deadlines(&self, rows: &[Order], plan: &Plan) {
        for row in rows {
            let at_the_latest = row.deadline_at + plan.decided_within;
            if row.closed_at.is_some_and(|closed| closed <= at_the_latest) {
                continue;
            }
            let log = self.log(&row.order_id).await;
            let doubted = log.iter().find(|event| event.kind == EventType::InDoubt && event.data.sla.is_some());
            assert!(
                doubted.is_some_and(|event| event.at <= at_the_latest),
                "{} was decided late: {log:?}",
                row.order_id
            );
        }
    }

    async fn log(&self, id: &OrderId) -> Vec<LoggedEvent> {
        self.line.store.timeline(id).await.unwrap()
    }

    async fn figures(&self, rows: &[Order], plan: &Plan) -> Figures {
        let of = |class| rows.iter().filter(move |row| Class::read(row.order_id.as_str()) == class);
        let is_before = |row: &&Order| row.created_at < self.dead.from;
        let is_meanwhile = |row: &&Order| (self.dead.from..self.dead.until).contains(&row.created_at);
        let (mut caught, mut either) = (Vec::new(), Vec::new());
        for row in of(Class::Either) {
            let is_caught = self.is_disturbed && plan.death == Death::Killed && self.was_open_at_its_death(row).await;
            if is_caught { caught.push(row) } else { either.push(row) }
        }
        let healthy = ProviderId::new(self.healthy.name());
        let went_on = |row: &&Order| row.state == State::Succeeded && row.provider.as_ref() == Some(&healthy);
        let is_hurried = |row: &&Order| row.order_id.as_str().starts_with('q');
        Figures {
            healthy: Latencies::of(of(Class::Healthy)),
            plain: Latencies::of(of(Class::Healthy).filter(|row| row.version == 3)),
            before: Latencies::of(of(Class::Healthy).filter(is_before)),
            meanwhile: Latencies::of(of(Class::Healthy).filter(is_meanwhile)),
            of_healthy: Kept::of(of(Class::Healthy)),
            either: Kept::of(either.into_iter()),
            caught: Kept::of(caught.into_iter()),
            went_on: of(Class::Either).filter(is_meanwhile).filter(went_on).count() as u64,
            only_sick: Kept::of(of(Class::Sick).filter(|row| !is_hurried(row))),
            hurried: Kept::of(of(Class::Sick).filter(is_hurried)),
            faults: self.trouble.faults() as f64 / self.trouble.submits as f64,
            rests: self.logs.matches(RESTS).count(),
            took: self.took.as_secs_f64(),
        }
    }

    /// Whether it had been sent to the one that died, and nobody knew yet what had become of it there.
    async fn was_open_at_its_death(&self, row: &Order) -> bool {
        if row.created_at > self.dead.from || row.closed_at.is_some_and(|closed| closed < self.dead.from) {
            return false;
        }
        let sick = ProviderId::new(self.sick.name());
        let log = self.log(&row.order_id).await;
        let then = log.iter().rfind(|event| event.at <= self.dead.from);
        then.is_some_and(|event| event.data.state == State::InFlight && event.data.provider.as_ref() == Some(&sick))
    }
}
