//! TLS over TCP for hyper: rustls with ring, ALPN `h2` before `http/1.1`.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig as TlsConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tower::BoxError;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

use crate::config::ClientConfig;
use crate::error::{Error, Result};

/// Name, TCP and TLS together take no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to `http` and `https` addresses.
pub(crate) type Connector = BoxCloneSyncService<http::Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// The connector that `config` asks for.
pub(crate) fn connector(config: &ClientConfig) -> Result<Connector> {
    let tls = if config.server.starts_with("http://") {
        builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    } else if config.insecure_skip_tls_verify {
        unverified(config)?
    } else {
        verified(config)?
    };
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(|e| bad("tls-server-name", &e))?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let https = https.enable_all_versions().wrap_connector(http);
    Ok(BoxCloneSyncService::new(Timeout::new(https, CONNECT_TIMEOUT)))
}

fn bad(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Config(format!("{what}: {error}"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<TlsConfig, rustls::WantsVerifier>> {
    TlsConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS versions", &e))
}

/// Trusts the certificate authority of the configuration and nothing else.
fn verified(config: &ClientConfig) -> Result<TlsConfig> {
    let mut roots = RootCertStore::empty();
    let ca = config.ca_pem.as_deref().ok_or_else(|| {
        Error::Config("certificate-authority is needed: system roots are not trusted".into())
    })?;
    for cert in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let cert = cert.map_err(|e| bad("certificate authority", &e))?;
        roots.add(cert).map_err(|e| bad("certificate authority", &e))?;
    }
    if roots.is_empty() {
        return Err(Error::Config("the certificate authority holds no certificate".into()));
    }
    let builder = builder()?.with_root_certificates(roots);
    match (&config.client_cert_pem, &config.client_key_pem) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| bad("client certificate", &e))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| bad("client key", &e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| bad("client certificate", &e))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(Error::Config("a client certificate needs its key, and the reverse".into())),
    }
}

/// For a server that nobody vouches for: it is given no credentials.
fn unverified(config: &ClientConfig) -> Result<TlsConfig> {
    let given = config.token.is_some()
        || config.token_file.is_some()
        || config.client_key_pem.is_some()
        || config.client_key_file.is_some();
    if given {
        return Err(Error::Config("credentials are not sent to a server that is not verified".into()));
    }
    let anybody = AnyServer(provider().signature_verification_algorithms);
    let builder = builder()?.dangerous().with_custom_certificate_verifier(Arc::new(anybody));
    Ok(builder.with_no_client_auth())
}

/// Takes any certificate whose key the server has.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
