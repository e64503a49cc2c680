//! The demo's trouble: each class that its provider rates strikes one order for certain, so that a
//! short run shows what a long one would; and what is said when one struck none. Of a run that is long
//! enough, chance must have struck too, by itself.

use std::collections::{BTreeMap, HashSet};

use crate::providers::simulator::{FaultClass, Profile, Script, Strike};
use crate::shop::Shop;

/// The orders that certain classes are sure to strike lie among the first of these.
const AMONG: u64 = 2_000;
/// Orders that each class needs: one, and others in its place.
const ORDERS_EACH: usize = 3;
/// What chance is expected to strike so often, and a fifth less for orders that are not sent, misses everybody
/// once in ten thousand million runs.
const SURE_BY_CHANCE: f64 = 30.0;

/// Which order is to meet which class, with others in its place: a request that nobody saw, lost
/// in an outage, is not made again for a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    certain: Vec<(Vec<String>, FaultClass)>,
    /// What the rates alone must strike somebody with, in so many orders.
    by_chance: Vec<FaultClass>,
}

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
        let certain = plan.into_iter().map(|(_, orders, class)| (orders, class)).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of orders")]
        let submits = shop.orders.unwrap_or(0) as f64;
        let is_sure = |(_, rate): &(FaultClass, f64)| rate * submits >= SURE_BY_CHANCE;
        let by_chance = profile.rates_of_submits().into_iter().filter(is_sure).map(|(class, _)| class).collect();
        Ok(Self { certain, by_chance })
    }

    pub(super) fn script(&self) -> Script {
        Script::for_orders(self.certain.iter().cloned())
    }

    /// What must strike somebody.
    pub(super) fn expected(&self) -> Expected {
        let at_all = self.certain.iter().map(|(_, class)| *class).collect();
        Expected { at_all, by_chance: self.by_chance.clone() }
    }
}

/// The classes that must strike somebody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Expected {
    pub(super) at_all: Vec<FaultClass>,
    /// Without a script that makes them.
    pub(super) by_chance: Vec<FaultClass>,
}

impl Expected {
    /// Those that struck nobody, as the provider counted; at all, and by chance.
    pub(super) fn untouched(&self, strikes: &[Strike]) -> (Vec<FaultClass>, Vec<FaultClass>) {
        let but = |expected: &[FaultClass], struck: &dyn Fn(&Strike) -> bool| {
            let struck: HashSet<FaultClass> =
                strikes.iter().filter(|strike| struck(strike)).map(|strike| strike.class).collect();
            expected.iter().copied().filter(|class| !struck.contains(class)).collect()
        };
        (but(&self.at_all, &|strike| strike.orders > 0), but(&self.by_chance, &|strike| strike.by_chance > 0))
    }
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
        let Trouble { certain: plan, .. } = Trouble::plan(&profile, &shop(200)).unwrap();
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
        assert_eq!(
            Trouble::plan(&Profile::default(), &shop(1)),
            Ok(Trouble { certain: Vec::new(), by_chance: Vec::new() })
        );
        for profile in [Profile::some_faults(), Profile::storm()] {
            let TooFewOrders { classes, least } = Trouble::plan(&profile, &shop(1)).unwrap_err();
            assert_eq!(classes, profile.classes().len());
            assert_eq!(Trouble::plan(&profile, &shop(least - 1)), Err(TooFewOrders { classes, least }));
            let mut expected = Trouble::plan(&profile, &shop(least)).unwrap().expected().at_all;
            let mut all = profile.classes();
            expected.sort_by_key(|class| class.as_str());
            all.sort_by_key(|class| class.as_str());
            assert_eq!(expected, all);
        }
    }

    #[test]
    fn a_class_that_struck_nobody_is_found() {
        let strike = |class, orders, by_chance| Strike { class, requests: orders, orders, by_chance };
        let strikes = [
            strike(FaultClass::Never, 1, 0),
            strike(FaultClass::Stale, 0, 0),
            strike(FaultClass::Cooldown, 0, 0),
            strike(FaultClass::Fatal, 2, 1),
        ];
        let expected = Expected {
            at_all: vec![FaultClass::Never, FaultClass::Stale, FaultClass::Outage, FaultClass::Fatal],
            by_chance: vec![FaultClass::Never, FaultClass::Fatal],
        };
        let (at_all, by_chance) = expected.untouched(&strikes);
        assert_eq!(at_all, [FaultClass::Stale, FaultClass::Outage]);
        assert_eq!(by_chance, [FaultClass::Never], "a script made it strike, and not its rate");
    }

    #[test]
    fn in_a_run_that_is_long_enough_chance_must_strike_by_itself() {
        let by_chance = |orders| Trouble::plan(&Profile::storm(), &shop(orders)).unwrap().expected().by_chance;
        assert_eq!(by_chance(300), [FaultClass::Retryable]);
        let all = by_chance(100_000);
        let of_submits = Profile::storm().rates_of_submits().into_iter().filter(|(_, rate)| *rate > 0.0);
        assert_eq!(all, of_submits.map(|(class, _)| class).collect::<Vec<_>>());
    }
}
