//! Each adapter against the simulator that speaks its provider's protocol: what it makes of an answer never contradicts
//! what the ledger says was delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use recharged::domain::{Currency, FailureClass, Money, Msisdn, QueryOutcome, RetryAdvice, SubmitOutcome};
use recharged::ports::{QueryKey, RechargeProvider, SubmitRequest};
use recharged::providers::simulator::{
    Dialect, FaultClass, Latency, Profile, Script, SimulatorHandle, SimulatorOptions, Step, read_ledger,
};
use recharged::providers::{ProviderKind, ProviderSettings, Secret};
use tempfile::TempDir;

use super::{products_of_5000, provider_with, query_of, quick, simulator, submit_of, until};

pub(super) const ACCOUNT: &str = "us";
pub(super) const KEY: &str = "canary-secret";

pub(super) struct Stage {
    pub(super) dir: TempDir,
    pub(super) dialect: Dialect,
    pub(super) simulator: SimulatorHandle,
}

impl Stage {
    async fn set(dialect: Dialect, profile: Profile) -> Self {
        Self::set_in(tempfile::tempdir().unwrap(), dialect, profile).await
    }

    async fn set_in(dir: TempDir, dialect: Dialect, profile: Profile) -> Self {
        let options = SimulatorOptions {
            profile,
            dialect,
            account: Some(ACCOUNT.to_owned()),
            key: Some(Secret::new(KEY)),
            ledger: Some(dir.path().join("ledger.jsonl")),
            ..SimulatorOptions::default()
        };
        Self { dir, dialect, simulator: simulator(options).await }
    }

    fn settings(&self) -> ProviderSettings {
        let kind = ProviderKind::parse(self.dialect.as_str()).unwrap();
        let mut settings = ProviderSettings::new(kind, self.simulator.base_url().parse().unwrap());
        settings.call_timeout = Duration::from_secs(10);
        (settings.account, settings.key) = (Some(ACCOUNT.to_owned()), Some(Secret::new(KEY)));
        settings.products = products_of_5000();
        settings
    }

    pub(super) fn provider(&self) -> Arc<dyn RechargeProvider> {
        provider_with(&self.settings())
    }

    /// How often each reference was really delivered, less what was taken back.
    pub(super) fn delivered(&self) -> HashMap<String, i64> {
        let mut times = HashMap::new();
        for delivery in read_ledger(&self.dir.path().join("ledger.jsonl")).unwrap() {
            assert_eq!((delivery.phone, delivery.currency.as_str()), (order("").msisdn, "CNY"));
            *times.entry(delivery.client_ref.to_string()).or_default() +=
                if delivery.reverses.is_some() { -1 } else { 1 };
        }
        times
    }
}

fn order(reference: &str) -> SubmitRequest {
    submit_of(reference)
}

/// What was asked about, as dispatch would: by their number where it is known, and when it was sent.
pub(super) fn question(sent: &SubmitRequest, outcome: &SubmitOutcome) -> QueryKey {
    let provider_ref = match outcome {
        SubmitOutcome::Accepted { provider_ref } => provider_ref.clone(),
        _ => None,
    };
    QueryKey { provider_ref, sent_at: sent.sent_at, ..query_of(sent.client_ref.as_str()) }
}

#[tokio::test]
async fn an_order_is_delivered_once_told_of_once_and_known_ever_after() {
    for dialect in Dialect::ALL {
        let profile =
            Profile { accepted_first: 1.0, completion: Latency::Fixed(Duration::from_millis(300)), ..quick() };
        let stage = Stage::set(dialect, profile).await;
        let provider = stage.provider();
        let sent = order("R00000000001");
        let outcome = provider.submit(&sent).await;
        assert!(matches!(&outcome, SubmitOutcome::Accepted { provider_ref: Some(_) }), "{dialect:?}: {outcome:?}");
        let asked = provider.query(&question(&sent, &outcome)).await;
        assert_eq!(asked, QueryOutcome::InProgress, "{dialect:?}");
        until("it is delivered", || stage.simulator.references("", 1)[0].state == "delivered").await;
        for key in [question(&sent, &outcome), question(&sent, &SubmitOutcome::Duplicate)] {
            let QueryOutcome::Succeeded(receipt) = provider.query(&key).await else { panic!("{dialect:?}: {key:?}") };
            let amount = Money { minor: 5_000, currency: Currency::parse("CNY").unwrap() };
            assert!(receipt.delivered.is_none_or(|told| told == amount), "{dialect:?}: {receipt:?}");
        }
        assert_eq!(provider.submit(&sent).await, SubmitOutcome::Duplicate, "{dialect:?}");
        assert_eq!(stage.delivered(), HashMap::from([("R00000000001".to_owned(), 1)]), "{dialect:?}");
        let never = order("R00000000002");
        let asked = provider.query(&question(&never, &SubmitOutcome::Duplicate)).await;
        assert_eq!(asked, QueryOutcome::NotFound, "{dialect:?}");
    }
}

