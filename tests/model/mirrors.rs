//! Which code each step of the model stands for. The names are looked up in the source, so that
//! code that is renamed or goes away takes the model with it.

use std::path::Path;

use crate::actions::{Action, Step};
use crate::judge::Asked;
use crate::world::Fate;

/// A file below `src/`, and a function in it.
type Place = (&'static str, &'static str);

/// What a step stands for. No arm stands for several steps: a new one must say what it mirrors.
fn mirrored(action: Action) -> &'static [Place] {
    match action {
        Action::Tick | Action::Pause(_) | Action::Resume(_) => {
            &[("ports/clock.rs", "now"), ("ports/clock.rs", "since_boot")]
        }
        Action::Crash(_) | Action::Restart(_) => &[("roles/dispatch/adopt.rs", "note")],
        Action::To(_, step) => match step {
            Step::Shop(_) => &[("roles/intake/batch.rs", "insert"), ("roles/intake/batch.rs", "act")],
            Step::Claim { .. } => &[
                ("roles/dispatch/claim.rs", "claim"),
                ("roles/dispatch/claim.rs", "judge"),
                ("roles/dispatch/claim.rs", "write_claims"),
                ("roles/dispatch/claim.rs", "sort_lost"),
                ("domain/decide/claim.rs", "next_attempt"),
            ],
            Step::Send(_) | Step::GiveUp(_) => &[
                ("roles/dispatch/call.rs", "await_permit"),
                ("roles/dispatch/call.rs", "submit"),
                ("providers/http/gate.rs", "poll_write"),
            ],
            Step::Arrive(..) | Step::Complete(..) => &[("domain/outcome.rs", "resend_is_safe")],
            Step::Lose(_) => &[("domain/decide/attempt.rs", "unknown")],
            Step::Settle { .. } => &[
                ("roles/dispatch/settle.rs", "decide"),
                ("roles/dispatch/settle.rs", "write_settlements"),
                ("domain/decide/attempt.rs", "submit_reply"),
            ],
            Step::Adopt { .. } => &[
                ("roles/dispatch/adopt.rs", "adopt_page"),
                ("roles/watchdog/repair.rs", "remedy_page"),
                ("domain/decide/attempt.rs", "caller_lost"),
            ],
            Step::Ask { .. } => &[
                ("roles/dispatch/question.rs", "hold"),
                ("roles/dispatch/question.rs", "ask"),
                ("ports/questions.rs", "hold"),
            ],
            Step::Forget(_) => &[("roles/dispatch/question.rs", "hold_time")],
            Step::Report { .. } => &[
                ("roles/dispatch/settle.rs", "write_settlements"),
                ("roles/dispatch/settle.rs", "ask_on"),
                ("roles/dispatch/pending.rs", "next_question"),
                ("domain/decide/attempt.rs", "reported"),
                ("domain/decide/not_found.rs", "not_found"),
                ("domain/decide/closed.rs", "reported"),
                ("domain/inquiry.rs", "next_query"),
            ],
            Step::Watch { .. } => &[
                ("roles/watchdog/deadlines.rs", "decide_page"),
                ("roles/watchdog/verdicts.rs", "write"),
                ("domain/decide/deadline.rs", "deadline"),
                ("domain/decide/draft.rs", "fail"),
            ],
        },
    }
}

fn every_action() -> Vec<Action> {
    let steps = [
        Step::Shop(Asked::Cancelled),
        Step::Claim { by: 0, at: 0 },
        Step::Send(0),
        Step::GiveUp(0),
        Step::Arrive(0, Fate::Execute),
        Step::Complete(0, true),
        Step::Lose(0),
        Step::Settle { call: 0, at: 0, lost: false },
        Step::Adopt { at: 0 },
        Step::Ask { by: 0, unseen: false, unsure: false },
        Step::Forget(0),
        Step::Report { question: 0, at: 0, lost: false },
        Step::Watch { at: 0 },
    ];
    let of_processes = [Action::Tick, Action::Crash(0), Action::Restart(0), Action::Pause(0), Action::Resume(0)];
    of_processes.into_iter().chain(steps.map(|step| Action::To(0, step))).collect()
}

#[test]
fn the_code_that_the_model_mirrors_is_there_and_the_document_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/MODEL.md")).unwrap();
    for (file, function) in every_action().into_iter().flat_map(mirrored) {
        let source = std::fs::read_to_string(root.join("src").join(file)).unwrap_or_default();
        assert!(source.contains(&format!("fn {function}(")), "src/{file} has no function {function}");
        assert!(document.contains(&format!("`{file}`")), "docs/MODEL.md does not name `{file}`");
        assert!(document.contains(&format!("`{function}`")), "docs/MODEL.md does not name `{function}`");
    }
}

#[test]
fn the_document_names_every_rule_that_can_be_turned_off() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/MODEL.md")).unwrap();
    for rule in crate::rules::Rule::ALL {
        assert!(document.contains(&format!("`{rule:?}`")), "docs/MODEL.md does not name `{rule:?}`");
    }
}
