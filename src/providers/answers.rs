//! What every adapter makes of an answer in the same way.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use hyper::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tracing::warn;

use super::http::{HttpResponse, retry_after};
use crate::domain::{
    Failure, FailureClass, NotSentCause, ProviderId, QueryOutcome, RetryAdvice, SubmitOutcome, Timestamp, UnknownCause,
};
use crate::metrics::ProviderMetrics;
use crate::ports::CallbackNews;

/// So many undocumented codes are named in the log; each once.
const NAMED_MAX: usize = 100;
/// Of a code that nobody documents, this much is named.
const NAME_MAX: usize = 40;

/// A code of a provider's table, and what a refusal by it means.
pub(super) type Refusal<C> = (C, FailureClass, RetryAdvice);

/// The refusal of a code, if its table has it.
pub(super) fn refusal<C: PartialEq + Copy + ToString>(table: &[Refusal<C>], code: C) -> Option<Failure> {
    let (code, class, advice) = *table.iter().find(|(known, ..)| *known == code)?;
    Some(Failure { class, code: code.to_string(), advice })
}

/// A submit that a table of products does not know: it was routed by another configuration.
pub(super) fn not_sold() -> SubmitOutcome {
    SubmitOutcome::Rejected(Failure {
        class: FailureClass::AmountNotAllowed,
        code: "no_product".to_owned(),
        advice: RetryAdvice::Never,
    })
}

/// Of a submit, where the body decides nothing.
pub(super) fn by_status(response: &HttpResponse, now: Timestamp, otherwise: UnknownCause) -> SubmitOutcome {
    match response.status {
        StatusCode::TOO_MANY_REQUESTS => SubmitOutcome::Throttled { retry_after: retry_after(&response.headers, now) },
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => SubmitOutcome::Rejected(Failure {
            class: FailureClass::AuthOrConfig,
            code: status.as_str().to_owned(),
            advice: RetryAdvice::AfterOperatorAction,
        }),
        status => SubmitOutcome::Unknown(unknown_by_status(status, otherwise)),
    }
}

/// A server's error is told apart from an answer that makes no sense.
pub(super) fn unknown_by_status(status: StatusCode, otherwise: UnknownCause) -> UnknownCause {
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        UnknownCause::ServerError
    } else {
        otherwise
    }
}

/// Of a question, where the body decides nothing. It speaks of this one reference, whatever wait it names, unless its
/// status says that we are too fast: an error page of the query endpoint is no reason to let anything else rest.
pub(super) fn query_by_status(response: &HttpResponse, now: Timestamp) -> QueryOutcome {
    let retry_after = retry_after(&response.headers, now);
    match response.status {
        StatusCode::TOO_MANY_REQUESTS => QueryOutcome::Throttled { retry_after },
        _ => QueryOutcome::Unavailable { retry_after },
    }
}

/// Of a question that got no answer.
pub(super) fn query_unanswered(not_sent: Option<NotSentCause>) -> QueryOutcome {
    match not_sent {
        Some(NotSentCause::WindowClosed) => QueryOutcome::NotAsked,
        Some(NotSentCause::Connect | NotSentCause::NoPermit | NotSentCause::Unbuildable) | None => {
            QueryOutcome::Unavailable { retry_after: None }
        }
    }
}

/// A callback that says something, and nothing that can be read.
pub(super) fn unreadable_callback(is_proven: bool) -> CallbackNews {
    let said = QueryOutcome::Unavailable { retry_after: None };
    CallbackNews { client_ref: None, provider_ref: None, said, is_proven }
}

/// The longest reference of theirs that is kept, in characters.
const REFERENCE_MAX: usize = 128;

/// A provider's own reference, where it is one: it stands in rows, commands and logs. Without it ours is asked about.
pub(super) fn plain(reference: String) -> Option<String> {
    let fits = (1..=REFERENCE_MAX).contains(&reference.chars().count()) && !reference.chars().any(char::is_control);
    fits.then_some(reference)
}

/// The same, in a body.
pub(super) fn plain_reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer).map(|reference: Option<String>| reference.and_then(plain))
}

/// Reads a body of the form that is documented: an object.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice::<Object<T>>(body).ok().map(|Object(read)| read)
}

/// An object of JSON. The parser by itself would take a list for one, its values in the order of our fields: a form that
/// no provider documents.
#[derive(Debug, Clone)]
pub(super) struct Object<T>(pub(super) T);

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Codes that a provider sent and no table of ours knows. Each is counted, and named once in the log.
#[derive(Debug)]
pub(super) struct Undocumented {
    provider: ProviderId,
    metrics: ProviderMetrics,
    named: Mutex<HashSet<String>>,
}

impl Undocumented {
    pub(super) fn new(provider: ProviderId) -> Self {
        Self { metrics: ProviderMetrics::new(&provider), provider, named: Mutex::default() }
    }

    /// `said` is a code or a state in the provider's words, never a text for people, which may hold anything.
    pub(super) fn note(&self, said: &str) {
        self.metrics.undocumented();
        let name: String = said.chars().take(NAME_MAX).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
        // A long row of digits may be a number of somebody.
        let name = if longest_digits(&name) > 6 { "(digits)".to_owned() } else { name };
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED_MAX && named.insert(name.clone()) {
            warn!(provider = %self.provider, code = name,
                "the provider sent a code that no table of ours knows; it counts as unknown: see docs/PROVIDERS.md");
        }
    }
}

fn longest_digits(text: &str) -> usize {
    text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undocumented_code_is_named_without_what_may_be_a_phone_number() {
        let undocumented = Undocumented::new(ProviderId::new("one"));
        for said in ["E-17", "E-17", "target 13800000042 refused", &"x".repeat(100), "a\nb"] {
            undocumented.note(said);
        }
        let held = undocumented.named.lock().unwrap();
        let mut names: Vec<&str> = held.iter().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["(digits)", "E-17", "a?b", &"x".repeat(40)]);
    }
}
