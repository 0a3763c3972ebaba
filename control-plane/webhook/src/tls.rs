//! TLS configurations: rustls over ring.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::{Credentials, Error, Trust};

/// Where distributions keep the authorities they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn failed(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Tls(format!("{what}: {error}"))
}

/// A configuration for this trust and these credentials, without ALPN.
pub(crate) fn config(trust: &Trust, credentials: Option<&Credentials>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS versions", &error))?;
    let builder = match trust {
        Trust::System => builder.with_root_certificates(system()?),
        Trust::Bundle(pem) => builder.with_root_certificates(bundle(pem)?),
        Trust::Unverified => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        }
    };
    let Some((cert, key)) = credentials.and_then(|credentials| credentials.certificate.as_ref()) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed("client certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| failed("client key", &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| failed("client certificate", &error))
}

fn bundle(pem: &[u8]) -> Result<RootCertStore, Error> {
    let refused =
        || Error::Tls("unable to load root certificates: unable to parse bytes as PEM block".into());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| refused())?;
        roots.add(certificate).map_err(|_| refused())?;
    }
    if roots.is_empty() { Err(refused()) } else { Ok(roots) }
}

fn system() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let pem = SYSTEM.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    // A platform's list may hold certificates this TLS does not take; the others still count.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if roots.is_empty() {
        // An empty store would be the same refusal later, with a less telling text.
        return Err(Error::Tls(
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned(),
        ));
    }
    Ok(roots)
}

/// A handshake's failure in Go's words, which clients know.
pub(crate) fn describe(error: &std::io::Error, name: &str) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => why,
        Some(other) => return Error::Tls(format!("tls: {other}")),
        None => return Error::Tls(format!("tls: {error}")),
    };
    let text = match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
            format!("certificate is valid for {}, not {name}", names.join(", "))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("certificate is not valid for any names, but wanted to match {name}")
        }
        other => other.to_string(),
    };
    Error::Tls(format!("tls: failed to verify certificate: x509: {text}"))
}

/// `DnsName("a")` as `a`.
fn plain(name: &str) -> &str {
    name.split('"').nth(1).unwrap_or(name)
}

/// Takes any certificate, but insists that the peer has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
