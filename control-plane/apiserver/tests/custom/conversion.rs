//! Conversion by a webhook, over TLS: `spec.hostPort` in v1 is `spec.host` and `spec.port` in v2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
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

use super::{definition, establish, wait};
use crate::support::Server;

const V1: &str = "/apis/stable.example.com/v1/namespaces/default/hosts";
const V2: &str = "/apis/stable.example.com/v2/namespaces/default/hosts";
const ONE: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hosts.stable.example.com";

/// A running converter; it ends when this is dropped.
struct Converter {
    address: SocketAddr,
    ca_pem: String,
    calls: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Converter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Converter {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let options = PkiOptions { server_names: Vec::new(), server_ips: Vec::new() };
        let pki = Pki::load_or_create(dir.path(), &options).expect("a PKI");
        let pair = pki.issue_server("converter", &[], &[[127, 0, 0, 1].into()]).expect("a certificate");
        let tls = pki.server_config(&pair, ClientAuth::Optional).expect("TLS");
        let ca_pem = pki.ca_pem().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(tls), calls.clone()));
        Self { address, ca_pem, calls, serving, _dir: dir }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, calls: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (acceptor, calls) = (acceptor.clone(), calls.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(calls.clone(), request));
            let http = auto::Builder::new(TokioExecutor::new());
            let _gone = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(calls: Arc<AtomicUsize>, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    calls.fetch_add(1, Ordering::SeqCst);
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let wanted = review["request"]["desiredAPIVersion"].as_str().expect("a version");
    let objects = review["request"]["objects"].as_array().expect("objects").iter();
    let converted: Vec<Value> = objects.map(|object| convert(object, wanted)).collect();
    let answer = json!({
        "apiVersion": review["apiVersion"],
        "kind": "ConversionReview",
        "response": {
            "uid": review["request"]["uid"],
            "result": {"status": "Success"},
            "convertedObjects": converted,
        },
    });
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(answer.to_string())
        .expect("a response"))
}

fn convert(object: &Value, wanted: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(wanted);
    let spec = object["spec"].take();
    object["spec"] = if wanted.ends_with("/v2") {
        let (host, port) =
            spec["hostPort"].as_str().and_then(|text| text.split_once(':')).unwrap_or_default();
        json!({"host": host, "port": port})
    } else {
        let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
        json!({"hostPort": format!("{}:{}", text("host"), text("port"))})
    };
    object
}

fn hosts(converter: &Converter) -> Value {
    let text = json!({"type": "string"});
    let mut definition = definition(
        "stable.example.com",
        "hosts",
        "Host",
        &json!({"type": "object", "properties": {"hostPort": text}}),
    );
    let versions = definition["spec"]["versions"].as_array_mut().expect("versions");
    versions[0]["selectableFields"] = json!([{"jsonPath": ".spec.hostPort"}]);
    let mut second = versions[0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"type": "object", "properties": {"host": text, "port": text}});
    second["selectableFields"] = json!([{"jsonPath": ".spec.host"}]);
    versions.push(second);
    let bundle = base64::engine::general_purpose::STANDARD.encode(&converter.ca_pem);
    definition["spec"]["conversion"] = json!({
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": {"url": format!("https://{}/convert", converter.address), "caBundle": bundle},
            "conversionReviewVersions": ["v1", "v1beta1"],
        },
    });
    definition
}

fn host(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "Host", "metadata": {"name": name},
        "spec": {"hostPort": host_port}})
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

