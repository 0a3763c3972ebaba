//! A client of the OCI distribution API: one GET at a time, with authentication and redirects.
//!
//! Credentials go only to the registry that asked for them: a redirect to a blob store carries none.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{net::TcpStream, time};

use super::{
    auth::{Challenge, encode_query},
    manifest::{ACCEPT, MAX_DOCUMENT},
};
use crate::{Error, Keyring, Reference, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Hosts (with port) spoken to in plain HTTP; loopback addresses always are.
    pub insecure: Vec<String>,
    /// Mirrors by registry host, tried in order before the registry itself. Each is a host with port.
    pub mirrors: std::collections::BTreeMap<String, Vec<String>>,
    /// Additional certificate authorities, PEM.
    pub extra_ca_pem: Vec<u8>,
}

/// Speaks to registries.
#[derive(Clone)]
pub struct RegistryClient {
    options: Arc<RegistryOptions>,
    tls: Arc<rustls::ClientConfig>,
}

/// A session with one registry for one image: keeps the token.
pub struct Session<'a> {
    client: &'a RegistryClient,
    host: String,
    reference: &'a Reference,
    keyring: &'a Keyring,
    authorization: tokio::sync::RwLock<Option<String>>,
}

impl RegistryClient {
    /// Loads the system's certificate authorities.
    pub fn new(options: RegistryOptions) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let bundles =
            ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        if let Some(pem) = bundles.iter().find_map(|path| std::fs::read(path).ok()) {
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
        }
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&options.extra_ca_pem).flatten());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Invalid(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { options: Arc::new(options), tls: Arc::new(tls) })
    }

    /// The hosts to try for a registry, mirrors first.
    #[must_use]
    pub fn hosts(&self, registry: &str) -> Vec<String> {
        let real = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let mirrors = self.options.mirrors.get(registry).cloned().unwrap_or_default();
        mirrors.into_iter().chain([real.to_owned()]).collect()
    }

    /// Opens a session for an image with one host.
    #[must_use]
    pub fn session<'a>(
        &'a self,
        host: String,
        reference: &'a Reference,
        keyring: &'a Keyring,
    ) -> Session<'a> {
        Session { client: self, host, reference, keyring, authorization: tokio::sync::RwLock::default() }
    }

    fn plain(&self, authority: &str) -> bool {
        let host = authority.rsplit_once(':').map_or(authority, |(h, _)| h).trim_matches(['[', ']']);
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            || self.options.insecure.iter().any(|i| i == authority)
    }

    async fn get(&self, uri: &Uri, headers: &[(header::HeaderName, String)]) -> Result<Response<Incoming>> {
        let host = uri.host().unwrap_or_default().to_owned();
        let failed = |message: String| Error::Registry { host: host.clone(), message };
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = (host.trim_matches(['[', ']']), port);
        let stream = time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| failed("connection timed out".to_owned()))?
            .map_err(|e| failed(format!("dial {host}:{port}: {e}")))?;
        stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
        let mut request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(header::HOST, uri.authority().map_or("", |a| a.as_str()))
            .header(header::USER_AGENT, "skep");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| failed(e.to_string()))?;
        let response = if tls {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|e| failed(e.to_string()))?;
            let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
            let stream = time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream))
                .await
                .map_err(|_| failed("TLS handshake timed out".to_owned()))?
                .map_err(|e| failed(e.to_string()))?;
            exchange(TokioIo::new(stream), request).await
        } else {
            exchange(TokioIo::new(stream), request).await
        };
        response.map_err(failed)
    }
}

async fn exchange<S>(io: S, request: Request<Empty<Bytes>>) -> std::result::Result<Response<Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    // Ends by itself when the response body is dropped or read.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "registry connection ended");
        }
    });
    time::timeout(RESPONSE_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| "no response in time".to_owned())?
        .map_err(|e| e.to_string())
}