#[tokio::test]
async fn what_a_ledger_remembers_is_found_after_a_restart() {
    for dialect in Dialect::ALL {
        let stage = Stage::set(dialect, quick()).await;
        let sent = order("R00000000001");
        let outcome = stage.provider().submit(&sent).await;
        let Stage { dir, simulator, .. } = stage;
        simulator.shutdown().await;
        let stage = Stage::set_in(dir, dialect, quick()).await;
        for key in [question(&sent, &outcome), question(&sent, &SubmitOutcome::Duplicate)] {
            let told = stage.provider().query(&key).await;
            assert!(matches!(told, QueryOutcome::Succeeded(_)), "{dialect:?}: {told:?} to {key:?}");
        }
        let never = question(&order("R00000000002"), &SubmitOutcome::Duplicate);
        assert_eq!(stage.provider().query(&never).await, QueryOutcome::NotFound, "{dialect:?}");
    }
}

#[tokio::test]
async fn a_caller_that_shows_another_key_or_account_executes_nothing() {
    for dialect in Dialect::ALL {
        let stage = Stage::set(dialect, quick()).await;
        for (account, key) in [(ACCOUNT, "another"), ("another", KEY)] {
            if dialect == Dialect::Own && account != ACCOUNT {
                continue;
            }
            let mut settings = stage.settings();
            (settings.account, settings.key) = (Some(account.to_owned()), Some(Secret::new(key)));
            let outcome = provider_with(&settings).submit(&order("R00000000001")).await;
            match outcome {
                SubmitOutcome::Rejected(failure) => {
                    assert_eq!(failure.class, FailureClass::AuthOrConfig, "{dialect:?}");
                    assert_eq!(failure.advice, RetryAdvice::AfterOperatorAction, "{dialect:?}");
                }
                // Without a token nothing leaves.
                other => assert!(matches!(other, SubmitOutcome::NotSent(_)), "{dialect:?}: {other:?}"),
            }
        }
        assert!(stage.delivered().is_empty(), "{dialect:?}");
    }
}