/// Holds AM-33, AM-34, AM-41.
#[tokio::test]
async fn objects_are_converted_by_the_webhook() {
    let converter = Converter::start().await;
    let server = Server::start().await;
    establish(&server, hosts(&converter)).await;
    for (name, host_port) in [("a", "one:1"), ("b", "two:2")] {
        let (status, created) = server.send("POST", V1, Some(host(name, host_port))).await;
        assert_eq!(status, 201, "{created}");
    }
    assert_eq!(converter.calls(), 0);
    let (_, list) = server.send("GET", V2, None).await;
    assert_eq!(list["items"][1]["spec"], json!({"host": "two", "port": "2"}), "{list}");
    assert_eq!((names(&list), converter.calls()), (vec!["a", "b"], 1));
    let (_, found) = server.send("GET", &format!("{V2}/a"), None).await;
    assert_eq!((&found["apiVersion"], converter.calls()), (&json!("stable.example.com/v2"), 1));

    // What is stored from now on is stored in v2: lists hold both.
    let path = "application/json-patch+json";
    let swap = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let (status, patched) = server.send_as("PATCH", ONE, path, swap.to_string()).await;
    assert_eq!(
        (status.as_u16(), &patched["status"]["storedVersions"]),
        (200, &json!(["v1", "v2"])),
        "{patched}"
    );
    let (status, _) = server.send("POST", V1, Some(host("c", "three:3"))).await;
    assert_eq!(status, 201);
    let (_, list) = server.send("GET", V1, None).await;
    assert_eq!(list["items"][2]["spec"], json!({"hostPort": "three:3"}), "{list}");
    let (_, list) = server.send("GET", &format!("{V2}?fieldSelector=spec.host%3Dthree"), None).await;
    assert_eq!(names(&list), ["c"]);
    let (_, list) = server.send("GET", &format!("{V1}?fieldSelector=spec.hostPort%3Done:1"), None).await;
    assert_eq!(names(&list), ["a"]);

    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let patch = json!({"spec": {"hostPort": "three:4"}});
    let (status, _) = server.send("PATCH", &format!("{V1}/c"), Some(patch)).await;
    assert_eq!(status, 200);
    let (status, _) = server.send("DELETE", &format!("{V1}/a"), None).await;
    assert_eq!(status, 200);
    let watch =
        format!("{V2}?watch=true&resourceVersion={version}&timeoutSeconds=1&fieldSelector=spec.host%3Dthree");
    let request = Request::get(&watch).body(axum::body::Body::empty()).expect("a request");
    let (_, frames) = server.text(request).await;
    let frames: Vec<Value> = frames.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((frames.len(), &frames[0]["type"]), (1, &json!("MODIFIED")), "{frames:?}");
    assert_eq!(frames[0]["object"]["spec"], json!({"host": "three", "port": "4"}));
}

