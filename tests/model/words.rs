//! A way through the model, in words.

use stateright::Path;

use crate::actions::{Action, Step};
use crate::row::SECONDS;
use crate::world::{Fate, World};

/// One line for each step: when, what, and how the row stands then.
pub(crate) fn told(path: Path<World, Action>) -> Vec<String> {
    let steps = path.into_vec();
    let mut lines = Vec::new();
    for pair in steps.windows(2) {
        let [(before, Some(action)), (after, _)] = pair else { continue };
        let what = match action {
            Action::Tick => continue,
            Action::Crash(process) => format!("process {process} crashes"),
            Action::Restart(process) => format!("process {process} comes back"),
            Action::Pause(process) => format!("process {process} stops"),
            Action::Resume(process) => format!("process {process} goes on"),
            Action::To(order, step) => {
                let which = if before.lives[1].is_some() { format!("order {order}: ") } else { String::new() };
                let stands = standing(before, after, *order);
                format!("{which}{}{stands}", step_told(before, *order, *step))
            }
        };
        lines.push(format!("{:>3} s  {what}", SECONDS[usize::from(before.now)]));
    }
    lines
}

/// What the step made of the row, where it changed.
fn standing(before: &World, after: &World, order: usize) -> String {
    let (Some(was), Some(is)) = (before.lives[order], after.lives[order]) else { return String::new() };
    if was.row == is.row {
        return String::new();
    }
    let attempt = is.row.attempt.map(|attempt| format!(", attempt {} {}", attempt.number, attempt.state));
    let refund = if is.row.refund && !was.row.refund { ", refund requested" } else { "" };
    let opened = if is.row.open & !was.row.open == 0 { "" } else { ", a case is opened" };
    let resolved = if was.row.open & !is.row.open == 0 { "" } else { ", a case is closed" };
    format!(" → {}{}{refund}{opened}{resolved}", is.row.state, attempt.unwrap_or_default())
}

fn step_told(world: &World, order: usize, step: Step) -> String {
    let seconds = |at: u8| SECONDS[usize::from(at)];
    let late = |at: u8| {
        if at == world.now { String::new() } else { format!(" (decided at {} s, written only now)", seconds(at)) }
    };
    let claim = |index: usize| format!("claim {}", index + 1);
    let unheard = |lost: bool| if lost { ", and the commit's reply is lost" } else { "" };
    match step {
        Step::Shop(asked) => format!("the shop: {}", asked.name()),
        Step::Claim { at, .. } => {
            let count = world.lives[order].map_or(0, |life| life.calls().count());
            format!("{} is committed{}", claim(count), late(at))
        }
        Step::Send(index) => format!("{}: the first byte leaves", claim(index)),
        Step::GiveUp(index) => format!("{}: not sent", claim(index)),
        Step::Arrive(index, fate) => {
            let does = match fate {
                Fate::Execute => "executes it, unless it knows the reference",
                Fate::Accept => "accepts it",
                Fate::Refuse => "refuses it",
                Fate::Throttle => "asks for patience",
            };
            format!("{}: the bytes reach the provider, which {does}", claim(index))
        }
        Step::Complete(index, true) => format!("{}: the provider executes what it had accepted", claim(index)),
        Step::Complete(index, false) => format!("{}: the provider fails what it had accepted", claim(index)),
        Step::Lose(index) => format!("{}: no answer is heard", claim(index)),
        Step::Settle { call, at, lost } => {
            let heard = world.lives[order].and_then(|life| life.calls[call]?.word);
            let heard = heard.map_or(String::new(), |heard| format!("{heard:?}").to_lowercase());
            format!("{}: \"{heard}\" is settled{}{}", claim(call), late(at), unheard(lost))
        }
        Step::Adopt { at } => format!("the send is adopted{}", late(at)),
        Step::Ask { .. } => "the provider is asked".to_owned(),
        Step::Forget(_) => "who asked is gone".to_owned(),
        Step::Report { question, at, lost } => {
            let asked = world.lives[order].and_then(|life| life.questions[question]);
            let said = asked
                .map_or(String::new(), |asked| format!("\"{:?}\", asked at {} s,", asked.answer, seconds(asked.asked)));
            format!("the answer {said} is settled{}{}", late(at), unheard(lost))
        }
        Step::Watch { at } => format!("the watchdog decides{}", late(at)),
    }
}
