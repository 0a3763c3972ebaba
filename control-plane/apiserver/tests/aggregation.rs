//! API aggregation: registration, availability, proxying, discovery and OpenAPI of an extension server.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::Request;
use serde_json::{Value, json};
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::Chain;
use skep_auth::authorization::AlwaysAllow;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::extension::{Extension, PATH};
use crate::kubectl::kubectl;
use crate::support::Server;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Asks until the answer is as wanted.
async fn eventually(server: &Server, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = server.send("GET", path, None).await.1;
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never became what was wanted: {last:#}");
}

fn available(object: &Value) -> [&str; 2] {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let condition = conditions.iter().find(|condition| condition["type"] == "Available");
    let text = |field: &str| condition.and_then(|condition| condition[field].as_str()).unwrap_or_default();
    [text("status"), text("reason")]
}

/// The same registry behind a server that aggregates.
fn aggregating(server: &mut Server, extension: &Extension) {
    let registry = server.api.registry().clone();
    let mut config = Config::new(registry, Chain::new(Vec::new(), true), Arc::new(AlwaysAllow));
    config.front_proxy = Some(extension.front_proxy.clone());
    server.api = ApiServer::build(config);
    server.router = server.api.router();
    tokio::spawn(server.api.clone().aggregate(server.cancel.clone()));
}

fn service(port: u16) -> Value {
    json!({
        "metadata": {"name": "metrics"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    })
}

fn registration(extension: &Extension, bundle: &str) -> Value {
    json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100,
            "caBundle": base64::engine::general_purpose::STANDARD.encode(bundle),
            "service": {"namespace": "kube-system", "name": "metrics", "port": extension.address.port()},
        },
    })
}

/// What the conformance test does with the sample API server, with a metrics server in its place.
///
/// Holds AM-29.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_server_serves_its_group() {
    let mut server = Server::start().await;
    let extension = Extension::start(server.router.clone(), ([127, 0, 0, 1], 0).into()).await;
    aggregating(&mut server, &extension);
    for name in ["kube-system", "default"] {
        let namespace = json!({"metadata": {"name": name}});
        let (status, answer) = server.send("POST", "/api/v1/namespaces", Some(namespace)).await;
        assert_eq!(status, 201, "{answer}");
    }

    // Registered, but the service is not there.
    let (status, answer) =
        server.send("POST", SERVICES, Some(registration(&extension, &extension.ca_pem))).await;
    assert_eq!(status, 201, "{answer}");
    let own = format!("{SERVICES}/v1beta1.metrics.k8s.io");
    eventually(&server, &own, |object| available(object) == ["False", "ServiceNotFound"]).await;
    let (status, text) =
        server.text(Request::get(format!("{PATH}/nodes")).body("".into()).expect("a request")).await;
    assert_eq!((status.as_u16(), text.as_str()), (503, "service unavailable\n"));
    let (_, groups) = server.send("GET", "/apis", None).await;
    assert!(groups["groups"].to_string().contains("metrics.k8s.io"), "{groups}");

    // The service comes.
    let path = "/api/v1/namespaces/kube-system/services";
    let (status, answer) = server.send("POST", path, Some(service(extension.address.port()))).await;
    assert_eq!(status, 201, "{answer}");
    eventually(&server, &own, |object| available(object) == ["True", "Passed"]).await;

    // The user arrives, spoofed headers and credentials do not.
    let request = Request::get(format!("{PATH}/seen?labelSelector=a%3Db"))
        .header("x-remote-user", "root")
        .header("x-remote-extra-a", "b")
        .header("authorization", "Bearer secret")
        .body("".into())
        .expect("a request");
    let (status, text) = server.text(request).await;
    assert_eq!(status, 200, "{text}");
    let seen: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(seen["user"], "tester");
    assert_eq!(seen["query"], "labelSelector=a%3Db");
    assert_eq!(seen["headers"].get("authorization"), None);
    assert_eq!(seen["headers"].get("x-remote-extra-a"), None);

    // Objects: create, read, change, delete.
    let object = json!({
        "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {"name": "n"},
        "timestamp": "2026-01-01T00:00:00Z", "window": "10s", "usage": {"cpu": "250m", "memory": "64Mi"},
    });
    let nodes = format!("{PATH}/nodes");
    assert_eq!(server.send("POST", &nodes, Some(object.clone())).await.0, 201);
    assert_eq!(server.send("PUT", &format!("{nodes}/n"), Some(object)).await.0, 200);
    assert_eq!(server.send("GET", &format!("{nodes}/n"), None).await.1["usage"]["cpu"], "250m");

    discovery(&server).await;
    top(&server).await;
    upgrade(&server).await;
    assert_eq!(server.send("DELETE", &format!("{nodes}/n"), None).await.0, 200);
    assert_eq!(server.send("GET", &format!("{nodes}/n"), None).await.0, 404);

    // Status can be patched like anything's.
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}});
    assert_eq!(server.send("PATCH", &own, Some(patch)).await.0, 200);
    let (status, object) = server.send("GET", &format!("{own}/status"), None).await;
    assert_eq!((status.as_u16(), available(&object)[1]), (200, "Passed"));

    // A certificate of somebody else is not believed.
    let mut wrong = registration(&extension, &extension.ca_pem);
    wrong["spec"]["caBundle"] = Value::Null;
    let (status, answer) = server.send("PATCH", &own, Some(json!({"spec": wrong["spec"]}))).await;
    assert_eq!(status, 200, "{answer}");
    let object =
        eventually(&server, &own, |object| available(object) == ["False", "FailedDiscoveryCheck"]).await;
    let message = object["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("failing or missing response from https://metrics.kube-system.svc:"),
        "{message}"
    );
    let patch = json!({"spec": {"insecureSkipTLSVerify": true}});
    assert_eq!(server.send("PATCH", &own, Some(patch)).await.0, 200);
    eventually(&server, &own, |object| available(object) == ["True", "Passed"]).await;

    // It goes away: what it told stays, marked as old.
    drop(extension);
    let touch = json!({"metadata": {"annotations": {"touched": "yes"}}});
    assert_eq!(server.send("PATCH", &format!("{path}/metrics"), Some(touch)).await.0, 200);
    eventually(&server, &own, |object| available(object) == ["False", "FailedDiscoveryCheck"]).await;
    let version = aggregated(&server).await;
    assert_eq!(version["freshness"], "Stale");
    assert_eq!(version["resources"][0]["resource"], "nodes");

    // Nobody serves it any more.
    assert_eq!(server.send("DELETE", &own, None).await.0, 200);
    let gone = |groups: &Value| !groups.to_string().contains("metrics.k8s.io");
    eventually(&server, "/apis", gone).await;
    assert_eq!(server.send("GET", &nodes, None).await.0, 404);
}