impl Session<'_> {
    fn failed(&self, message: impl Into<String>) -> Error {
        Error::Registry { host: self.host.clone(), message: message.into() }
    }

    /// Fetches the manifest or index `target` (tag or digest): media type and bytes.
    pub async fn manifest(&self, target: &str) -> Result<(String, Bytes)> {
        let response =
            self.fetch(&format!("manifests/{target}"), &[(header::ACCEPT, ACCEPT.to_owned())]).await?;
        let media_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(|v| v.split(';').next().unwrap_or_default().trim().to_owned())
            .unwrap_or_default();
        Ok((media_type, self.collect(response).await?))
    }

    /// Opens a blob for reading from `offset`. The flag says whether the registry honoured the offset.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<(Incoming, bool)> {
        let mut headers = Vec::new();
        if offset > 0 {
            headers.push((header::RANGE, format!("bytes={offset}-")));
        }
        let response = self.fetch(&format!("blobs/{digest}"), &headers).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok((response.into_body(), partial))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes> {
        let body = Limited::new(response.into_body(), MAX_DOCUMENT);
        let collected = time::timeout(RESPONSE_TIMEOUT, body.collect())
            .await
            .map_err(|_| self.failed("body timed out"))?
            .map_err(|e| self.failed(e.to_string()))?;
        Ok(collected.to_bytes())
    }

    async fn fetch(
        &self,
        path: &str,
        headers: &[(header::HeaderName, String)],
    ) -> Result<Response<Incoming>> {
        let scheme = if self.client.plain(&self.host) { "http" } else { "https" };
        let mut url = format!("{scheme}://{}/v2/{}/{path}", self.host, self.reference.repository);
        if self.reference.host != self.host && self.reference.host != "docker.io" {
            // Mirrors that serve several registries tell them apart by this parameter.
            url.push_str(&format!("?ns={}", encode_query(&self.reference.host)));
        }
        let origin: Uri = url.parse().map_err(|_| self.failed("malformed URL"))?;
        let (mut uri, mut retried) = (origin.clone(), false);
        for _ in 0..=MAX_REDIRECTS + 1 {
            let mut all = headers.to_vec();
            if uri.authority() == origin.authority()
                && let Some(value) = self.authorization.read().await.clone()
            {
                all.push((header::AUTHORIZATION, value));
            }
            let response = self.client.get(&uri, &all).await?;
            match response.status() {
                status if status.is_success() => return Ok(response),
                StatusCode::UNAUTHORIZED if !retried && uri.authority() == origin.authority() => {
                    retried = true;
                    let challenge = response
                        .headers()
                        .get_all(header::WWW_AUTHENTICATE)
                        .iter()
                        .find_map(|v| Challenge::parse(v.to_str().ok()?));
                    let Some(challenge) = challenge else { return Err(self.missing()) };
                    let value = self.authorize(challenge).await?;
                    *self.authorization.write().await = value;
                }
                status if status.is_redirection() => {
                    let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
                    let location = location.ok_or_else(|| self.failed("redirect without a location"))?;
                    uri = resolve(&uri, location).ok_or_else(|| self.failed("malformed redirect"))?;
                }
                StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(self.missing());
                }
                status => return Err(self.failed(format!("unexpected status {status}"))),
            }
        }
        Err(self.failed("too many redirects"))
    }

    fn missing(&self) -> Error {
        Error::ImageNotFound(self.reference.to_string())
    }

    async fn authorize(&self, challenge: Challenge) -> Result<Option<String>> {
        let credentials = self.keyring.lookup(&self.reference.host, &self.reference.repository);
        let (realm, service, scope) = match challenge {
            Challenge::Basic => return Ok(credentials.first().map(|c| c.basic())),
            Challenge::Bearer { realm, service, scope } => (realm, service, scope),
        };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
        let mut url =
            format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, encode_query(&scope));
        if let Some(service) = service {
            url.push_str(&format!("&service={}", encode_query(&service)));
        }
        let uri: Uri = url.parse().map_err(|_| self.failed("malformed token realm"))?;
        // Each fitting credential in turn, then anonymously.
        for credential in credentials.into_iter().map(Some).chain([None]) {
            let headers: Vec<_> = credential.iter().map(|c| (header::AUTHORIZATION, c.basic())).collect();
            let response = self.client.get(&uri, &headers).await?;
            if !response.status().is_success() {
                continue;
            }
            let body = self.collect(response).await?;
            let token: TokenAnswer =
                serde_json::from_slice(&body).map_err(|_| self.failed("malformed token answer"))?;
            if let Some(token) = token.token.or(token.access_token) {
                return Ok(Some(format!("Bearer {token}")));
            }
        }
        Err(self.missing())
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with("http://") || location.starts_with("https://") {
        // Never from TLS down to plain text.
        if base.scheme_str() == Some("https") && location.starts_with("http://") {
            return None;
        }
        return location.parse().ok();
    }
    let path = location.starts_with('/').then_some(location)?;
    format!("{}://{}{path}", base.scheme_str()?, base.authority()?).parse().ok()
}