/// The class of trouble that the next submit meets, in every dialect.
#[tokio::test]
async fn whatever_happens_to_an_order_its_outcome_never_contradicts_the_ledger() {
    let profile = Profile { completion: Latency::Fixed(Duration::from_millis(20)), ..quick() };
    for dialect in Dialect::ALL {
        let stage = Stage::set(dialect, profile.clone()).await;
        let mut settings = stage.settings();
        settings.call_timeout = Duration::from_millis(400);
        let provider = provider_with(&settings);
        provider.connect(1).await;
        let classes = FaultClass::scriptable().filter(|class| !matches!(class, FaultClass::Outage | FaultClass::Ban));
        for (number, class) in classes.enumerate() {
            let case = format!("{dialect:?}, {class}");
            let step = Step { next: Some(1), then: Some(class.to_string()), ..Step::default() };
            stage.simulator.script(&Script { steps: vec![step] }).unwrap();
            let sent = order(&format!("R{number:011}"));
            let outcome = provider.submit(&sent).await;
            let times = stage.delivered().get(sent.client_ref.as_str()).copied().unwrap_or(0);
            match &outcome {
                // Told before it is true, or taken back since: what liars do.
                SubmitOutcome::Rejected(_) if class == FaultClass::LateSuccess => {}
                SubmitOutcome::Succeeded(_) if class == FaultClass::Reversed => {}
                SubmitOutcome::Succeeded(_) => assert_eq!(times, 1, "{case}"),
                SubmitOutcome::Rejected(_) | SubmitOutcome::NotSent(_) | SubmitOutcome::Throttled { .. } => {
                    assert_eq!(times, 0, "{case}: {outcome:?}");
                }
                SubmitOutcome::Accepted { .. } | SubmitOutcome::Duplicate | SubmitOutcome::Unknown(_) => {}
            }
            // Asked until it is settled, or found never to have been.
            let key = question(&sent, &outcome);
            let mut told = QueryOutcome::NotAsked;
            for _ in 0..40 {
                told = provider.query(&key).await;
                let is_open = matches!(
                    told,
                    QueryOutcome::InProgress | QueryOutcome::Unavailable { .. } | QueryOutcome::ProviderUnknown
                );
                if !is_open || class == FaultClass::Never {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let times = stage.delivered().get(sent.client_ref.as_str()).copied().unwrap_or(0);
            match told {
                QueryOutcome::Succeeded(_) if class == FaultClass::Reversed => {}
                QueryOutcome::Succeeded(_) => assert_eq!(times, 1, "{case}"),
                QueryOutcome::Failed(_) if class == FaultClass::LateSuccess => {}
                QueryOutcome::Failed(_) | QueryOutcome::Reversed(_) => assert_eq!(times, 0, "{case}: {told:?}"),
                // A lag of the search proves nothing, which is why one of these alone closes nothing.
                QueryOutcome::NotFound => {
                    assert!(times == 0 || class == FaultClass::NotFoundLag, "{case}: {told:?}");
                }
                QueryOutcome::InProgress
                | QueryOutcome::ProviderUnknown
                | QueryOutcome::NotAsked
                | QueryOutcome::Unavailable { .. }
                | QueryOutcome::Throttled { .. }
                | QueryOutcome::Banned { .. } => {}
            }
        }
    }
}

#[tokio::test]
async fn in_two_steps_a_lost_reply_to_the_first_is_mended_by_a_question_and_a_late_one_by_a_cancellation() {
    let stage = Stage::set(Dialect::Dtone, quick()).await;
    let mut settings = stage.settings();
    settings.two_step = true;
    let provider = provider_with(&settings);
    // Both steps.
    let sent = order("R00000000001");
    let outcome = provider.submit(&sent).await;
    assert!(matches!(outcome, SubmitOutcome::Accepted { .. }), "{outcome:?}");
    assert!(matches!(provider.query(&question(&sent, &outcome)).await, QueryOutcome::Succeeded(_)));

    // The first step alone, as another process would have left it.
    let client = HttpClient(&stage);
    for (reference, give_up) in [("R00000000002", false), ("R00000000003", true)] {
        client.create(reference).await;
        let key = QueryKey { give_up, ..question(&order(reference), &SubmitOutcome::Duplicate) };
        let told = provider.query(&key).await;
        let again = provider.query(&key).await;
        if give_up {
            assert!(
                matches!(&told, QueryOutcome::Failed(failure) if failure.class == FailureClass::Cancelled),
                "{told:?}"
            );
            assert!(matches!(again, QueryOutcome::Failed(_)), "{again:?}");
        } else {
            assert_eq!(told, QueryOutcome::InProgress);
            assert!(matches!(again, QueryOutcome::Succeeded(_)), "{again:?}");
        }
    }
    let expected = ["R00000000001", "R00000000002"].map(|name| (name.to_owned(), 1));
    assert_eq!(stage.delivered(), HashMap::from(expected));
}

/// What an adapter never leaves half done.
struct HttpClient<'a>(&'a Stage);

impl HttpClient<'_> {
    async fn create(&self, reference: &str) {
        use base64::Engine as _;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let phone = Msisdn::expose(&order(reference).msisdn);
        let body = format!(
            r#"{{"external_id":"{reference}","product_id":5000,"auto_confirm":false,"credit_party_identifier":{{"mobile_number":"{phone}"}}}}"#
        );
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{ACCOUNT}:{KEY}"));
        let request = format!(
            "POST /async/transactions HTTP/1.1\r\nhost: s\r\nconnection: close\r\nauthorization: Basic {login}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(self.0.simulator.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}
