//! TLS configurations: of servers that know their clients' one authority, and of the API server, which
//! asks for a certificate, leaves judging it to authentication (a stranger's is 401, not a broken
//! handshake), and changes its own certificate while it runs.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::{CertPair, Error};

/// Does a TLS server ask clients for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is checked when there is one.
    Optional,
    /// There must be one.
    Required,
}

/// What TLS is allowed to be, in the words of `--tls-min-version` and `--tls-cipher-suites`.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// `VersionTLS12` (the default) or `VersionTLS13`.
    pub min_version: String,
    /// Names of suites of TLS 1.2; empty: all that are safe. Those of TLS 1.3 can't be chosen.
    pub cipher_suites: Vec<String>,
}

static NEWEST: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn tls(error: impl fmt::Display) -> Error {
    Error::Tls(error.to_string())
}

impl TlsOptions {
    fn versions(&self) -> Result<&'static [&'static rustls::SupportedProtocolVersion], Error> {
        match self.min_version.as_str() {
            "" | "VersionTLS12" => Ok(rustls::DEFAULT_VERSIONS),
            "VersionTLS13" => Ok(NEWEST),
            other => {
                Err(tls(format!("minimum version {other:?}: VersionTLS12 and VersionTLS13 are possible")))
            }
        }
    }

    fn provider(&self) -> Result<CryptoProvider, Error> {
        let mut provider = rustls::crypto::ring::default_provider();
        if self.cipher_suites.is_empty() {
            return Ok(provider);
        }
        let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
        let newest = |suite: &rustls::SupportedCipherSuite| suite.version() == &rustls::version::TLS13;
        let known: Vec<String> = provider.cipher_suites.iter().map(name).collect();
        for wanted in &self.cipher_suites {
            let modern = wanted.replacen("TLS_", "TLS13_", 1);
            if !known.contains(wanted) && !known.contains(&modern) {
                let known = known.join(", ");
                return Err(tls(format!("cipher suite {wanted:?} is not there; those that are: {known}")));
            }
        }
        provider.cipher_suites.retain(|suite| newest(suite) || self.cipher_suites.contains(&name(suite)));
        Ok(provider)
    }
}

fn certified(pair: &CertPair) -> Result<CertifiedKey, Error> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes()).collect::<Result<_, _>>().map_err(tls)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(tls)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(tls)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(tls)?;
    Ok(certified)
}

/// A serving certificate that can be replaced while it serves.
#[derive(Debug)]
pub struct ServingCertificate(ArcSwap<CertifiedKey>);

impl ServingCertificate {
    /// Serves this pair.
    pub fn new(pair: &CertPair) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(pair)?))))
    }

    /// New connections see this pair.
    pub fn replace(&self, pair: &CertPair) -> Result<(), Error> {
        self.0.store(Arc::new(certified(pair)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Takes any certificate whose key the client has. Who it is, and who vouches for it, is found out by
/// authentication.
#[derive(Debug)]
struct AnyClient(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The API server's configuration: client certificates are asked for and handed to authentication
/// unjudged.
pub fn serving_config(
    certificate: Arc<ServingCertificate>,
    options: &TlsOptions,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = options.provider()?;
    let clients = AnyClient(provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(options.versions()?)
        .map_err(tls)?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A TLS configuration that serves `pair` and trusts clients of the authority `ca_pem`: for the kubelet
/// API too, which has the certificates but not the authority's key.
pub fn server_config(ca_pem: &str, pair: &CertPair, clients: ClientAuth) -> Result<Arc<ServerConfig>, Error> {
    let verifier = client_verifier(ca_pem, clients)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(ServingCertificate::new(pair)?);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Judges client certificates by these authorities.
pub(crate) fn client_verifier(
    ca_pem: &str,
    clients: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(tls)?).map_err(tls)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = match clients {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    verifier.build().map_err(tls)
}
