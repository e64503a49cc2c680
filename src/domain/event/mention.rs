//! Looking for what is known of an order in the log itself: a number, a payment, a provider's reference. The log is
//! text, so an entry that speaks of it holds certain words; they need no index, which would cost each order something.

use super::LoggedEvent;

/// What an order is looked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mention {
    /// The keyed hash of its number, as the log has it.
    Phone(String),
    /// Its payment.
    Payment(String),
    /// A reference under which a provider knows it, ours or the provider's own.
    Reference(String),
}

impl Mention {
    /// Texts of which an entry that speaks of it holds one. Others may hold them too: [`Self::is_in`] decides.
    pub fn marks(&self) -> Vec<String> {
        let mark = |name: &str, value: &str| {
            // As the entry's own writer quotes it.
            format!("\"{name}\":{}", serde_json::Value::from(value))
        };
        match self {
            Self::Phone(hash) => vec![mark("ph", hash)],
            Self::Payment(payment) => vec![mark("pi", payment)],
            Self::Reference(reference) => vec![mark("cr", reference), mark("pr", reference)],
        }
    }

    /// Whether an entry speaks of it.
    pub fn is_in(&self, event: &LoggedEvent) -> bool {
        let data = &event.data;
        match self {
            Self::Phone(hash) => data.facts.as_ref().is_some_and(|facts| facts.phone_hash.as_deref() == Some(hash)),
            Self::Payment(payment) => {
                let told = data.facts.as_ref().and_then(|facts| facts.payment_id.as_deref());
                let later = data.payment.as_ref().and_then(|payment| payment.payment_id.as_deref());
                let refunded = data.refund.as_ref().and_then(|refund| refund.payment_id.as_deref());
                [told, later, refunded].contains(&Some(payment))
            }
            Self::Reference(reference) => data.attempt_news.as_ref().is_some_and(|news| {
                news.provider_ref.as_deref() == Some(reference)
                    || news.client_ref.as_ref().is_some_and(|ours| ours.as_str() == reference)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{EventData, EventType, Facts, Payment};
    use crate::domain::{Currency, OrderId, State, Timestamp};

    fn event(facts: Option<Facts>, payment: Option<Payment>) -> LoggedEvent {
        LoggedEvent {
            order_id: OrderId::parse("o-1").unwrap(),
            version: 1,
            kind: EventType::Queued,
            at: Timestamp::UNIX_EPOCH,
            data: EventData {
                facts: facts.map(Box::new),
                payment: payment.map(Box::new),
                ..EventData::aside(State::Queued, Timestamp::UNIX_EPOCH)
            },
        }
    }

    fn facts(payment_id: &str) -> Facts {
        Facts {
            amount_minor: 1,
            currency: Currency::parse("CNY").unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            paid_at: None,
            payment_id: Some(payment_id.into()),
            carrier: None,
            notify: false,
            phone_hash: Some("0a1b".into()),
        }
    }

    #[test]
    fn what_an_entry_speaks_of_stands_in_its_line_word_for_word() {
        let odd = "pay \"1\" \\ ünï / \u{7}";
        let payment = Payment { paid_at: Timestamp::UNIX_EPOCH, payment_id: Some(odd.into()) };
        for (entry, mention) in [
            (event(Some(facts("pay-1")), None), Mention::Payment("pay-1".to_owned())),
            (event(Some(facts(odd)), None), Mention::Payment(odd.to_owned())),
            (event(None, Some(payment)), Mention::Payment(odd.to_owned())),
            (event(Some(facts("pay-1")), None), Mention::Phone("0a1b".to_owned())),
        ] {
            let line = entry.to_line();
            assert!(mention.is_in(&entry), "{line}");
            assert!(mention.marks().iter().any(|mark| line.contains(mark.as_str())), "{line}: {mention:?}");
        }
        let entry = event(Some(facts("pay-1")), None);
        for other in [Mention::Payment("pay".to_owned()), Mention::Phone("0a1".to_owned())] {
            assert!(!other.is_in(&entry), "{other:?}");
        }
    }
}
