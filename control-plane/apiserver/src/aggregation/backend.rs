//! One extension server: how it is found, trusted and asked.
//!
//! Connections go straight to a ready endpoint of its service, over TLS with the front proxy's client
//! certificate, and are kept for the next request. The server's certificate must be for
//! `NAME.NAMESPACE.svc` by the APIService's bundle, or by the system's authorities where there is none.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::selector::LabelSelector;
use skep_registry::cache::{Filter, Object};
use skep_registry::{Registry, Target};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::availability::{addresses, port_name};
use super::table::Reference;
use super::{SERVICE_NAME, trust};

/// Connecting takes no longer, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection that nobody uses is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// An extension server could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its APIService says nothing usable about trust.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// It did not answer.
    #[error("error trying to reach service: {}", cause(.0))]
    Unreachable(#[from] hyper_util::client::legacy::Error),
}

/// The innermost reason: the layers above it only say that something failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// An extension server.
#[derive(Clone)]
pub(crate) struct Backend {
    /// The host of its URLs.
    host: String,
    client: Client<Connector, Body>,
}

impl Backend {
    /// From the `spec` of an APIService.
    pub(super) fn new(
        registry: Arc<Registry>,
        reference: Reference,
        spec: &Value,
        front_proxy: Option<&skep_auth::pki::CertPair>,
    ) -> Result<Self, Error> {
        let name = format!("{}.{}.svc", reference.name, reference.namespace);
        let host = format!("{name}:{}", reference.port);
        let tls = trust::config(spec, front_proxy)?;
        let connector = Connector {
            registry,
            reference: Arc::new(reference),
            name: ServerName::try_from(name).map_err(trust::Error::from)?,
            tls: TlsConnector::from(Arc::new(tls)),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { host, client })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request whose URI is a path.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(http::uri::Scheme::HTTPS);
        parts.authority = self.host.parse().ok();
        parts.path_and_query = path;
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        Ok(self.client.request(request).await?)
    }
}

/// Dials the endpoints of a service, whatever the URI says.
#[derive(Clone)]
struct Connector {
    registry: Arc<Registry>,
    reference: Arc<Reference>,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    async fn connect(self) -> io::Result<Stream> {
        let dial = async {
            let (host, port) = resolve(&self.registry, &self.reference).await?;
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(Stream(TokioIo::new(self.tls.connect(self.name.clone(), stream).await?)))
        };
        tokio::time::timeout(CONNECT, dial)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"))?
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// A service as the cache has it.
pub(super) async fn service(registry: &Registry, reference: &Reference) -> Option<Arc<Object>> {
    let services = GroupVersionResource::new("", "v1", "services");
    let target = Target::new(services, reference.namespace.clone(), reference.name.clone());
    registry.get(&target, Some(0)).await.ok()
}

/// The slices of a service.
pub(super) async fn slices(registry: &Registry, reference: &Reference) -> Vec<Arc<Object>> {
    let resource = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
    let Ok(labels) = LabelSelector::parse(&format!("{SERVICE_NAME}={}", reference.name)) else {
        return Vec::new();
    };
    let namespace = reference.namespace.clone();
    let filter = Filter { namespace: Some(namespace.clone()), labels, ..Filter::default() };
    registry.list_all(&Target::new(resource, namespace, ""), &filter).await.unwrap_or_default()
}

/// Where a service's server is: one of its ready endpoints.
async fn resolve(registry: &Registry, reference: &Reference) -> io::Result<(String, u16)> {
    let missing = |text: String| io::Error::new(io::ErrorKind::NotFound, text);
    let Some(service) = service(registry, reference).await else {
        return Err(missing(format!("service {:?} not found", reference.name)));
    };
    let spec = &service.value;
    if spec.text(&["spec", "type"]) == "ExternalName" {
        return Ok((spec.text(&["spec", "externalName"]).to_owned(), reference.port));
    }
    let Some(port_name) = port_name(spec, reference.port) else {
        return Err(missing(format!(
            "no service port {} found for service {:?}",
            reference.port, reference.name
        )));
    };
    let slices = slices(registry, reference).await;
    let mut found: Vec<_> = slices.iter().flat_map(|slice| addresses(&slice.value, &port_name)).collect();
    if found.is_empty() {
        return Err(missing(format!("no endpoints available for service {:?}", reference.name)));
    }
    Ok(found.swap_remove(rand::random_range(0..found.len())))
}

/// A connection.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