/// The version's entry in aggregated discovery.
async fn aggregated(server: &Server) -> Value {
    let request = Request::get("/apis")
        .header("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        .body("".into())
        .expect("a request");
    let (_, text) = server.text(request).await;
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let groups = list["items"].as_array().expect("groups");
    assert_eq!(groups[0]["metadata"]["name"], "apiregistration.k8s.io");
    let last = groups.last().expect("a group");
    assert_eq!(last["metadata"]["name"], "metrics.k8s.io");
    last["versions"][0].clone()
}

async fn discovery(server: &Server) {
    let version = aggregated(server).await;
    assert_eq!(version["freshness"], "Current");
    assert_eq!(version["resources"][1]["scope"], "Namespaced");
    let (_, group) = server.send("GET", "/apis/metrics.k8s.io", None).await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1");
    assert_eq!(group["kind"], "APIGroup");
    let (_, list) = server.send("GET", PATH, None).await;
    assert_eq!(list["resources"][0]["kind"], "NodeMetrics");
    let (_, index) = server.send("GET", "/openapi/v3", None).await;
    let url =
        index["paths"]["apis/metrics.k8s.io/v1beta1"]["serverRelativeURL"].as_str().expect("a document");
    let (status, document) = server.send("GET", url, None).await;
    assert_eq!((status.as_u16(), &document["asked"]), (200, &json!("hash=1")));
    let (_, v2) = server.send("GET", "/openapi/v2", None).await;
    assert!(v2["paths"].get("/apis/metrics.k8s.io/v1beta1/nodes").is_some());
    assert!(v2["paths"].get("/api/v1/namespaces/{namespace}/pods").is_some());
    assert!(v2["definitions"].get("NodeMetrics").is_some());
}

/// `kubectl top` finds the group by discovery.
async fn top(server: &Server) {
    let Some(kubectl) = kubectl() else {
        eprintln!("SKIPPED: there is no kubectl");
        return;
    };
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "1", "memory": "128Mi"}}});
    assert_eq!(server.send("POST", "/api/v1/nodes", Some(node)).await.0, 201);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(server.api.clone().serve_plain(listener, server.cancel.clone()));
    let home = tempfile::tempdir().expect("a folder");
    let output = tokio::process::Command::new(kubectl)
        .env_clear()
        .env("HOME", home.path())
        .args(["--server", &url, "top", "nodes"])
        .output()
        .await
        .expect("kubectl runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("250m") && text.contains("25%") && text.contains("64Mi"), "{text}");
    serving.abort();
}

/// An upgraded connection leads through.
async fn upgrade(server: &Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(server.api.clone().serve_plain(listener, server.cancel.clone()));
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head =
        format!("GET {PATH}/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(text.ends_with("hello system:unsecured"), "{text}");
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_here_is_registered() {
    let mut server = Server::start().await;
    let extension = Extension::start(server.router.clone(), ([127, 0, 0, 1], 0).into()).await;
    aggregating(&mut server, &extension);
    let own = format!("{SERVICES}/v1.apps");
    let object = eventually(&server, &own, |object| available(object) == ["True", "Local"]).await;
    assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(object["spec"]["groupPriorityMinimum"], 17800);
    assert_eq!(object["status"]["conditions"][0]["message"], "Local APIServices are always available");
    assert_eq!(
        server.send("GET", &format!("{SERVICES}/v1."), None).await.1["spec"]["groupPriorityMinimum"],
        18000
    );

    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, answer) = server.send("POST", definitions, Some(definition)).await;
    assert_eq!(status, 201, "{answer}");
    let custom = format!("{SERVICES}/v1.example.com");
    let object = eventually(&server, &custom, |object| available(object) == ["True", "Local"]).await;
    assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(object["spec"]["versionPriority"], 100);
    // Kept: it comes back with another uid.
    let uid = object["metadata"]["uid"].clone();
    assert_eq!(server.send("DELETE", &custom, None).await.0, 200);
    eventually(&server, &custom, |object| {
        object["metadata"]["uid"].is_string() && object["metadata"]["uid"] != uid
    })
    .await;
    let (status, answer) = server.send("DELETE", &format!("{definitions}/things.example.com"), None).await;
    assert_eq!(status, 200, "{answer}");
    eventually(&server, &custom, |object| object["code"] == 404).await;
}
