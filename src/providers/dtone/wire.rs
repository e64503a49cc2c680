//! DT One's JSON, read leniently: fields are added without notice, and one branch of the published schema fits no value.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::{Currency, Money, Receipt};
use crate::providers::answers::Object;
use crate::providers::decimal::from_decimal;

/// `POST /async/transactions`.
#[derive(Serialize)]
pub(super) struct NewTransaction<'a> {
    pub(super) external_id: &'a str,
    pub(super) product_id: u64,
    pub(super) auto_confirm: bool,
    pub(super) credit_party_identifier: CreditParty,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) callback_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) calculation_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination: Option<Destination<'a>>,
}

#[derive(Serialize)]
pub(super) struct CreditParty {
    pub(super) mobile_number: String,
}

/// What the recipient gets, of a product of a range.
#[derive(Serialize)]
pub(super) struct Destination<'a> {
    pub(super) unit_type: &'static str,
    pub(super) unit: &'a str,
    /// A number in major units.
    pub(super) amount: Box<RawValue>,
}

/// A transaction, as far as we look at it. `R`: what it is called by us, which one that was not made by us need not be.
#[derive(Deserialize)]
pub(super) struct Transaction<R = String> {
    pub(super) id: u64,
    pub(super) external_id: R,
    pub(super) status: Object<Status>,
    /// Under this it is filed; of no interest where one transaction is asked about.
    pub(super) creation_date: Option<String>,
    adjusted_values: Option<Object<Values>>,
    requested_values: Option<Object<Values>>,
    benefits: Option<Vec<Object<Benefit>>>,
}

/// The class decides; the message is a detail of it.
#[derive(Deserialize)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) class: Object<Class>,
}

#[derive(Deserialize)]
pub(super) struct Class {
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Values {
    destination: Option<Object<Amount>>,
}

#[derive(Deserialize)]
struct Amount {
    unit: String,
    amount: Box<RawValue>,
}

#[derive(Deserialize)]
struct Benefit {
    #[serde(rename = "type")]
    kind: String,
    unit_type: String,
    unit: String,
    amount: Option<Object<BenefitAmount>>,
}

#[derive(Deserialize)]
struct BenefitAmount {
    base: Option<Box<RawValue>>,
}

/// Every error of a call.
#[derive(Deserialize)]
pub(super) struct Errors {
    pub(super) errors: Vec<Object<ApiError>>,
}

#[derive(Deserialize)]
pub(super) struct ApiError {
    pub(super) code: u64,
}

impl<R> Transaction<R> {
    pub(super) fn reference(&self) -> String {
        self.id.to_string()
    }

    /// What it says it delivered. A bonus on top is none of the order's business.
    pub(super) fn receipt(&self) -> Receipt {
        let ranged = [&self.adjusted_values, &self.requested_values]
            .into_iter()
            .find_map(|values| values.as_ref()?.destination.as_ref());
        let delivered = match ranged {
            Some(amount) => money(&amount.unit, &amount.amount),
            None => self.credits(),
        };
        Receipt { provider_ref: Some(self.reference()), delivered, delivered_at: None }
    }

    /// Of a product of one amount: its one benefit in a currency.
    fn credits(&self) -> Option<Money> {
        let benefits = self.benefits.as_deref().unwrap_or_default();
        let mut credits =
            benefits.iter().filter(|benefit| benefit.kind == "CREDITS" && benefit.unit_type == "CURRENCY");
        match (credits.next(), credits.next()) {
            (Some(only), None) => money(&only.unit, only.amount.as_ref()?.base.as_ref()?),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }
}

fn money(unit: &str, amount: &RawValue) -> Option<Money> {
    from_decimal(amount.get(), Currency::parse(unit).ok()?)
}
