//! Which lanes may serve an order: those of the first matching route whose providers sell the amount, in order of
//! preference. It goes to the first that takes orders; the next is tried once the one before has definitely done nothing.

use super::ids::{OrderId, ProviderId};
use super::money::{Currency, Money};
use super::msisdn::Msisdn;
use super::state::Reason;

/// Matches anything.
const ANY: &str = "*";

/// One thing that a provider sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// ISO 3166 country of the number, or `*`.
    pub country: String,
    /// The carrier, or `*`.
    pub carrier: String,
    /// What the customer gets, in minor units.
    pub amount_minor: i64,
    /// The amount's currency.
    pub currency: Currency,
    /// The provider's name for it.
    pub code: String,
    /// It is one of a range of amounts, which the provider wants to be told.
    pub is_ranged: bool,
}

/// What a provider sells, in the order of the configuration; the first that fits is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProductTable {
    products: Vec<Product>,
    country_matters: bool,
}

impl ProductTable {
    /// Takes the products in their order.
    pub fn new(products: Vec<Product>) -> Self {
        let country_matters = products.iter().any(|product| product.country != ANY);
        Self { products, country_matters }
    }

    /// What to ask for.
    pub fn find(&self, number: Msisdn, carrier: Option<&str>, amount: Money) -> Option<&Product> {
        let asked = Asked { country: self.country_matters.then(|| country_of(number)).flatten(), carrier, amount };
        self.products.iter().find(|product| asked.is(product))
    }
}

/// A provider on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Which provider.
    pub id: ProviderId,
    /// What it sells.
    pub products: Vec<Product>,
    /// It has no list of products: it takes every amount.
    pub sells_anything: bool,
}

/// Which numbers and amounts go to which lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// ISO 3166 country of the number, or `*`.
    pub country: String,
    /// The carrier that the order names, or `*`.
    pub carrier: String,
    /// Amounts in minor units; empty for all.
    pub amounts: Vec<i64>,
    /// In order of preference.
    pub lanes: Vec<Lane>,
    /// How often each lane comes first, against the others; empty: the first always does.
    pub weights: Vec<u32>,
}

impl Route {
    /// The route of an installation that has no other.
    pub fn everything(lanes: Vec<Lane>) -> Self {
        Self { country: ANY.to_owned(), carrier: ANY.to_owned(), amounts: Vec::new(), lanes, weights: Vec::new() }
    }
}

/// All routes, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
    /// No route or product looks at the country, so that finding it out can be spared.
    country_matters: bool,
}

impl RouteTable {
    /// Takes the routes in their order.
    pub fn new(routes: Vec<Route>) -> Self {
        let country_matters = routes.iter().any(|route| {
            let products = route.lanes.iter().flat_map(|lane| &lane.products);
            route.country != ANY || products.into_iter().any(|product| product.country != ANY)
        });
        Self { routes, country_matters }
    }

    /// The lanes that may serve an order, in the order in which they are tried; at least one. The carrier is what the
    /// order names. The same for as long as the configuration is.
    ///
    /// [`Reason::NoRoute`] where no route takes the number; [`Reason::AmountNotSupported`] where
    /// one does, but none for this amount.
    pub fn lanes(
        &self,
        order_id: &OrderId,
        number: Msisdn,
        carrier: Option<&str>,
        amount: Money,
    ) -> Result<impl Iterator<Item = &ProviderId> + Clone, Reason> {
        let asked = Asked { country: self.country_matters.then(|| country_of(number)).flatten(), carrier, amount };
        let mut known = false;
        for route in self.routes.iter().filter(|route| asked.is_from(&route.country, &route.carrier)) {
            known = true;
            if !route.amounts.is_empty() && !route.amounts.contains(&amount.minor) {
                continue;
            }
            let sells = |nth: usize| route.lanes.get(nth).is_some_and(|lane| asked.is_sold_by(lane));
            let Some(first) = (0..route.lanes.len()).find(|nth| sells(*nth)) else { continue };
            let first = route.drawn(order_id, sells).unwrap_or(first);
            let others = move |nth: &usize| *nth != first;
            let all = std::iter::once(first).chain((0..route.lanes.len()).filter(others));
            let sold = all.filter_map(move |nth| route.lanes.get(nth)).filter(move |lane| asked.is_sold_by(lane));
            return Ok(sold.map(|lane| &lane.id));
        }
        Err(if known { Reason::AmountNotSupported } else { Reason::NoRoute })
    }
}

