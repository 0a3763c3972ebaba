//! An extension API server in the shape of a metrics server: TLS, trust in the front proxy's certificate,
//! discovery, OpenAPI, one namespaced and one cluster-scoped resource, and a WebSocket-like upgrade.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_auth::pki::{CertPair, ClientAuth, Pki, PkiOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// The path of the group-version it serves.
pub(crate) const PATH: &str = "/apis/metrics.k8s.io/v1beta1";

/// A running extension server. It ends when this is dropped.
pub(crate) struct Extension {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    /// What the API server shows as its front proxy.
    pub(crate) front_proxy: CertPair,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

struct Inner {
    /// The API server, asked what the user may.
    api: Router,
    nodes: Mutex<BTreeMap<String, Value>>,
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Extension {
    /// Starts one that asks `api` what users may.
    pub(crate) async fn start(api: Router, at: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = PkiOptions { server_names: Vec::new(), server_ips: Vec::new() };
        let pki = Pki::load_or_create(dir.path(), &options).expect("a PKI");
        let names = ["metrics.kube-system.svc".to_owned()];
        let pair = pki.issue_server("metrics", &names, &[]).expect("a certificate");
        let tls = pki.server_config(&pair, ClientAuth::Required).expect("TLS");
        let front_proxy = pki.issue_client("front-proxy-client", &[]).expect("a certificate");
        let ca_pem = pki.ca_pem().to_owned();
        let listener = TcpListener::bind(at).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Inner { api, nodes: Mutex::default() });
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(tls), inner));
        Self { address, ca_pem, front_proxy, serving, _dir: dir }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (acceptor, inner) = (acceptor.clone(), inner.clone());
        connections.spawn(async move {
            // Strangers without the certificate are turned away.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(inner.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let _gone = connection.with_upgrades().await;
        });
    }
}

fn reply(status: u16, body: &Value) -> Response<String> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body.to_string()).expect("a response")
}

async fn answer(inner: Arc<Inner>, mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let text = |name: &str| {
        let values = request.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let path = request.uri().path().to_owned();
    let user = text("x-remote-user").join(",");
    if user.is_empty() {
        return Ok(reply(401, &json!({"kind": "Status", "code": 401})));
    }
    if !may(&inner, &user, text("x-remote-group"), &path).await {
        return Ok(reply(403, &json!({"kind": "Status", "code": 403})));
    }
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.expect("upgraded"));
            stream.write_all(format!("hello {user}").as_bytes()).await.expect("written");
            stream.shutdown().await.expect("closed");
        });
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for name in ["connection", "upgrade"] {
            response.headers_mut().insert(name, request.headers()[name].clone());
        }
        return Ok(response);
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let seen: BTreeMap<String, String> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-") || name.as_str() == "authorization")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    let method = request.method().as_str().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    Ok(match (method.as_str(), path.as_str()) {
        ("GET", PATH) => reply(200, &resources()),
        ("GET", "/openapi/v3") => reply(
            200,
            &json!({"paths": {"apis/metrics.k8s.io/v1beta1": {
                "serverRelativeURL": "/openapi/v3/apis/metrics.k8s.io/v1beta1?hash=1",
            }}}),
        ),
        ("GET", "/openapi/v3/apis/metrics.k8s.io/v1beta1") => {
            reply(200, &json!({"openapi": "3.0.0", "asked": query}))
        }
        ("GET", "/openapi/v2") => reply(
            200,
            &json!({"swagger": "2.0", "info": {"title": "m", "version": "1"}, "paths": {
                "/apis/metrics.k8s.io/v1beta1/nodes": {"get": {"responses": {"200": {
                    "description": "OK", "schema": {"$ref": "#/definitions/NodeMetrics"},
                }}}},
                "/apis/": {},
            }, "definitions": {"NodeMetrics": {"type": "object"}}}),
        ),
        ("GET", path) if path == format!("{PATH}/seen") => {
            reply(200, &json!({"headers": seen, "query": query, "user": user}))
        }
        (method, path) => match path.strip_prefix(&format!("{PATH}/nodes")) {
            Some(name) => nodes(&inner, method, name.trim_start_matches('/'), &body),
            None => reply(404, &json!({"kind": "Status", "code": 404, "asked": path})),
        },
    })
}

/// Delegated authorization: the API server knows the roles.
async fn may(inner: &Inner, user: &str, groups: Vec<String>, path: &str) -> bool {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "nonResourceAttributes": {"path": path, "verb": "get"}},
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews")
        .header("content-type", "application/json")
        .extension(UserInfo::new("system:serviceaccount:kube-system:metrics", Vec::<String>::new()))
        .body(axum::body::Body::from(review.to_string()))
        .expect("a request");
    let response = inner.api.clone().oneshot(request).await.expect("infallible");
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&bytes).expect("JSON");
    review["status"]["allowed"] == true
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
        "resources": [
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics",
             "verbs": ["create", "delete", "get", "list", "update"]},
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]},
        ],
    })
}

fn nodes(inner: &Inner, method: &str, name: &str, body: &[u8]) -> Response<String> {
    let mut nodes = inner.nodes.lock().expect("not poisoned");
    let object = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    match (method, name) {
        ("GET", "") => {
            let items: Vec<&Value> = nodes.values().collect();
            reply(
                200,
                &json!({"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items}),
            )
        }
        ("POST", "") => {
            let object = object();
            nodes.insert(object["metadata"]["name"].as_str().unwrap_or_default().to_owned(), object.clone());
            reply(201, &object)
        }
        ("PUT", name) => {
            nodes.insert(name.to_owned(), object());
            reply(200, &object())
        }
        ("DELETE", name) if nodes.remove(name).is_some() => {
            reply(200, &json!({"kind": "Status", "status": "Success"}))
        }
        ("GET", name) if nodes.contains_key(name) => reply(200, &nodes[name]),
        _ => reply(404, &json!({"kind": "Status", "code": 404})),
    }
}
