//! Random lives: any input at any time, right and stale, under any policy. What is checked
//! stands in [`super::story`]; here is only what can happen.

use proptest::prelude::*;

use super::story::{Story, at, claim_id, lane, new_order, policy, secs};
use crate::domain::decide::Input;
use crate::domain::*;

/// An input whose claim and attempt are chosen when its turn comes.
#[derive(Debug, Clone)]
enum Event {
    Arrives {
        paid: bool,
        amount: i64,
        routed: bool,
    },
    Pays {
        payment: u8,
        routed: bool,
    },
    Cancels,
    Claims,
    /// `back`: how many claims ago.
    Replies {
        back: usize,
        outcome: SubmitOutcome,
    },
    /// `attempt` counts from the current one back; −1 lies ahead.
    Reports {
        back: i32,
        asked_ago: i64,
        outcome: QueryOutcome,
    },
    Disputes {
        back: i32,
        dispute: Dispute,
    },
    /// What a callback said.
    StaysUnconfirmed {
        back: i32,
    },
    ConfirmsRefund(u8),
    RefundOverdue,
    CallerLost,
    Deadline,
    ClosesCase(CaseKind),
    Resolves(bool),
    /// The lane's configuration goes, or comes back.
    Reconfigured,
}

fn failures() -> impl Strategy<Value = Failure> {
    let advice = prop_oneof![
        Just(RetryAdvice::Never),
        (0_u64..40).prop_map(|s| RetryAdvice::NewAttempt { after: secs(s) }),
        Just(RetryAdvice::AfterOperatorAction),
    ];
    (prop::sample::select(FailureClass::ALL), advice).prop_map(|(class, advice)| Failure {
        class,
        code: format!("{class} 138-0000-{}", class.as_str().len()),
        advice,
    })
}

fn receipts() -> impl Strategy<Value = Receipt> {
    let amounts = prop_oneof![Just(None), Just(Some(5000)), Just(Some(1000))];
    (any::<Option<bool>>(), amounts).prop_map(|(reference, amount)| Receipt {
        provider_ref: reference.map(|odd| format!("P-{odd}")),
        delivered: amount.map(|minor| Money { minor, currency: Currency::parse("CNY").unwrap() }),
        delivered_at: None,
    })
}

fn submit_outcomes() -> impl Strategy<Value = SubmitOutcome> {
    prop_oneof![
        1 => receipts().prop_map(SubmitOutcome::Succeeded),
        2 => any::<Option<bool>>().prop_map(|r| SubmitOutcome::Accepted { provider_ref: r.map(|x| format!("P-{x}")) }),
        3 => failures().prop_map(SubmitOutcome::Rejected),
        3 => prop::sample::select(NotSentCause::ALL).prop_map(SubmitOutcome::NotSent),
        2 => prop::option::of(0_u64..200).prop_map(|s| SubmitOutcome::Throttled { retry_after: s.map(secs) }),
        2 => Just(SubmitOutcome::Duplicate),
        3 => prop::sample::select(UnknownCause::ALL).prop_map(SubmitOutcome::Unknown),
    ]
}

fn query_outcomes() -> impl Strategy<Value = QueryOutcome> {
    prop_oneof![
        1 => receipts().prop_map(QueryOutcome::Succeeded),
        1 => Just(QueryOutcome::InProgress),
        2 => failures().prop_map(QueryOutcome::Failed),
        1 => receipts().prop_map(QueryOutcome::Reversed),
        6 => Just(QueryOutcome::NotFound),
        1 => Just(QueryOutcome::ProviderUnknown),
        1 => prop::sample::select(vec![
            QueryOutcome::NotAsked,
            QueryOutcome::Unavailable { retry_after: None },
            QueryOutcome::Throttled { retry_after: None },
            QueryOutcome::Banned { retry_after: None },
        ]),
    ]
}

