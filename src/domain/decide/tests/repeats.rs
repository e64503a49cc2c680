//! Inputs that apply to nothing, and what may stand in an event.

use super::story::{Story, delivered, found_delivered, no, paid, policy};
use crate::domain::decide::{Dispute, Input, Why};
use crate::domain::*;

#[test]
fn nothing_but_an_arrival_begins_an_order() {
    let inputs = [
        paid(0, "pay-1"),
        Input::CancelRequested,
        Input::Claim { claim_id: super::story::claim_id(1) },
        Input::SubmitReply { attempt: 1, claim_id: super::story::claim_id(1), outcome: delivered() },
        Input::Reported { attempt: 1, asked_at: super::story::at(0), outcome: found_delivered() },
        Input::Disputed { attempt: 1, dispute: Dispute::NotListed },
        Input::LaneShut,
        Input::NumberCools { until: super::story::at(9) },
        Input::Unconfirmed { attempt: 1 },
        Input::RefundConfirmed { refund_id: "r".into(), at: super::story::at(0) },
        Input::RefundOverdue,
        Input::CallerLost,
        Input::Deadline,
        Input::CaseClosed { kind: CaseKind::InDoubt, by: String::new(), evidence: String::new() },
        Input::Resolved { succeeded: true, by: String::new(), evidence: String::new() },
    ];
    for input in inputs {
        let mut story = Story::new(policy(DuplicateSemantics::RejectsAlways));
        assert_eq!(story.tell(input, 1), Some(Why::NotApplicable));
    }
}

#[test]
fn a_reply_to_an_attempt_that_never_was_applies_to_nothing() {
    let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
    let claim_id = story.attempt().claim_id;
    for attempt in [0, 2] {
        let reply = Input::SubmitReply { attempt, claim_id, outcome: delivered() };
        assert_eq!(story.tell(reply, 1), Some(Why::NotApplicable));
    }
}

#[test]
fn a_cause_never_carries_a_phone_number_however_it_is_written() {
    let told = [
        ("1007001", "1007001"),
        ("INSUFFICIENT_BALANCE", "INSUFFICIENT_BALANCE"),
        ("13800000001", "withheld"),
        ("bad number 138 0000 0001", "withheld"),
        ("138-0000-0001 is barred", "withheld"),
        ("+86.138_0000(0001)", "withheld"),
        ("号码错误", "unprintable"),
        ("a\nb\"c", "abc"),
    ];
    for (code, kept) in told {
        let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
        let failure = Failure { code: code.to_owned(), ..no(FailureClass::ProviderDeclared, RetryAdvice::Never) };
        story.reply(SubmitOutcome::Rejected(failure), 1);
        assert_eq!(story.log.last().unwrap().data.cause.as_deref(), Some(kept), "{code}");
    }
    let mut story = Story::in_flight(DuplicateSemantics::RejectsAlways);
    let failure = Failure { code: "x".repeat(500), ..no(FailureClass::ProviderDeclared, RetryAdvice::Never) };
    story.reply(SubmitOutcome::Rejected(failure), 1);
    assert_eq!(story.log.last().unwrap().data.cause.as_ref().map(String::len), Some(48));
}
