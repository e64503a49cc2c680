//! Which lane an order goes to: the first lane, in order of preference, of the first matching
//! route whose provider sells the amount.

use super::ids::ProviderId;
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
}

impl Route {
    /// The route of an installation that has no other.
    pub fn everything(lanes: Vec<Lane>) -> Self {
        Self { country: ANY.to_owned(), carrier: ANY.to_owned(), amounts: Vec::new(), lanes }
    }
}

/// All routes, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// The lane for a number, the carrier that its order names, and an amount.
    ///
    /// [`Reason::NoRoute`] where no route takes the number; [`Reason::AmountNotSupported`] where
    /// one does, but none for this amount.
    pub fn choose(&self, number: &Msisdn, carrier: Option<&str>, amount: Money) -> Result<&ProviderId, Reason> {
        let asked = Asked { country: self.country_matters.then(|| country_of(*number)).flatten(), carrier, amount };
        let mut known = false;
        for route in self.routes.iter().filter(|route| asked.is_from(&route.country, &route.carrier)) {
            known = true;
            if !route.amounts.is_empty() && !route.amounts.contains(&amount.minor) {
                continue;
            }
            if let Some(lane) = route.lanes.iter().find(|lane| asked.is_sold_by(lane)) {
                return Ok(&lane.id);
            }
        }
        Err(if known { Reason::AmountNotSupported } else { Reason::NoRoute })
    }
}

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
        Route { country: country.to_owned(), carrier: carrier.to_owned(), amounts: amounts.to_vec(), lanes }
    }

    const CHINESE: &str = "+8613800000001";
    const SINGAPOREAN: &str = "+6591234567";

    fn chosen(table: &RouteTable, to: &str, carrier: Option<&str>, amount: Money) -> Result<String, Reason> {
        table.choose(&number(to), carrier, amount).map(ToString::to_string)
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