fn disputes() -> impl Strategy<Value = Dispute> {
    let money = |minor| Money { minor, currency: Currency::parse("CNY").unwrap() };
    prop_oneof![
        Just(Dispute::NotListed),
        prop::sample::select(&[5000, 1000]).prop_map(move |m| Dispute::Amount(money(m)))
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let amounts = prop_oneof![5 => Just(5000_i64), 1 => Just(1000_i64)];
    let routed = prop::bool::weighted(0.9);
    prop_oneof![
        1 => (any::<bool>(), amounts, routed).prop_map(|(paid, amount, routed)| Event::Arrives { paid, amount, routed }),
        1 => (0_u8..3, routed).prop_map(|(payment, routed)| Event::Pays { payment, routed }),
        1 => Just(Event::Cancels),
        8 => Just(Event::Claims),
        8 => (prop_oneof![4 => Just(0_usize), 1 => 1_usize..4], submit_outcomes()).prop_map(|(back, outcome)| Event::Replies { back, outcome }),
        8 => (prop_oneof![5 => Just(0), 1 => -1..4], prop_oneof![4 => Just(0_i64), 1 => -3_i64..30], query_outcomes())
            .prop_map(|(back, asked_ago, outcome)| Event::Reports { back, asked_ago, outcome }),
        2 => (0_i32..3, disputes()).prop_map(|(back, dispute)| Event::Disputes { back, dispute }),
        1 => (0_i32..3).prop_map(|back| Event::StaysUnconfirmed { back }),
        2 => (0_u8..3).prop_map(Event::ConfirmsRefund),
        1 => Just(Event::RefundOverdue),
        2 => Just(Event::CallerLost),
        2 => Just(Event::Deadline),
        2 => prop::sample::select(CaseKind::ALL).prop_map(Event::ClosesCase),
        1 => any::<bool>().prop_map(Event::Resolves),
        1 => prop::bool::weighted(0.1).prop_filter("rare", |rare| *rare).prop_map(|_| Event::Reconfigured),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let duplicates = prop::sample::select(&[
        DuplicateSemantics::RejectsAlways,
        DuplicateSemantics::RejectsUnlessFailed,
        DuplicateSemantics::ReplaysResult,
        DuplicateSemantics::NotDeduplicated,
    ]);
    let told = (any::<bool>(), any::<bool>());
    let terms = (duplicates, any::<bool>(), 1_u16..5, any::<bool>(), told);
    terms.prop_map(|(duplicates, hold, max_attempts, readable, (at_end, followed))| {
        let mut policy = policy(duplicates);
        policy.on_unknown = if hold { OnUnknown::Hold } else { OnUnknown::RefundFlagged };
        policy.max_attempts = max_attempts;
        policy.notify_at_end = at_end;
        policy.refund_confirm_within = policy.refund_confirm_within.filter(|_| followed);
        if let Some(provider) = policy.providers.get_mut(&lane()) {
            provider.capabilities.client_ref.alphanumeric_only = !readable;
        }
        policy
    })
}

/// What a life consists of: events and the seconds before each, a few of them backwards.
fn lives() -> impl Strategy<Value = Vec<(Event, i64)>> {
    let pauses = prop_oneof![6 => Just(0_i64), 6 => 1_i64..12, 4 => 12_i64..60, 1 => 60_i64..2000, 2 => -3_i64..0];
    prop::collection::vec((events(), pauses), 1..60)
}

struct Life {
    story: Story,
    configured: Policy,
    claims: Vec<(u16, ClaimId)>,
    now: i64,
}

impl Life {
    fn live(&mut self, event: &Event) {
        let verdict = |routed: bool| if routed { Ok(lane()) } else { Err(Reason::NoRoute) };
        let current = self.story.order.as_ref().map_or(0, Order::attempt_number);
        let input = match event.clone() {
            Event::Arrives { paid, amount, routed } => {
                let mut new = new_order(paid.then(|| at(self.now)));
                new.amount.minor = amount;
                new.notify = true;
                Input::Arrived { new: Box::new(new), verdict: verdict(routed) }
            }
            Event::Pays { payment, routed } => Input::Paid {
                paid_at: at(self.now),
                payment_id: (payment > 0).then(|| format!("pay-{payment}").into()),
                verdict: verdict(routed),
            },
            Event::Cancels => Input::CancelRequested,
            Event::Claims => Input::Claim { claim_id: claim_id(1 + self.claims.len() as u128) },
            Event::Replies { back, outcome } => {
                let Some(&(attempt, claim_id)) = self.claims.iter().rev().nth(back) else { return };
                Input::SubmitReply { attempt, claim_id, outcome }
            }
            Event::Reports { back, asked_ago, outcome } => {
                let Ok(attempt) = u16::try_from(i32::from(current) - back) else { return };
                Input::Reported { attempt, asked_at: at(self.now - asked_ago), outcome }
            }
            Event::Disputes { back, dispute } => {
                let Ok(attempt) = u16::try_from(i32::from(current) - back) else { return };
                Input::Disputed { attempt, dispute }
            }
            Event::StaysUnconfirmed { back } => {
                let Ok(attempt) = u16::try_from(i32::from(current) - back) else { return };
                Input::Unconfirmed { attempt }
            }
            Event::ConfirmsRefund(refund) => {
                Input::RefundConfirmed { refund_id: format!("refund-{refund}").into(), at: at(self.now) }
            }
            Event::RefundOverdue => Input::RefundOverdue,
            Event::CallerLost => Input::CallerLost,
            Event::Deadline => Input::Deadline,
            // Who closes a case has seen it open.
            Event::ClosesCase(kind) if !self.story.has_open(kind) => return,
            Event::ClosesCase(kind) => {
                Input::CaseClosed { kind, by: "night shift".to_owned(), evidence: "mail".to_owned() }
            }
            Event::Resolves(succeeded) => {
                Input::Resolved { succeeded, by: "night shift".to_owned(), evidence: "portal".to_owned() }
            }
            Event::Reconfigured => {
                let gone = Policy { providers: std::collections::HashMap::new(), ..self.configured.clone() };
                let is_gone = self.story.policy.providers.is_empty();
                self.story.policy = if is_gone { self.configured.clone() } else { gone };
                return;
            }
        };
        self.story.feed(&input, at(self.now));
        if let (Input::Claim { claim_id }, Some(order)) = (&input, &self.story.order)
            && order.attempt.as_ref().is_some_and(|attempt| attempt.claim_id == *claim_id)
        {
            self.claims.push((order.attempt_number(), *claim_id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_laws_hold_and_the_log_rebuilds_the_row(
        policy in policies(), paid in any::<bool>(), life in lives(),
    ) {
        let mut lived = Life { story: Story::new(policy.clone()), configured: policy, claims: Vec::new(), now: 0 };
        lived.live(&Event::Arrives { paid, amount: 5000, routed: true });
        for (event, pause) in &life {
            lived.now += pause;
            lived.live(event);
        }
        lived.story.check_replay();
    }

    #[test]
    fn after_its_deadline_and_a_tick_no_paid_order_is_undecided(policy in policies(), life in lives()) {
        let mut lived = Life { story: Story::new(policy.clone()), configured: policy, claims: Vec::new(), now: 0 };
        lived.live(&Event::Arrives { paid: true, amount: 5000, routed: true });
        for (event, pause) in &life {
            lived.now += pause;
            lived.live(event);
        }
        lived.now = lived.now.max(180);
        lived.live(&Event::Deadline);
        let row = lived.story.row();
        prop_assert!(matches!(row.state, State::Succeeded | State::Failed | State::InDoubt), "{:?}", row.state);
        prop_assert!(row.sla.is_some(), "the deadline counts every order");
        if row.state == State::InDoubt && lived.story.policy.on_unknown == OnUnknown::RefundFlagged {
            prop_assert!(row.refund_requested);
        }
    }
}