impl RouteTable {
    /// Whether an order that is in this lane may go on to another.
    pub fn leads_on(&self, lane: &ProviderId) -> bool {
        self.routes.iter().any(|route| route.lanes.len() > 1 && route.lanes.iter().any(|own| own.id == *lane))
    }
}

impl Route {
    /// The lane that comes first for an order, by the weights of those that sell it.
    fn drawn(&self, order_id: &OrderId, sells: impl Fn(usize) -> bool) -> Option<usize> {
        let weight = |nth: usize| if sells(nth) { self.weights.get(nth).copied().map_or(0, u64::from) } else { 0 };
        let sum: u64 = (0..self.lanes.len()).map(weight).sum();
        let mut left = super::spread(order_id.as_str().as_bytes()).checked_rem(sum)?;
        (0..self.lanes.len()).find(|nth| {
            let weight = weight(*nth);
            let is_drawn = left < weight;
            left = left.saturating_sub(weight);
            is_drawn
        })
    }
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    country: Option<Country>,
    carrier: Option<&'a str>,
    amount: Money,
}

impl Asked<'_> {
    fn is_from(&self, country: &str, carrier: &str) -> bool {
        let same_country = country == ANY || self.country.as_ref().is_some_and(|own| own.as_str() == country);
        // A route for one carrier is never taken on a guess.
        let same_carrier = carrier == ANY || self.carrier.is_some_and(|own| own.eq_ignore_ascii_case(carrier));
        same_country && same_carrier
    }

    fn is_sold_by(&self, lane: &Lane) -> bool {
        lane.sells_anything || lane.products.iter().any(|product| self.is(product))
    }

    fn is(&self, product: &Product) -> bool {
        product.amount_minor == self.amount.minor
            && product.currency == self.amount.currency
            && self.is_from(&product.country, &product.carrier)
    }
}

/// An ISO 3166 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Country {
    /// `CN`.
    China,
    /// Any other.
    Other(phonenumber::country::Id),
}

impl Country {
    /// The two letters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::China => "CN",
            Self::Other(id) => id.as_ref(),
        }
    }
}

