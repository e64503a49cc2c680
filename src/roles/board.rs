//! Which lanes take orders, as far as this process knows: whoever runs a lane says how its provider is, an operator
//! may have paused it, and whoever chooses lanes looks here.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::domain::ProviderId;

/// Why a lane takes no orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shut {
    /// By an operator, for the whole fleet.
    paused: bool,
    /// By what this process has seen of its provider.
    sick: bool,
}

/// The lanes of a process.
#[derive(Debug, Default)]
pub struct LaneBoard(RwLock<BTreeMap<ProviderId, Shut>>);

impl LaneBoard {
    /// An operator paused these lanes, and no others.
    pub fn set_paused(&self, paused: &[ProviderId]) {
        let mut lanes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        lanes.values_mut().for_each(|shut| shut.paused = false);
        for lane in paused {
            lanes.entry(lane.clone()).or_default().paused = true;
        }
    }

    /// How a lane's provider is.
    pub fn set_sick(&self, lane: &ProviderId, sick: bool) {
        let mut lanes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(lane.clone()).or_default().sick = sick;
    }

    /// Whether an operator paused a lane.
    pub fn is_paused(&self, lane: &ProviderId) -> bool {
        let lanes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(lane).is_some_and(|shut| shut.paused)
    }

    /// Whether a lane takes orders.
    pub fn is_open(&self, lane: &ProviderId) -> bool {
        let lanes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(lane).is_none_or(|shut| !shut.paused && !shut.sick)
    }

    /// The lanes that take none.
    pub fn shut(&self) -> Vec<ProviderId> {
        let lanes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().filter(|(_, shut)| shut.paused || shut.sick).map(|(lane, _)| lane.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_open_unless_it_is_paused_or_its_provider_sick() {
        let (board, one, two) = (LaneBoard::default(), ProviderId::new("one"), ProviderId::new("two"));
        assert!(board.is_open(&one) && board.shut().is_empty());
        board.set_paused(std::slice::from_ref(&one));
        board.set_sick(&two, true);
        assert_eq!((board.is_paused(&one), board.is_open(&one), board.is_open(&two)), (true, false, false));
        assert_eq!(board.shut(), [one.clone(), two.clone()]);
        board.set_sick(&one, true);
        board.set_paused(&[]);
        assert_eq!((board.is_paused(&one), board.is_open(&one)), (false, false), "it is sick all the same");
        board.set_sick(&one, false);
        board.set_sick(&two, false);
        assert!(board.is_open(&one) && board.shut().is_empty());
    }
}
