//! TLS of the kubelet API: our serving certificate, and a client certificate of the cluster's CA.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
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
    let certificates = |pem: &str, what| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsError::Pem(what, error))
    };
    let tls = |error: &dyn std::fmt::Display| TlsError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.client_ca_pem, "client CA")? {
        roots.add(root).map_err(|error| tls(&error))?;
    }
    let key = PrivateKeyDer::from_pem_slice(files.key_pem.as_bytes())
        .map_err(|error| TlsError::Pem("serving key", error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| tls(&error))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert_pem, "serving certificate")?, key)
        .map_err(|error| tls(&error))?;
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