/// The country of a number. Mainland China, nearly all of the traffic, is told by its calling
/// code, which it shares with nobody; the full metadata costs microseconds.
pub fn country_of(number: Msisdn) -> Option<Country> {
    let text = number.expose();
    if text.starts_with("+86") {
        return Some(Country::China);
    }
    phonenumber::parse(None, &text).ok()?.country().id().map(Country::Other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Msisdn {
        Msisdn::from_e164(text).unwrap()
    }

    fn yuan(minor: i64) -> Money {
        Money { minor, currency: Currency::parse("CNY").unwrap() }
    }

    fn product(country: &str, carrier: &str, amount_minor: i64) -> Product {
        Product {
            country: country.to_owned(),
            carrier: carrier.to_owned(),
            amount_minor,
            currency: Currency::parse("CNY").unwrap(),
            code: format!("{country}-{carrier}-{amount_minor}"),
            is_ranged: false,
        }
    }

    fn lane(name: &str, products: Vec<Product>) -> Lane {
        Lane { id: ProviderId::new(name), sells_anything: products.is_empty(), products }
    }

    fn route(country: &str, carrier: &str, amounts: &[i64], lanes: Vec<Lane>) -> Route {
        let (country, carrier) = (country.to_owned(), carrier.to_owned());
        Route { country, carrier, amounts: amounts.to_vec(), lanes, weights: Vec::new() }
    }

    const CHINESE: &str = "+8613800000001";
    const SINGAPOREAN: &str = "+6591234567";

    fn chosen(table: &RouteTable, to: &str, carrier: Option<&str>, amount: Money) -> Result<String, Reason> {
        all(table, "o-1", to, carrier, amount).map(|lanes| lanes[0].clone())
    }

    fn all(
        table: &RouteTable,
        id: &str,
        to: &str,
        carrier: Option<&str>,
        amount: Money,
    ) -> Result<Vec<String>, Reason> {
        let id = OrderId::parse(id).unwrap();
        let lanes = table.lanes(&id, number(to), carrier, amount)?;
        Ok(lanes.map(ToString::to_string).collect())
    }

    #[test]
    fn the_lanes_that_sell_it_are_tried_in_their_order() {
        let lanes = ["a", "b", "c"].map(|name| lane(name, vec![product("*", "*", if name == "b" { 1 } else { 5000 })]));
        let table = RouteTable::new(vec![Route::everything(lanes.into())]);
        assert_eq!(all(&table, "o-1", CHINESE, None, yuan(5000)).unwrap(), ["a", "c"]);
    }

    #[test]
    fn weights_spread_the_orders_over_the_lanes_that_sell_them() {
        let mut route = Route::everything(["a", "b", "c", "d"].map(|name| lane(name, Vec::new())).into());
        route.lanes[3] = lane("d", vec![product("*", "*", 1)]);
        route.weights = vec![6, 3, 0, 50];
        let table = RouteTable::new(vec![route]);
        let mut firsts = std::collections::BTreeMap::<String, u32>::new();
        for nth in 0..9_000 {
            let lanes = all(&table, &format!("order-{nth}"), CHINESE, None, yuan(5000)).unwrap();
            assert_eq!(lanes.len(), 3);
            assert_eq!(lanes, all(&table, &format!("order-{nth}"), CHINESE, None, yuan(5000)).unwrap());
            let mut others: Vec<&String> = lanes[1..].iter().collect();
            let preferred = others.clone();
            others.sort();
            assert_eq!(others, preferred, "behind the first they keep their order");
            *firsts.entry(lanes[0].clone()).or_default() += 1;
        }
        let of = |name: &str| firsts.get(name).copied().unwrap_or_default();
        assert!((5_700..6_300).contains(&of("a")) && (2_700..3_300).contains(&of("b")), "{firsts:?}");
        assert_eq!((of("c"), of("d")), (0, 0), "a weight of 0 is a lane for those that others have refused");
        assert_eq!(all(&table, "o-1", CHINESE, None, yuan(1)).unwrap()[0], "d", "50 of 59, drawn for this id");
    }

    #[test]
    fn a_route_for_everything_takes_every_number_and_amount() {
        let table = RouteTable::new(vec![Route::everything(vec![lane("only", Vec::new())])]);
        assert_eq!(chosen(&table, CHINESE, None, yuan(5000)), Ok("only".to_owned()));
        assert_eq!(chosen(&table, SINGAPOREAN, Some("x"), yuan(1)), Ok("only".to_owned()));
    }

    #[test]
    fn the_first_lane_that_sells_the_amount_is_chosen() {
        let small = lane("small", vec![product("CN", "*", 1000)]);
        let large = lane("large", vec![product("CN", "*", 1000), product("CN", "*", 5000)]);
        let table = RouteTable::new(vec![route("CN", "*", &[], vec![small, large])]);
        assert_eq!(chosen(&table, CHINESE, None, yuan(1000)), Ok("small".to_owned()));
        assert_eq!(chosen(&table, CHINESE, None, yuan(5000)), Ok("large".to_owned()));
        assert_eq!(chosen(&table, CHINESE, None, yuan(7000)), Err(Reason::AmountNotSupported));
        assert_eq!(chosen(&table, SINGAPOREAN, None, yuan(1000)), Err(Reason::NoRoute));
    }

    #[test]
    fn the_first_product_that_fits_is_asked_for() {
        let products = [("SG", "*", 1000), ("CN", "unicom", 5000), ("CN", "*", 5000)];
        let table =
            ProductTable::new(products.map(|(country, carrier, amount)| product(country, carrier, amount)).into());
        let code = |to, carrier, minor| table.find(number(to), carrier, yuan(minor)).map(|found| found.code.as_str());
        assert_eq!(code(CHINESE, Some("unicom"), 5000), Some("CN-unicom-5000"));
        assert_eq!(code(CHINESE, None, 5000), Some("CN-*-5000"), "a carrier is never guessed");
        assert_eq!(code(SINGAPOREAN, None, 1000), Some("SG-*-1000"));
        assert_eq!(code(CHINESE, None, 1000), None);
    }

    #[test]
    fn a_route_for_one_carrier_is_taken_only_if_the_order_names_it() {
        let table = RouteTable::new(vec![
            route("CN", "unicom", &[], vec![lane("special", Vec::new())]),
            route("CN", "*", &[5000], vec![lane("general", Vec::new())]),
        ]);
        assert_eq!(chosen(&table, CHINESE, Some("Unicom"), yuan(5000)), Ok("special".to_owned()));
        assert_eq!(chosen(&table, CHINESE, Some("mobile"), yuan(5000)), Ok("general".to_owned()));
        assert_eq!(chosen(&table, CHINESE, None, yuan(5000)), Ok("general".to_owned()));
        assert_eq!(chosen(&table, CHINESE, None, yuan(6000)), Err(Reason::AmountNotSupported));
    }

    #[test]
    fn another_currency_of_the_same_figure_is_not_the_same_amount() {
        let table = RouteTable::new(vec![route("*", "*", &[], vec![lane("one", vec![product("*", "*", 5000)])])]);
        let dollars = Money { minor: 5000, currency: Currency::parse("USD").unwrap() };
        assert_eq!(chosen(&table, CHINESE, None, dollars), Err(Reason::AmountNotSupported));
    }

    #[test]
    fn countries_are_told_apart_by_the_number() {
        let table = RouteTable::new(vec![
            route("SG", "*", &[], vec![lane("sg", Vec::new())]),
            route("TW", "*", &[], vec![lane("tw", Vec::new())]),
            route("CN", "*", &[], vec![lane("cn", Vec::new())]),
        ]);
        assert_eq!(chosen(&table, SINGAPOREAN, None, yuan(1)), Ok("sg".to_owned()));
        assert_eq!(chosen(&table, "+886912345678", None, yuan(1)), Ok("tw".to_owned()));
        assert_eq!(chosen(&table, CHINESE, None, yuan(1)), Ok("cn".to_owned()));
    }

    proptest! {
        #[test]
        fn the_short_rule_for_china_agrees_with_the_full_metadata(rest in 0_u64..1_000_000_000) {
            let text = format!("+8613{rest:09}");
            let full = phonenumber::parse(None, &text).unwrap();
            prop_assert_eq!(full.country().id(), Some(phonenumber::country::CN));
            prop_assert_eq!(country_of(number(&text)), Some(Country::China));
        }

        #[test]
        fn a_chosen_lane_stands_on_a_route_and_sells_the_amount(amount in 1_i64..6, split in 1_i64..6) {
            let low = lane("low", (1..=split).map(|minor| product("*", "*", minor)).collect());
            let table = RouteTable::new(vec![Route::everything(vec![low])]);
            let expected = if amount <= split { Ok("low".to_owned()) } else { Err(Reason::AmountNotSupported) };
            prop_assert_eq!(chosen(&table, CHINESE, None, yuan(amount)), expected);
        }
    }
}
