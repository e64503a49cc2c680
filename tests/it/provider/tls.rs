//! The same over TLS: a front that decrypts and hands on to a [`Peer`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use recharged::domain::{NotSentCause, SubmitOutcome};
use recharged::providers::ProviderSettings;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::peer::{Peer, Script, success};
use super::{provider_with, settings, submit_of, until};

/// Decrypts for a peer; its certificate is for one name.
#[derive(Debug)]
pub(super) struct Front {
    addr: SocketAddr,
    dir: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    pub(super) async fn start(peer: &Peer, name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, behind) = (listener.local_addr().unwrap(), peer.addr);
        let task = tokio::spawn(async move {
            loop {
                let (outside, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(outside).await else { return };
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
                });
            }
        });
        Self { addr, dir, task }
    }

    /// How to reach it, trusting its authority.
    pub(super) fn settings(&self) -> ProviderSettings {
        let mut settings = settings(&format!("https://localhost:{}/api", self.addr.port()));
        settings.ca_file = Some(self.dir.path().join("ca.pem"));
        settings
    }
}

#[tokio::test]
async fn calls_over_tls_share_a_connection() {
    let peer = Peer::start(Script::Answer(success())).await;
    let front = Front::start(&peer, "localhost").await;
    let provider = provider_with(&front.settings());
    assert_eq!(provider.connect(1).await, 1);
    for n in 0..10 {
        let outcome = provider.submit(&submit_of(&format!("order-{n}-1"))).await;
        assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
    }
    assert_eq!((peer.seen.accepted.load(SeqCst), peer.requests()), (1, 10));
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_means_that_nothing_was_sent() {
    let peer = Peer::start(Script::Answer(success())).await;
    let front = Front::start(&peer, "localhost").await;
    let elsewhere = Front::start(&peer, "provider.example").await;

    let mut untrusted = front.settings();
    untrusted.ca_file = elsewhere.settings().ca_file;
    for settings in [untrusted, elsewhere.settings()] {
        let provider = provider_with(&settings);
        assert_eq!(provider.connect(1).await, 0);
        assert_eq!(provider.submit(&submit_of("order-1-1")).await, SubmitOutcome::NotSent(NotSentCause::Connect));
    }
    assert_eq!(peer.bytes(), 0);
}

#[tokio::test]
async fn a_pooled_tls_connection_that_the_server_closed_is_replaced_and_the_request_arrives_once() {
    let peer = Peer::start(Script::AnswerOnceThenClose(success())).await;
    let front = Front::start(&peer, "localhost").await;
    let provider = provider_with(&front.settings());
    for n in 1..=20 {
        let outcome = provider.submit(&submit_of(&format!("order-{n}-1"))).await;
        assert!(matches!(outcome, SubmitOutcome::Succeeded(_)), "{outcome:?}");
        until("the server has closed", || peer.seen.closed.load(SeqCst) == n).await;
        until("the front has closed, too", || futures_util::FutureExt::now_or_never(provider.connect(0)).is_some())
            .await;
        assert_eq!(peer.requests(), n);
    }
}
