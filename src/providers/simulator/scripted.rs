//! A script at work: the steps that wait for their submits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::script::{STEPS_MAX, Script, ScriptError, Step, Then};
use super::strikes::order_of;

/// The steps that wait.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    /// Nothing waits, mostly.
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_ref: HashMap<String, VecDeque<(u32, Step)>>,
    by_order: HashMap<String, VecDeque<(u32, Step)>>,
    next: VecDeque<(u32, Step)>,
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
            let queue = match (&step.client_ref, &step.order) {
                (Some(reference), _) => waiting.by_ref.entry(reference.clone()).or_default(),
                (None, Some(order)) => waiting.by_order.entry(order.clone()).or_default(),
                (None, None) => &mut waiting.next,
            };
            queue.push_back((step.times(), step.clone()));
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
        let queue = match (by_ref.get_mut(reference), by_order.get_mut(order_of(reference))) {
            (Some(queue), _) | (None, Some(queue)) => queue,
            (None, None) => next,
        };
        let (left, step) = queue.front_mut()?;
        let then = step.then().ok();
        *left = left.saturating_sub(1);
        if *left == 0 {
            queue.pop_front();
            *steps = steps.saturating_sub(1);
            if by_ref.get(reference).is_some_and(VecDeque::is_empty) {
                by_ref.remove(reference);
            }
            if by_order.get(order_of(reference)).is_some_and(VecDeque::is_empty) {
                by_order.remove(order_of(reference));
            }
        }
        self.any.store(*steps > 0, Ordering::Release);
        then
    }
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
        assert_eq!(scripted.take("order-7-1"), Some(Then::Face(FaultClass::HangAfter)));
        assert_eq!(scripted.take("order-7-2"), Some(Then::Deliver));
        assert_eq!(scripted.take("order-7-2"), Some(Then::Face(FaultClass::HangAfter)));
        for order in ["order-7-2", "order-8-1"] {
            assert!(matches!(scripted.take(order), Some(Then::Refuse(_))), "{order}");
        }
        assert_eq!((scripted.take("order-8-1"), scripted.waiting()), (None, 0));
    }
}
