//! Logs, exec, attach and port-forward: the paths of the kubelet that has the pod.

use std::sync::Arc;

use axum::body::Body;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_registry::Target;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::relay::{self, CONNECT, Outgoing};
use crate::resources::Call;
use crate::respond::Answer;

/// Where a kubelet listens unless its node says otherwise.
const PORT: u16 = 10250;

/// Names the container a client means when it names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The certificates for kubelets can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM text is malformed.
    #[error("a certificate or key for kubelets can't be read")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// They do not fit together.
    #[error("the certificates for kubelets can't be used")]
    Tls(#[from] rustls::Error),
}

/// How kubelets are reached: TLS, both sides with certificates of the cluster's authority.
#[derive(Clone)]
pub struct Kubelets {
    connector: TlsConnector,
}

impl Kubelets {
    /// With the authority's certificate and the client certificate of this server, all in PEM.
    pub fn new(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects to `host:port`; its certificate must be for `host`.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<TlsStream<TcpStream>, ApiError> {
        let failed = |error: &dyn std::fmt::Display| {
            ApiError::service_unavailable(format!("the kubelet at {host}:{port} can't be reached: {error}"))
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(name, stream).await
        };
        match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"timed out")),
        }
    }
}

/// The address and port of a node's kubelet.
pub(super) async fn address(call: &Call<'_>, node: &str) -> Result<(String, u16), ApiError> {
    let target = Target::new(GroupVersionResource::new("", "v1", "nodes"), "", node);
    let node = call.server.registry.get(&target, Some(0)).await?;
    let addresses = node.value.items(&["status", "addresses"]);
    let of = |kind: &str| addresses.iter().find(|address| address.text(&["type"]) == kind);
    let address = ["InternalIP", "Hostname", "ExternalIP"].into_iter().find_map(of);
    let address = address
        .map(|address| address.text(&["address"]).to_owned())
        .ok_or_else(|| ApiError::service_unavailable(format!("node {:?} has no address", target.name)))?;
    let port = node.value.int(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    Ok((address, port.unwrap_or(PORT)))
}

/// Passes the request on to the kubelet of the pod.
pub(super) async fn stream(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    let pod = call.server.registry.get(&call.target().below(""), None).await?;
    let path = path(call, &pod.value)?;
    let node = pod.value.text(&["spec", "nodeName"]);
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", pod.name)));
    }
    let (host, port) = address(call, node).await?;
    let kubelets = kubelets(call)?;
    let stream = kubelets.connect(&host, port).await?;
    let plain = call.request.subresource == "log";
    let outgoing = Outgoing { path: &path, host: &format!("{host}:{port}"), plain, more: Vec::new() };
    relay::pass(call, body, stream, outgoing).await
}

/// The way to kubelets, if this server has one.
pub(super) fn kubelets<'a>(call: &Call<'a>) -> Result<&'a Kubelets, ApiError> {
    let kubelets = call.server.kubelets.as_ref();
    kubelets.ok_or_else(|| ApiError::service_unavailable("this server has no way to reach kubelets"))
}

/// The kubelet's path and query for the request.
fn path(call: &Call<'_>, pod: &Value) -> Result<String, ApiError> {
    let (namespace, name) = (pod.namespace(), pod.name());
    let query = call.query;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let mut switch = |from: &str, to: &'static str| {
        if query.flag(from) {
            pairs.push((to, "1".to_owned()));
        }
    };
    let base = match call.request.subresource.as_str() {
        "log" => {
            let container = container(call, pod)?;
            for name in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
                if let Some(value) = query.get(name) {
                    pairs.push((name, value.to_owned()));
                }
            }
            for name in ["follow", "previous", "timestamps"] {
                if query.flag(name) {
                    pairs.push((name, "true".to_owned()));
                }
            }
            format!("/containerLogs/{namespace}/{name}/{container}")
        }
        "portforward" => {
            let ports = query.all("ports").flat_map(|ports| ports.split(','));
            pairs.extend(ports.map(|port| ("port", port.to_owned())));
            format!("/portForward/{namespace}/{name}")
        }
        verb => {
            let container = container(call, pod)?;
            switch("stdin", "input");
            switch("stdout", "output");
            switch("stderr", "error");
            switch("tty", "tty");
            pairs.extend(query.all("command").map(|word| ("command", word.to_owned())));
            if verb == "exec" && query.get("command").is_none() {
                return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
            }
            format!("/{verb}/{namespace}/{name}/{container}")
        }
    };
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    Ok(if query.is_empty() { base } else { format!("{base}?{}", query.join("&")) })
}

/// The container the request is about.
fn container(call: &Call<'_>, pod: &Value) -> Result<String, ApiError> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let names = |list: &str| -> Vec<String> {
        pod.items(&["spec", list]).iter().map(|container| container.text(&["name"]).to_owned()).collect()
    };
    if let Some(wanted) = call.query.get("container") {
        let known = lists.iter().any(|list| names(list).iter().any(|name| name == wanted));
        if known {
            return Ok(wanted.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", pod.name())));
    }
    let regular = names("containers");
    let default = pod.annotation(DEFAULT_CONTAINER).filter(|name| regular.iter().any(|known| known == name));
    match (default, regular.as_slice()) {
        (Some(default), _) => Ok(default.to_owned()),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(ApiError::bad_request(format!("pod {} has no container", pod.name()))),
        (None, several) => {
            let init = names("initContainers");
            let mut text = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                several.join(" ")
            );
            if !init.is_empty() {
                text = format!("{text} or one of the init containers: [{}]", init.join(" "));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Percent-encodes a query value.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
