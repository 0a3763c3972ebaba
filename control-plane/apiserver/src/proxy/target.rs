//! Who is behind `/proxy`: a pod, an endpoint of a service, or a node.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::selector::LabelSelector;
use skep_registry::Target;
use skep_registry::cache::Filter;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::kubelet::{address, kubelets};
use super::relay::{self, CONNECT, Outgoing};
use super::rewrite::Rewriter;
use crate::aggregation::trust;
use crate::resources::Call;
use crate::respond::Answer;

/// The other end.
pub(super) struct Other {
    host: String,
    port: u16,
    tls: bool,
    /// It is a kubelet: there the certificate counts.
    kubelet: bool,
    path: String,
}

/// `[SCHEME:]NAME[:PORT]`
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Some(("", *name, "")),
        [name, port] => Some(("", *name, *port)),
        [scheme @ ("http" | "https" | ""), name, port] => Some((*scheme, *name, *port)),
        _ => None,
    }
}

/// Finds the other end of a `/proxy` request.
pub(super) async fn find(call: &Call<'_>, rest: &str) -> Result<Other, ApiError> {
    let malformed = || ApiError::bad_request(format!("invalid proxy request {:?}", call.request.name));
    let (scheme, name, port) = split(&call.request.name).ok_or_else(malformed)?;
    let path = match call.uri.query() {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    };
    let tls = scheme == "https";
    let target = Target { name: name.to_owned(), subresource: String::new(), ..call.target() };
    match call.request.gvr.resource.as_str() {
        "nodes" => {
            let (host, kubelet) = address(call, name).await?;
            let asked = if port.is_empty() { kubelet } else { port.parse().map_err(|_| malformed())? };
            if asked == kubelet {
                return Ok(Other { host, port: kubelet, tls: true, kubelet: true, path });
            }
            proxyable(&host)?;
            Ok(Other { host, port: asked, tls, kubelet: false, path })
        }
        "pods" => {
            let pod = call.server.registry.get(&target, None).await?;
            let port = pod_port(&pod.value, port).ok_or_else(malformed)?;
            let host = pod.value.text(&["status", "podIP"]).to_owned();
            if host.is_empty() {
                return Err(ApiError::service_unavailable(format!("pod {name:?} has no address yet")));
            }
            proxyable(&host)?;
            Ok(Other { host, port, tls, kubelet: false, path })
        }
        _ => {
            let service = call.server.registry.get(&target, None).await?;
            let none =
                || ApiError::service_unavailable(format!("no endpoints available for service {name:?}"));
            let port_name = service_port(&service.value, port).ok_or_else(none)?;
            let (host, port) = endpoint(call, &target, &port_name).await?.ok_or_else(none)?;
            Ok(Other { host, port, tls, kubelet: false, path })
        }
    }
}

/// What a status may say must not lead to this machine's own services.
fn proxyable(host: &str) -> Result<(), ApiError> {
    // A mapped IPv4 address is that address.
    let local = match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
        Err(_) => host == "localhost",
    };
    if local { Err(ApiError::bad_request("address not allowed")) } else { Ok(()) }
}

fn pod_port(pod: &Value, port: &str) -> Option<u16> {
    if let Ok(number) = port.parse() {
        return Some(number);
    }
    let containers = pod.items(&["spec", "containers"]);
    let mut ports = containers.iter().flat_map(|container| container.items(&["ports"]));
    let found = ports.find(|known| port.is_empty() || known.text(&["name"]) == port);
    match found.and_then(|port| port.int(&["containerPort"])) {
        Some(number) => u16::try_from(number).ok(),
        None if port.is_empty() => Some(80),
        None => None,
    }
}

/// The name of the service's port that is meant: by name, by number, or its only one.
fn service_port(service: &Value, port: &str) -> Option<String> {
    let ports = service.items(&["spec", "ports"]);
    let found = if port.is_empty() {
        ports.first().filter(|_| ports.len() == 1)
    } else {
        ports.iter().find(|known| {
            known.text(&["name"]) == port
                || known.int(&["port"]).is_some_and(|known| known.to_string() == port)
        })
    };
    found.map(|port| port.text(&["name"]).to_owned())
}

/// One ready endpoint of the service.
async fn endpoint(
    call: &Call<'_>,
    service: &Target,
    port_name: &str,
) -> Result<Option<(String, u16)>, ApiError> {
    let slices = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
    let labels = LabelSelector::parse(&format!("kubernetes.io/service-name={}", service.name))
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let filter = Filter { namespace: Some(service.namespace.clone()), labels, ..Filter::default() };
    let target = Target::new(slices, service.namespace.clone(), "");
    let slices = call.server.registry.list_all(&target, &filter).await?;
    let mut found = Vec::new();
    for slice in &slices {
        let port = slice.value.items(&["ports"]).iter().find(|port| port.text(&["name"]) == port_name);
        let Some(port) = port.and_then(|port| port.int(&["port"])).and_then(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        for endpoint in slice.value.items(&["endpoints"]) {
            let ready = endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true);
            let address = endpoint.items(&["addresses"]).first().and_then(Value::as_str);
            found.extend(address.filter(|_| ready).map(|address| (address.to_owned(), port)));
        }
    }
    let at = rand::random_range(0..found.len().max(1));
    Ok(found.into_iter().nth(at))
}

impl Other {
    /// Passes the request on.
    pub(super) async fn send(&self, call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
        let address = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        // The other end sees the host that the client asked for, and so links to it.
        let asked = call.headers.get(HOST).and_then(|value| value.to_str().ok());
        let host = asked.or_else(|| call.uri.authority().map(Authority::as_str)).unwrap_or(&address);
        let outgoing = || Outgoing { path: &self.path, host, plain: false, more: forwarded(call) };
        let answer = if self.kubelet {
            let stream = kubelets(call)?.connect(&self.host, self.port).await?;
            relay::pass(call, body, stream, outgoing()).await?
        } else {
            let stream = self.connect().await?;
            if self.tls {
                let stream = self.handshake(stream).await?;
                relay::pass(call, body, stream, outgoing()).await?
            } else {
                relay::pass(call, body, stream, outgoing()).await?
            }
        };
        let hosts = vec![address.clone(), host.to_owned()];
        let rewriter = Rewriter { prefix: prefix(call).to_owned(), hosts };
        Ok(rewriter.answer(answer).await)
    }

    async fn connect(&self) -> Result<TcpStream, ApiError> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(_) => Err(unreachable(&"timed out")),
        }
    }

    /// TLS with whatever certificate a pod shows: nothing says which would be right.
    async fn handshake(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, ApiError> {
        let config = trust::anybody().map_err(|error| unreachable(&error))?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unreachable(&error))?;
        let connect = TlsConnector::from(Arc::new(config)).connect(name, stream);
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(_) => Err(unreachable(&"timed out")),
        }
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::service_unavailable(format!("error trying to reach service: {error}"))
}

/// The path of the proxy itself.
fn prefix<'a>(call: &Call<'a>) -> &'a str {
    let path = call.uri.path();
    let rest = call.request.rest.as_deref().unwrap_or_default();
    path.strip_suffix(rest).unwrap_or(path).trim_end_matches('/')
}

/// What tells the other end how it was reached.
fn forwarded(call: &Call<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let uri = HeaderValue::from_str(call.uri.path());
    uri.into_iter().map(|uri| (HeaderName::from_static("x-forwarded-uri"), uri)).collect()
}
