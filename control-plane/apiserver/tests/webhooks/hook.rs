//! A webhook server with a CA of its own. What it does is told by the last part of the path.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use skep_auth::pki::{ClientAuth, Pki, PkiOptions};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A running webhook server.
pub(crate) struct Hook {
    pub(crate) port: u16,
    /// Its CA, as a caBundle.
    pub(crate) ca: String,
    pub(crate) seen: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Starts one, with a certificate for 127.0.0.1 and `names`.
    pub(crate) async fn start(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = PkiOptions { server_names: Vec::new(), server_ips: Vec::new() };
        let pki = Pki::load_or_create(dir.path(), &options).expect("a PKI");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let cert = pki.issue_server("hook", &names, &[[127, 0, 0, 1].into()]).expect("a certificate");
        let tls = pki.server_config(&cert, ClientAuth::Optional).expect("TLS");
        let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(tls), seen.clone()));
        Self { port, ca: STANDARD.encode(pki.ca_pem()), seen, task, _dir: dir }
    }

    /// The requests it got at a path, in order.
    pub(crate) fn requests(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().expect("not poisoned");
        let at = |entry: &&Value| entry["path"].as_str().is_some_and(|seen| seen.starts_with(path));
        seen.iter().filter(at).map(|entry| entry["review"]["request"].clone()).collect()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<Value>>>) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tasks.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(request, seen.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            let served = builder.serve_connection(TokioIo::new(stream), service).await;
            drop(served);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<String>, Infallible> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let bytes =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let review: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let verb = request_verb(&path);
    let response = respond(&verb, &review["request"]);
    seen.lock().expect("not poisoned").push(json!({"path": path, "review": review}));
    if verb.starts_with("sleep") {
        let seconds = verb.trim_start_matches("sleep").parse().unwrap_or(60);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let mut response = response;
    if response["uid"].is_null() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    Ok(Response::new(body.to_string()))
}

/// The last part of the path, without the query.
fn request_verb(path: &str) -> String {
    let path = path.rsplit_once('/').map_or(path, |(_, last)| last);
    let path = path.rsplit('/').next().unwrap_or_default();
    path.split('?').next().unwrap_or_default().to_owned()
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn respond(verb: &str, request: &Value) -> Value {
    let object = &request["object"];
    match verb {
        "deny" => json!({"allowed": false, "status": {"message": "not here", "code": 403}}),
        "mute" => json!({"allowed": false}),
        "warn" => json!({"allowed": true, "warnings": ["be careful"], "auditAnnotations": {"k": "v"}}),
        "stranger" => json!({"allowed": true, "uid": "somebody else's"}),
        "stage-1" if object["data"]["start"] == "yes" => {
            patch(&json!([{"op": "add", "path": "/data/stage-1", "value": "yes"}]))
        }
        "stage-2" if object["data"]["stage-1"] == "yes" => {
            patch(&json!([{"op": "add", "path": "/data/stage-2", "value": "yes"}]))
        }
        "target-80" => patch(&json!([
            {"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 80},
        ])),
        "init" => patch(&json!([{
            "op": "add", "path": "/spec/initContainers",
            "value": [{"name": "init", "image": "x", "unheard": "of"}],
        }])),
        "broken-patch" => patch(&json!([{"op": "remove", "path": "/not/there"}])),
        "status" => patch(&json!([{"op": "add", "path": "/status", "value": {"phase": "Running"}}])),
        "guard" => {
            let bad = [object, &request["oldObject"]].iter().any(|object| object["data"]["bad"] == "yes");
            json!({"allowed": !bad, "status": {"message": "the map contains unwanted data"}})
        }
        _ => json!({"allowed": true}),
    }
}
