//! What every adapter does alike, whatever its provider's words: `docs/PROVIDERS.md`. A new adapter gets a
//! [`Contender`], and a table of its provider's documented answers beside those of the others.

mod dtone;
mod mf178;
mod reloadly;
mod simulator;

use std::sync::Arc;
use std::time::Duration;

use recharged::domain::route::{Product, ProductTable};
use recharged::domain::{
    Currency, Failure, FailureClass, NotSentCause, QueryOutcome, RetryAdvice, SubmitOutcome, UnknownCause,
};
use recharged::ports::{QueryKey, RechargeProvider, SubmitRequest};
use recharged::providers::{ProviderKind, ProviderSettings, Secret};

use super::peer::{Peer, Script, answer};
use super::{provider_with, query_of, submit_of};

/// Nothing that is logged, printed or told in an outcome may hold it.
const SECRET: &str = "canary-secret";

/// An adapter in the ring.
struct Contender {
    kind: ProviderKind,
    /// Answered before anything else: a login, say. By a text of the request's first line.
    before: &'static [(&'static str, &'static str)],
    /// A code that no document has, in the provider's form: what a submit is answered with, and its status.
    undocumented: (&'static str, &'static str),
}

const ALL: [Contender; 4] = [dtone::CONTENDER, mf178::CONTENDER, reloadly::CONTENDER, simulator::CONTENDER];

impl Contender {
    fn settings(&self, base_url: &str) -> ProviderSettings {
        let mut settings = ProviderSettings::new(self.kind, base_url.parse().unwrap());
        settings.call_timeout = Duration::from_secs(10);
        settings.account = Some("our-account".to_owned());
        settings.key = Some(Secret::new(SECRET));
        settings.products = products();
        settings
    }

    fn provider(&self, base_url: &str) -> Arc<dyn RechargeProvider> {
        provider_with(&self.settings(base_url))
    }

    /// A peer that answers everything with these bytes, but for what comes before.
    async fn peer(&self, bytes: Vec<u8>) -> Peer {
        let before = self.before.iter().map(|(line, body)| ((*line).to_owned(), answer("200 OK", "", body)));
        Peer::start(Script::ByLine(before.chain([(String::new(), bytes)]).collect())).await
    }

    async fn submit_answered(&self, status: &str, headers: &str, body: &str) -> SubmitOutcome {
        let peer = self.peer(answer(status, headers, body)).await;
        self.provider(&peer.base_url()).submit(&order()).await
    }

    async fn query_answered(&self, status: &str, headers: &str, body: &str) -> QueryOutcome {
        let peer = self.peer(answer(status, headers, body)).await;
        self.provider(&peer.base_url()).query(&question()).await
    }
}

/// A fixed product for yuan, one of a range for Singapore.
fn products() -> ProductTable {
    let product = |country: &str, amount_minor, currency, code: &str, is_ranged| Product {
        country: country.to_owned(),
        carrier: "*".to_owned(),
        amount_minor,
        currency: Currency::parse(currency).unwrap(),
        code: code.to_owned(),
        is_ranged,
    };
    ProductTable::new(vec![product("CN", 5_000, "CNY", "4001", false), product("SG", 475, "SGD", "4002", true)])
}

const REFERENCE: &str = "R01J8ZK4T7A1";

fn order() -> SubmitRequest {
    SubmitRequest { callback_url: Some("https://us.example/cb".to_owned()), ..submit_of(REFERENCE) }
}

fn question() -> QueryKey {
    query_of(REFERENCE)
}

fn failure(class: FailureClass, code: &str, advice: RetryAdvice) -> Failure {
    Failure { class, code: code.to_owned(), advice }
}

