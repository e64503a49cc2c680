//! A script at work: the steps that wait for their submits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::script::{STEPS_MAX, Script, ScriptError, Step, Then};
use super::strikes::order_of;

/// The steps that wait.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    /// Nothing waits, mostly.
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// A step and how often it is still to happen; several orders may share it.
#[derive(Debug, Clone)]
struct Due {
    step: Arc<Step>,
    left: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_ref: HashMap<String, VecDeque<Due>>,
    by_order: HashMap<String, VecDeque<Due>>,
    next: VecDeque<Due>,
    steps: usize,
}

impl Scripted {
    /// Adds steps behind those that wait.
    pub(super) fn add(&self, script: &Script) -> Result<(), ScriptError> {
        script.check()?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.steps + script.steps.len() > STEPS_MAX {
            return Err(ScriptError::TooMany);
        }
        waiting.steps += script.steps.len();
        for step in &script.steps {
            let due = Due { step: Arc::new(step.clone()), left: Arc::new(AtomicU32::new(step.times())) };
            if let Some(reference) = &step.client_ref {
                waiting.by_ref.entry(reference.clone()).or_default().push_back(due);
            } else if step.order.is_some() {
                for order in step.order.iter().chain(&step.or) {
                    waiting.by_order.entry(order.clone()).or_default().push_back(due.clone());
                }
            } else {
                waiting.next.push_back(due);
            }
        }
        self.any.store(waiting.steps > 0, Ordering::Release);
        Ok(())
    }

    /// Forgets the steps that wait.
    pub(super) fn clear(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Waiting::default();
        self.any.store(false, Ordering::Release);
    }

    /// How many steps wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).steps
    }

    /// What the script says of this submit: its reference goes before its order, and that before
    /// whoever comes next.
    pub(super) fn take(&self, reference: &str) -> Option<Then> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { by_ref, by_order, next, steps } = &mut *waiting;
        let (due, is_done) = first_of(by_ref, reference)
            .or_else(|| first_of(by_order, order_of(reference)))
            .or_else(|| first_due(next))?;
        *steps = steps.saturating_sub(usize::from(is_done));
        self.any.store(*steps > 0, Ordering::Release);
        due.step.then().ok()
    }
}

fn first_of(queues: &mut HashMap<String, VecDeque<Due>>, name: &str) -> Option<(Due, bool)> {
    let queue = queues.get_mut(name)?;
    let found = first_due(queue);
    if queue.is_empty() {
        queues.remove(name);
    }
    found
}

/// The first that is still to happen, and whether that was the last time. One that another order
/// has taken is passed over.
fn first_due(queue: &mut VecDeque<Due>) -> Option<(Due, bool)> {
    while let Some(due) = queue.front() {
        // All under one lock: the counter is atomic only so that it can be shared.
        let left = due.left.load(Ordering::Relaxed);
        let found = due.clone();
        due.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left <= 1 {
            queue.pop_front();
        }
        if left > 0 {
            return Some((found, left == 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::class::FaultClass;
    use super::*;

    #[test]
    fn steps_are_taken_by_reference_by_order_and_by_turn() {
        let scripted = Scripted::default();
        let text = "[[step]]\norder = \"order-7\"\nthen = \"faults.hang.after\"\ntimes = 2\n\
                    [[step]]\nclient_ref = \"order-7-2\"\nthen = \"deliver\"\n\
                    [[step]]\nnext = 2\nrefuse = \"operator_unavailable\"\nretry_after = \"1s\"\n";
        scripted.add(&Script::from_toml(text).unwrap()).unwrap();
        assert_eq!(scripted.take("order-7-1"), Some(Then::Face(FaultClass::HangAfter, None)));
        assert_eq!(scripted.take("order-7-2"), Some(Then::Deliver));
        assert_eq!(scripted.take("order-7-2"), Some(Then::Face(FaultClass::HangAfter, None)));
        for order in ["order-7-2", "order-8-1"] {
            assert!(matches!(scripted.take(order), Some(Then::Refuse(_))), "{order}");
        }
        assert_eq!((scripted.take("order-8-1"), scripted.waiting()), (None, 0));
    }

    #[test]
    fn of_orders_that_share_a_step_whichever_comes_first_takes_it() {
        let scripted = Scripted::default();
        let orders = ["order-1", "order-2", "order-3"].map(str::to_owned).to_vec();
        scripted.add(&Script::for_orders([(orders, FaultClass::Never)])).unwrap();
        assert_eq!((scripted.take("order-9-1"), scripted.waiting()), (None, 1));
        assert!(matches!(scripted.take("order-2-1"), Some(Then::Face(FaultClass::Never, Some(_)))));
        assert_eq!((scripted.take("order-1-1"), scripted.take("order-2-1"), scripted.waiting()), (None, None, 0));
    }
}
