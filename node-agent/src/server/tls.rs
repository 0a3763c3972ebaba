//! TLS of the kubelet API: our serving certificate, and a client certificate of the cluster's CA.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A handshake that takes longer is given up.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// What TLS needs, in PEM.
#[derive(Clone)]
pub struct TlsFiles {
    /// The serving certificate and its chain.
    pub cert_pem: String,
    /// Its key.
    pub key_pem: String,
    /// The CA of client certificates.
    pub client_ca_pem: String,
    /// Certificate and key as files that others rotate; they are read again from time to time.
    pub files: Option<(PathBuf, PathBuf)>,
}

/// The files are looked at so often.
const REREAD: Duration = Duration::from_secs(1);

/// The serving certificate, which may change while it serves.
#[derive(Debug)]
struct Serving {
    files: Option<(PathBuf, PathBuf)>,
    // Held to look and to replace only.
    known: Mutex<(Instant, Arc<CertifiedKey>)>,
}

impl Serving {
    fn now(&self) -> Arc<CertifiedKey> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((cert, key)) = &self.files else { return Arc::clone(&known.1) };
        if known.0.elapsed() >= REREAD {
            known.0 = Instant::now();
            // Two small files, and half a pair is no news: what we have goes on.
            let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| error.to_string());
            let pair = read(cert).and_then(|cert| Ok((cert, read(key)?)));
            match pair.and_then(|(cert, key)| certified(&cert, &key).map_err(|error| error.to_string())) {
                Ok(new) => known.1 = new,
                Err(error) => tracing::warn!(error, "the serving certificate could not be read again"),
            }
        }
        Arc::clone(&known.1)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem(what, error))
}

fn certified(cert_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| TlsError::Pem("serving key", error))?;
    let tls = |error: rustls::Error| TlsError::Tls(error.to_string());
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(tls)?;
    let certified = CertifiedKey::new(certificates(cert_pem, "serving certificate")?, key);
    certified.keys_match().map_err(tls)?;
    Ok(Arc::new(certified))
}

/// What keeps the API from being served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is not readable.
    #[error("reading the {0}: {1}")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    /// TLS does not accept what was read.
    #[error("TLS: {0}")]
    Tls(String),
    /// The address cannot be listened on.
    #[error("listening on {listen}: {source}; is another agent running?")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Who a client certificate says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The common name.
    pub name: String,
    /// The organizations.
    pub groups: Vec<String>,
}

pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let tls = |error: &dyn std::fmt::Display| TlsError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.client_ca_pem, "client CA")? {
        roots.add(root).map_err(|error| tls(&error))?;
    }
    let known = Mutex::new((Instant::now(), certified(&files.cert_pem, &files.key_pem)?));
    let serving = Serving { files: files.files.clone(), known };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| tls(&error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(serving));
    // Streams are upgrades of HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Who the verified certificate names. An unreadable subject is nobody.
pub(super) fn caller(stream: &TlsStream<TcpStream>) -> Caller {
    let (_, session) = stream.get_ref();
    let Some(certificate) = session.peer_certificates().and_then(|chain| chain.first()) else {
        return Caller::default();
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Caller::default() };
    let text =
        |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
    let subject = parsed.subject();
    Caller {
        name: subject.iter_common_name().filter_map(text).next().unwrap_or_default(),
        groups: subject.iter_organization().filter_map(text).collect(),
    }
}