/// The body of the last request.
fn last_body(peer: &Peer) -> serde_json::Value {
    let texts = peer.texts();
    let (_, body) = texts.last().unwrap().split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// The head of the last request, in lowercase but for its first line.
fn last_head(peer: &Peer) -> (String, String) {
    let texts = peer.texts();
    let (head, _) = texts.last().unwrap().split_once("\r\n\r\n").unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    (line.to_owned(), headers.to_owned())
}

#[tokio::test]
async fn what_is_no_answer_of_the_provider_is_unknown_and_never_a_failure() {
    use UnknownCause::{BrokenBody, ServerError};
    let html = "<!doctype html><html><title>We will be back</title></html>";
    let deep = "[".repeat(100_000);
    let location = "Location: http://127.0.0.1:1/elsewhere\r\n";
    for contender in &ALL {
        for (status, headers, body, cause) in [
            ("200 OK", "", "", BrokenBody),
            ("200 OK", "", "null", BrokenBody),
            ("200 OK", "", "17", BrokenBody),
            ("200 OK", "", "\"ok\"", BrokenBody),
            ("200 OK", "Content-Type: text/html\r\n", html, BrokenBody),
            ("200 OK", "", "{\"co", BrokenBody),
            ("200 OK", "", deep.as_str(), BrokenBody),
            ("200 OK", "", "\u{feff}{}", BrokenBody),
            ("201 Created", "", html, BrokenBody),
            ("204 No Content", "", "", BrokenBody),
            ("301 Moved Permanently", location, "", BrokenBody),
            ("302 Found", location, html, BrokenBody),
            ("307 Temporary Redirect", location, "", BrokenBody),
            ("400 Bad Request", "", html, BrokenBody),
            ("404 Not Found", "", html, BrokenBody),
            ("408 Request Timeout", "", "", ServerError),
            ("500 Internal Server Error", "", "", ServerError),
            ("502 Bad Gateway", "", html, ServerError),
            ("503 Service Unavailable", "Retry-After: 30\r\n", html, ServerError),
            ("504 Gateway Timeout", "", "gateway timeout", ServerError),
        ] {
            let case = format!("{:?}: {status}", contender.kind);
            let outcome = contender.submit_answered(status, headers, body).await;
            assert_eq!(outcome, SubmitOutcome::Unknown(cause), "{case}");
            let outcome = contender.query_answered(status, headers, body).await;
            assert!(matches!(outcome, QueryOutcome::Unavailable { .. }), "{case}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_code_that_no_document_has_is_unknown() {
    for contender in &ALL {
        let (status, body) = contender.undocumented;
        let outcome = contender.submit_answered(status, "", body).await;
        assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::UnmappedCode), "{:?}", contender.kind);
        let outcome = contender.query_answered("200 OK", "", body).await;
        assert!(matches!(outcome, QueryOutcome::Unavailable { .. }), "{:?}: {outcome:?}", contender.kind);
    }
}

#[tokio::test]
async fn a_refusal_for_pace_is_heard_from_the_status_alone() {
    let status = "429 Too Many Requests";
    for contender in &ALL {
        for (headers, seconds) in [("", None), ("Retry-After: 7\r\n", Some(7)), ("Retry-After: soon\r\n", None)] {
            let retry_after = seconds.map(Duration::from_secs);
            let outcome = contender.submit_answered(status, headers, "slow down").await;
            assert_eq!(outcome, SubmitOutcome::Throttled { retry_after }, "{:?}", contender.kind);
            let outcome = contender.query_answered(status, headers, "").await;
            assert_eq!(outcome, QueryOutcome::Throttled { retry_after }, "{:?}", contender.kind);
        }
    }
}

#[tokio::test]
async fn a_login_that_is_refused_is_ours_to_mend() {
    for contender in &ALL {
        for (status, code) in [("401 Unauthorized", "401"), ("403 Forbidden", "403")] {
            let outcome = contender.submit_answered(status, "", "<html>no</html>").await;
            let ours = failure(FailureClass::AuthOrConfig, code, RetryAdvice::AfterOperatorAction);
            assert_eq!(outcome, SubmitOutcome::Rejected(ours), "{:?}", contender.kind);
            let outcome = contender.query_answered(status, "", "<html>no</html>").await;
            assert!(matches!(outcome, QueryOutcome::Unavailable { .. }), "{:?}: {outcome:?}", contender.kind);
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_unknown_once_a_byte_has_left_and_not_sent_before() {
    for contender in &ALL {
        let mut settings = contender.settings("http://127.0.0.1:1/");
        let outcome = provider_with(&settings).submit(&order()).await;
        assert_eq!(outcome, SubmitOutcome::NotSent(NotSentCause::Connect), "{:?}", contender.kind);
        let outcome = provider_with(&settings).query(&question()).await;
        assert_eq!(outcome, QueryOutcome::Unavailable { retry_after: None }, "{:?}", contender.kind);

        if !contender.before.is_empty() {
            // Its first request is a login; what comes after is the same transport's.
            continue;
        }
        settings.call_timeout = Duration::from_millis(300);
        for (script, cause) in [
            (Script::ResetAfterRequest, UnknownCause::Reset),
            (Script::HalfAnAnswer(answer("200 OK", "", "{\"code\":0,\"data\":{}}")), UnknownCause::Reset),
            (Script::Hang, UnknownCause::Timeout),
            (Script::Drip(answer("200 OK", "", "{}"), Duration::from_millis(50)), UnknownCause::Timeout),
        ] {
            let peer = Peer::start(script.clone()).await;
            settings.base_url = peer.base_url().parse().unwrap();
            let outcome = provider_with(&settings).submit(&order()).await;
            assert_eq!(outcome, SubmitOutcome::Unknown(cause), "{:?}: {script:?}", contender.kind);
            let outcome = provider_with(&settings).query(&question()).await;
            assert_eq!(outcome, QueryOutcome::Unavailable { retry_after: None }, "{:?}", contender.kind);
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_a_bound_and_is_unknown() {
    let endless = "x".repeat(1_000_000);
    for contender in &ALL {
        let outcome = contender.submit_answered("200 OK", "", &endless).await;
        assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody), "{:?}", contender.kind);
    }
}

#[tokio::test]
async fn a_key_that_stands_twice_in_an_answer_decides_nothing() {
    // Two readers could read two different answers out of it.
    for (contender, body) in [
        (&dtone::CONTENDER, dtone::transaction("COMPLETED", "COMPLETED").replacen("\"id\":", "\"id\":1,\"id\":", 1)),
        (&mf178::CONTENDER, r#"{"code":0,"code":10014,"data":{"state":3}}"#.to_owned()),
        (&reloadly::CONTENDER, r#"{"transactionId":1,"transactionId":2}"#.to_owned()),
        (&simulator::CONTENDER, r#"{"status":"succeeded","status":"rejected"}"#.to_owned()),
    ] {
        let outcome = contender.submit_answered("200 OK", "", &body).await;
        assert_eq!(outcome, SubmitOutcome::Unknown(UnknownCause::BrokenBody), "{:?}", contender.kind);
    }
}

#[tokio::test]
async fn a_send_window_that_has_closed_lets_nothing_leave() {
    for contender in &ALL {
        let peer = contender.peer(answer("200 OK", "", "{}")).await;
        let provider = contender.provider(&peer.base_url());
        provider.connect(1).await;
        let before = peer.requests();
        let outcome = provider.submit(&SubmitRequest { send_by: Duration::ZERO, ..order() }).await;
        assert!(matches!(outcome, SubmitOutcome::NotSent(_)), "{:?}: {outcome:?}", contender.kind);
        let outcome = provider.query(&QueryKey { send_by: Duration::ZERO, ..question() }).await;
        let nothing = [QueryOutcome::NotAsked, QueryOutcome::Unavailable { retry_after: None }];
        assert!(nothing.contains(&outcome), "{:?}: {outcome:?}", contender.kind);
        assert_eq!(peer.requests(), before, "{:?}: something left", contender.kind);
    }
}

#[tokio::test]
async fn neither_key_nor_number_shows_in_an_adapter_s_debug_form() {
    for contender in &ALL {
        let shown = format!("{:?} {:?}", contender.provider("http://127.0.0.1:1/"), order());
        assert!(!shown.contains(SECRET) && !shown.contains("13800000042"), "{:?}", contender.kind);
    }
}

#[tokio::test]
async fn an_amount_that_is_not_in_the_list_is_not_sold() {
    for contender in ALL.iter().filter(|contender| contender.kind != ProviderKind::Simulator) {
        let peer = contender.peer(answer("200 OK", "", "{}")).await;
        let mut request = order();
        request.amount.minor = 4_999;
        let outcome = contender.provider(&peer.base_url()).submit(&request).await;
        let not_sold = failure(FailureClass::AmountNotAllowed, "no_product", RetryAdvice::Never);
        assert_eq!(outcome, SubmitOutcome::Rejected(not_sold), "{:?}", contender.kind);
        assert_eq!(peer.requests(), 0);
    }
}
