//! Whom to trust as an extension server, and who we are to it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_auth::pki::CertPair;

/// The authorities of the system, where Debian keeps them.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What an APIService says about trust can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The bundle is not base64.
    #[error("the caBundle can't be read")]
    Base64(#[from] base64::DecodeError),
    /// A PEM text is malformed.
    #[error("a certificate or key can't be read")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Certificates do not fit.
    #[error("the certificates can't be used: {0}")]
    Tls(#[from] rustls::Error),
    /// The service's name is no DNS name.
    #[error("the service's name is no name of a server")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
}

/// The TLS of the connections to the server that `spec` of an APIService describes.
pub(super) fn config(spec: &Value, front_proxy: Option<&CertPair>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if spec.flag(&["insecureSkipTLSVerify"]) {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(spec.text(&["caBundle"]))?)
    };
    let mut config = match front_proxy {
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes()).collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())?)?
        }
        None => builder.with_no_client_auth(),
    };
    // Upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS that takes any server's certificate and shows none.
pub(crate) fn anybody() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    Ok(builder.with_no_client_auth())
}

fn roots(bundle: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if bundle.is_empty() {
        // A machine without authorities trusts nobody: that shows in the condition of the APIService.
        let system = std::fs::read(SYSTEM).unwrap_or_default();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&system).filter_map(Result::ok));
    } else {
        for certificate in CertificateDer::pem_slice_iter(&STANDARD.decode(bundle)?) {
            roots.add(certificate?)?;
        }
    }
    Ok(roots)
}

/// Takes every certificate (`insecureSkipTLSVerify`); the handshake itself must still be sound.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
