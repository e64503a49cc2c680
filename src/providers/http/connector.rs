//! Opens sockets: name lookup, TCP with the options that a call needs, TLS where the URL asks.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::connection::{Connection, Wire};
use super::gate::{Gate, GatedStream};
use super::pool::OpenCount;
use super::{HttpSettings, SettingsError};
use crate::ports::Clock;

/// Knows how to reach one provider.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connect_timeout: Duration,
    call_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Connector {
    pub(super) fn new(settings: &HttpSettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let url = &settings.base_url;
        let (host, server_name) = host_of(url)?;
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some((tls_connector(settings.ca_file.as_ref())?, server_name)),
            other => return Err(SettingsError::Scheme(other.to_owned())),
        };
        Ok(Self {
            host,
            port: url.port_or_known_default().ok_or(SettingsError::NoHost)?,
            tls,
            connect_timeout: settings.connect_timeout,
            call_timeout: settings.call_timeout,
            clock,
        })
    }

    /// A connection that is ready for a request.
    pub(super) async fn open(&self, counted: OpenCount) -> io::Result<Connection> {
        timeout(self.connect_timeout, self.open_untimed(counted))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn open_untimed(&self, counted: OpenCount) -> io::Result<Connection> {
        #[cfg(any(test, fuzzing))]
        {
            let gate = Gate::new(Arc::clone(&self.clock));
            if let Some(wire) = super::canned::wire(&gate) {
                let now = self.clock.since_boot();
                return Connection::start(wire, gate, counted, now).await.map_err(io::Error::other);
            }
        }
        let tcp = self.reach().await?;
        tcp.set_nodelay(true)?;
        // What was sent and is not acknowledged must not reach the provider long after the call.
        SockRef::from(&tcp).set_tcp_user_timeout(Some(self.call_timeout))?;
        let gate = Gate::new(Arc::clone(&self.clock));
        let stream = GatedStream::new(tcp, Arc::clone(&gate), self.tls.is_some());
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        };
        Connection::start(wire, gate, counted, self.clock.since_boot()).await.map_err(io::Error::other)
    }

    /// Tries the addresses of the name in turn, each with an equal part of the time.
    async fn reach(&self) -> io::Result<TcpStream> {
        let until = Instant::now() + self.connect_timeout;
        let addresses: Vec<SocketAddr> = lookup_host((self.host.as_str(), self.port)).await?.collect();
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            let part = (until - Instant::now()) / left.max(1);
            left -= 1;
            match timeout_at(Instant::now() + part, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

fn host_of(url: &Url) -> Result<(String, ServerName<'static>), SettingsError> {
    match url.host() {
        Some(Host::Domain(name)) => {
            let server_name = ServerName::try_from(name.to_owned()).map_err(|_| SettingsError::NoHost)?;
            Ok((name.to_owned(), server_name))
        }
        Some(Host::Ipv4(ip)) => Ok((ip.to_string(), ServerName::IpAddress(std::net::IpAddr::V4(ip).into()))),
        Some(Host::Ipv6(ip)) => Ok((ip.to_string(), ServerName::IpAddress(std::net::IpAddr::V6(ip).into()))),
        None => Err(SettingsError::NoHost),
    }
}

/// Trusts the system's roots, or only those of `ca_file` where one is given.
fn tls_connector(ca_file: Option<&PathBuf>) -> Result<TlsConnector, SettingsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let read = || -> Result<Vec<_>, _> { CertificateDer::pem_file_iter(path)?.collect() };
            let certificates = read().map_err(|error| SettingsError::CaFile { path: path.clone(), source: error })?;
            roots.add_parsable_certificates(certificates);
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(SettingsError::NoRoots);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(SettingsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}
