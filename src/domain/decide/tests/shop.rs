//! What the shop and its payments say of one order, in every order and as often as it likes, before the order is
//! known and after.

use proptest::prelude::*;

use super::story::{Story, arrived, at, delivered, new_order, paid, policy};
use crate::domain::DuplicateSemantics::RejectsAlways;
use crate::domain::decide::{Input, Why};
use crate::domain::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Created,
    CreatedPaid,
    Paid,
    Cancelled,
    Refunded,
    /// Nobody says that: it is recharged, where it may be.
    Recharged,
}

impl Said {
    const ALL: [Self; 6] =
        [Self::Created, Self::CreatedPaid, Self::Paid, Self::Cancelled, Self::Refunded, Self::Recharged];

    fn input(self) -> Input {
        match self {
            Self::Created => arrived(new_order(None)),
            Self::CreatedPaid => arrived(new_order(Some(at(0)))),
            Self::Paid => paid(0, "pay-1"),
            Self::Cancelled => Input::CancelRequested,
            Self::Refunded => Input::RefundConfirmed { refund_id: "r-1".into(), at: at(0) },
            Self::Recharged => Input::CallerLost,
        }
    }
}

fn recharge(story: &mut Story, second: i64) {
    if story.order.as_ref().is_some_and(|order| order.state == State::Queued) {
        story.claim(second);
        story.reply(delivered(), second);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The laws of every step are the story's: one refund at most, no move of what is closed.
    #[test]
    fn in_any_order_however_often_an_order_is_recharged_or_cancelled_and_its_money_is_where_it_belongs(
        said in proptest::collection::vec(prop::sample::select(&Said::ALL), 1..12),
        created in prop::sample::select(&[Said::Created, Said::CreatedPaid]),
    ) {
        let mut story = Story::new(policy(RejectsAlways));
        // What comes before the order waits, and comes once more after it.
        let (mut waiting, mut second) = (Vec::new(), 0);
        for what in said.iter().copied().chain([created]) {
            second += 1;
            if what == Said::Recharged {
                recharge(&mut story, second);
            } else if story.tell(what.input(), second) == Some(Why::NotApplicable) && story.order.is_none() {
                waiting.push(what);
            }
        }
        // They come back in any order; here in the opposite one.
        for what in waiting.into_iter().rev() {
            second += 1;
            story.tell(what.input(), second);
        }
        recharge(&mut story, second);
        story.check_replay();
        let row = story.row();
        let (was_paid, was_cancelled) = (
            said.contains(&Said::Paid) || said.contains(&Said::CreatedPaid) || created == Said::CreatedPaid,
            said.contains(&Said::Cancelled),
        );
        let expected: &[State] = match (was_paid, was_cancelled) {
            (true, true) => &[State::Succeeded, State::Cancelled],
            (true, false) => &[State::Succeeded],
            (false, true) => &[State::Cancelled],
            (false, false) => &[State::AwaitingPayment],
        };
        prop_assert!(expected.contains(&row.state), "{} of {expected:?}", row.state);
        prop_assert_eq!(row.refund_requested, row.state == State::Cancelled && was_paid);
        let was_queued = story.log.iter().any(|event| event.kind == EventType::Queued);
        prop_assert_eq!(was_queued, row.state == State::Succeeded, "what is cancelled is never recharged");
        if said.contains(&Said::Refunded) {
            let is_told = story.opened.contains(&CaseKind::UnrequestedRefund);
            prop_assert_eq!(row.refund_id.as_deref(), Some("r-1"));
            prop_assert!(is_told || row.refund_requested, "money went back, and nobody is told of it");
        } else {
            prop_assert!(row.refund_id.is_none() && !row.has_cases());
        }
    }
}