/// The managers by name: the version they wrote in, and what they own of the spec.
fn managers(object: &Value) -> Vec<(String, String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entry = |entry: &Value| {
        let version = text(entry, "apiVersion").rsplit('/').next().unwrap_or_default().to_owned();
        (text(entry, "manager"), version, entry["fieldsV1"]["f:spec"].clone())
    };
    let mut found: Vec<_> = entries.map(entry).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn owner(name: &str, version: &str, fields: &[&str]) -> (String, String, Value) {
    let fields: serde_json::Map<String, Value> =
        fields.iter().map(|field| (format!("f:{field}"), json!({}))).collect();
    (name.to_owned(), version.to_owned(), Value::Object(fields))
}

/// Each manager's fields are of the version it wrote in; a write in another one is compared in that one.
#[tokio::test]
async fn ownership_crosses_versions_that_a_webhook_converts() {
    let converter = Converter::start().await;
    let server = Server::start().await;
    establish(&server, hosts(&converter)).await;
    let apply = async |base: &str, manager: &str, spec: Value, more: &str| {
        let version = if base == V1 { "v1" } else { "v2" };
        let object = json!({"apiVersion": format!("stable.example.com/{version}"), "kind": "Host",
            "metadata": {"name": "h"}, "spec": spec});
        let path = format!("{base}/h?fieldManager={manager}{more}");
        let (status, answer) =
            server.send_as("PATCH", &path, "application/apply-patch+yaml", object.to_string()).await;
        (status.as_u16(), answer)
    };
    let (status, made) = apply(V1, "one", json!({"hostPort": "a:1"}), "").await;
    assert_eq!(status, 201, "{made}");
    // What one has set in v1 is part of what two wants in v2.
    let (status, conflict) = apply(V2, "two", json!({"host": "b"}), "").await;
    assert_eq!(status, 409, "{conflict}");
    let wanted = "Apply failed with 1 conflict: conflict with \"one\": .spec.hostPort";
    assert_eq!(conflict["message"], wanted);
    // The same value is no conflict.
    let (status, both) = apply(V2, "two", json!({"host": "a"}), "").await;
    assert_eq!(status, 200, "{both}");
    assert_eq!(managers(&both), [owner("one", "v1", &["hostPort"]), owner("two", "v2", &["host"])]);
    // Two gives it up; one still wants it.
    let (status, left) = apply(V2, "two", json!({"port": "1"}), "").await;
    assert_eq!((status, &left["spec"]), (200, &json!({"host": "a", "port": "1"})), "{left}");
    assert_eq!(managers(&left), [owner("one", "v1", &["hostPort"]), owner("two", "v2", &["port"])]);
    // By force one loses it, in its own version.
    let (status, forced) = apply(V2, "two", json!({"host": "c", "port": "2"}), "&force=true").await;
    assert_eq!((status, &forced["spec"]), (200, &json!({"host": "c", "port": "2"})), "{forced}");
    assert_eq!(managers(&forced), [owner("two", "v2", &["host", "port"])]);
    // An update through v1 takes from two what it changes in v2.
    let (_, mut seen) = server.send("GET", &format!("{V1}/h"), None).await;
    seen["spec"]["hostPort"] = json!("c:3");
    let (status, updated) = server.send("PUT", &format!("{V1}/h?fieldManager=three"), Some(seen)).await;
    assert_eq!(status, 200, "{updated}");
    assert_eq!(managers(&updated), [owner("three", "v1", &["hostPort"]), owner("two", "v2", &["host"])]);
    let patch = json!({"spec": {"hostPort": "d:3"}});
    let (status, patched) = server.send("PATCH", &format!("{V1}/h?fieldManager=three"), Some(patch)).await;
    assert_eq!(status, 200, "{patched}");
    assert_eq!(managers(&patched), [owner("three", "v1", &["hostPort"])]);
    // Without the webhook one version still goes on by itself; nobody is forgotten.
    let (status, _) = apply(V2, "four", json!({"host": "d"}), "").await;
    assert_eq!(status, 200);
    drop(converter);
    let patch = json!({"spec": {"hostPort": "e:5"}});
    let (status, patched) = server.send("PATCH", &format!("{V1}/h?fieldManager=three"), Some(patch)).await;
    assert_eq!(status, 200, "{patched}");
    assert_eq!(managers(&patched), [owner("four", "v2", &["host"]), owner("three", "v1", &["hostPort"])]);
    // Who applies must know with whom he is in conflict.
    let (status, refused) = apply(V1, "one", json!({"hostPort": "f:6"}), "").await;
    assert_eq!(status, 500, "{refused}");
}

#[tokio::test]
async fn a_converter_that_is_away_is_told_of() {
    let converter = Converter::start().await;
    let server = Server::start().await;
    establish(&server, hosts(&converter)).await;
    server.send("POST", V1, Some(host("a", "one:1"))).await;
    drop(converter);
    let found = wait(&server, &format!("{V2}/a"), |found| found["code"] == 500).await;
    let message = found["message"].as_str().expect("a message");
    let start = "conversion webhook for stable.example.com/v1, Kind=Host failed: Post \"https://127.0.0.1:";
    assert!(message.starts_with(start), "{message}");
    // What needs no conversion goes on.
    let (status, _) = server.send("GET", &format!("{V1}/a"), None).await;
    assert_eq!(status, 200);
}
