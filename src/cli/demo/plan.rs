//! The demo's trouble: each class that its provider rates strikes one order for certain, so that a
//! short run shows what a long one would; and what is said when one struck none.

use std::collections::{BTreeMap, HashSet};

use crate::providers::simulator::{FaultClass, Profile, Script, Strike};
use crate::shop::Shop;

/// The orders that certain classes are sure to strike lie among the first of these.
const AMONG: u64 = 2_000;
/// Orders that each class needs: one, and others in its place.
const ORDERS_EACH: usize = 3;

/// Which order is to meet which class, with others in its place: a request that nobody saw, lost
/// in an outage, is not made again for a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble(Vec<(Vec<String>, FaultClass)>);

/// A run is too short for each class to strike somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooFewOrders {
    /// Classes that must strike.
    pub(super) classes: usize,
    /// Orders that this shop has to sell, so that enough of them can be recharged.
    pub(super) least: u64,
}

impl Trouble {
    /// Spread over the beginning of what is sold.
    pub(super) fn plan(profile: &Profile, shop: &Shop) -> Result<Self, TooFewOrders> {
        let mut classes = profile.classes();
        let wanted = classes.len() * ORDERS_EACH;
        let all = Shop { orders: None, ..shop.clone() };
        let least = (0..AMONG).find(|count| all.usable(*count).len() >= wanted).unwrap_or(AMONG);
        if shop.orders.is_some_and(|orders| orders < least) {
            return Err(TooFewOrders { classes: classes.len(), least });
        }
        // Last, since it is the one that can swallow what comes beside it.
        classes.sort_by_key(|class| *class == FaultClass::Outage);
        let orders = shop.usable(AMONG.min(shop.orders.unwrap_or(AMONG)));
        let stride = (orders.len() / classes.len().max(1)).max(1);
        let mut free: BTreeMap<usize, String> = orders.into_iter().enumerate().collect();
        let places = (0..free.len()).step_by(stride).zip(classes);
        let mut plan: Vec<(usize, Vec<String>, FaultClass)> =
            places.map(|(place, class)| (place, free.remove(&place).into_iter().collect(), class)).collect();
        let shift = free.len().max(plan.len() * stride) / 3;
        for (place, orders, _) in plan.iter_mut().filter(|(_, _, class)| *class != FaultClass::Outage) {
            for later in [*place + shift, *place + 2 * shift] {
                // From there on, or else from the beginning.
                let next = free.range(later..).next().or_else(|| free.first_key_value()).map(|(next, _)| *next);
                orders.extend(next.and_then(|next| free.remove(&next)));
            }
        }
        Ok(Self(plan.into_iter().map(|(_, orders, class)| (orders, class)).collect()))
    }

    pub(super) fn script(&self) -> Script {
        Script::for_orders(self.0.iter().cloned())
    }

    /// What must strike somebody.
    pub(super) fn expected(&self) -> Vec<FaultClass> {
        self.0.iter().map(|(_, class)| *class).collect()
    }
}

/// Of the classes that must strike somebody those that struck nobody, as the provider counted.
pub(super) fn untouched(expected: &[FaultClass], strikes: &[Strike]) -> Vec<FaultClass> {
    let struck: HashSet<FaultClass> =
        strikes.iter().filter(|strike| strike.orders > 0).map(|strike| strike.class).collect();
    expected.iter().copied().filter(|class| !struck.contains(class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop(orders: u64) -> Shop {
        Shop { rate: 1.0, orders: Some(orders), prefix: "demo".to_owned(), seed: 7, unusable: 0.1, repeated: 0.1 }
    }

    #[test]
    fn each_class_has_an_order_of_its_own_that_can_be_recharged() {
        let profile = Profile::some_faults();
        let Trouble(plan) = Trouble::plan(&profile, &shop(200)).unwrap();
        let planned: HashSet<FaultClass> = plan.iter().map(|(_, class)| *class).collect();
        assert_eq!(planned, profile.classes().into_iter().collect());
        assert_eq!(plan.last().unwrap().1, FaultClass::Outage);
        let usable = shop(200).usable(200);
        let orders: Vec<&String> = plan.iter().flat_map(|(orders, _)| orders).collect();
        assert_eq!(orders.iter().collect::<HashSet<_>>().len(), orders.len(), "none has to meet two");
        assert!(orders.iter().all(|order| usable.contains(order)));
        assert!(plan[..plan.len() - 1].iter().all(|(orders, _)| orders.len() == 3), "{plan:?}");
        Script::for_orders(plan).check().unwrap();
    }

    #[test]
    fn a_run_that_is_too_short_for_every_class_to_strike_is_told_how_long_it_must_be() {
        assert_eq!(Trouble::plan(&Profile::default(), &shop(1)), Ok(Trouble(Vec::new())));
        for profile in [Profile::some_faults(), Profile::storm()] {
            let TooFewOrders { classes, least } = Trouble::plan(&profile, &shop(1)).unwrap_err();
            assert_eq!(classes, profile.classes().len());
            assert_eq!(Trouble::plan(&profile, &shop(least - 1)), Err(TooFewOrders { classes, least }));
            let mut expected = Trouble::plan(&profile, &shop(least)).unwrap().expected();
            let mut all = profile.classes();
            expected.sort_by_key(|class| class.as_str());
            all.sort_by_key(|class| class.as_str());
            assert_eq!(expected, all);
        }
    }

    #[test]
    fn a_class_that_struck_nobody_is_found() {
        let strike = |class, orders| Strike { class, requests: orders, orders };
        let strikes = [strike(FaultClass::Never, 1), strike(FaultClass::Stale, 0), strike(FaultClass::Cooldown, 0)];
        let expected = [FaultClass::Never, FaultClass::Stale, FaultClass::Outage];
        assert_eq!(untouched(&expected, &strikes), [FaultClass::Stale, FaultClass::Outage]);
        assert_eq!(untouched(&expected[..1], &strikes), []);
    }
}
