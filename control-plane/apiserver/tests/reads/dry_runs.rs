//! `dryRun=All` on every verb and subresource: the answer is that of the real thing, the store and all watchers
//! know nothing of it.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{MAPS, get, name};
use crate::support::Server;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const APPLY: &str = "application/apply-patch+yaml";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]}})
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 1,
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "dry"}})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": "10.96.7.7", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30777}]}})
}

/// A cluster's server with one object of each kind that is tried.
async fn filled() -> Server {
    let server = Server::start_admitting().await;
    let cluster = server.cluster();
    skep_apiserver::bootstrap::bootstrap(server.api.registry(), &cluster).await.expect("bootstrapped");
    let make = async |path: &str, body: Value| {
        let (status, answer) = server.send("POST", path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {answer}");
    };
    make("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    make("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await;
    for name in ["a", "b"] {
        make(MAPS, map(name)).await;
    }
    let mut kept = map("kept");
    kept["metadata"]["finalizers"] = json!(["example.com/keep"]);
    make(MAPS, kept).await;
    make(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "20", "configmaps": "40", "services": "20"}}})).await;
    for name in ["p", "running"] {
        make(PODS, pod(name)).await;
    }
    let (status, _) = server
        .send(
            "POST",
            &format!("{PODS}/running/binding"),
            Some(json!({"target": {"kind": "Node", "name": "n"}})),
        )
        .await;
    assert_eq!(status, 201);
    make(DEPLOYMENTS, deployment("d")).await;
    make(CSRS, json!({"metadata": {"name": "csr"}, "spec": {"signerName": "example.com/signer", "request": certificate_request(), "usages": ["digital signature"]}})).await;
    server.settled().await;
    server
}

/// A request for a certificate, in base64.
fn certificate_request() -> String {
    use base64::Engine as _;
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("parameters");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    base64::engine::general_purpose::STANDARD.encode(pem)
}

/// What is sent, and what must be found in the answer.
struct Try {
    method: &'static str,
    path: String,
    content_type: &'static str,
    body: Value,
    status: u16,
    pointer: &'static str,
    wanted: Value,
}

fn tried(
    method: &'static str,
    path: impl Into<String>,
    body: Value,
    status: u16,
    pointer: &'static str,
    wanted: Value,
) -> Try {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    Try { method, path: path.into(), content_type, body, status, pointer, wanted }
}

#[expect(clippy::too_many_lines, reason = "a table")]
async fn tries(server: &Server) -> Vec<Try> {
    let object = async |path: &str, change: fn(&mut Value)| {
        let mut object = get(server, path).await.body;
        change(&mut object);
        object
    };
    let as_type = |content_type, one: Try| Try { content_type, ..one };
    let one = format!("{MAPS}/a");
    let scale = format!("{DEPLOYMENTS}/d/scale");
    vec![
        tried("POST", MAPS, map("new"), 201, "/metadata/name", json!("new")),
        tried("POST", SERVICES, service("s"), 201, "/spec/ports/0/nodePort", json!(30777)),
        tried("POST", PODS, pod("new"), 201, "/spec/serviceAccountName", json!("default")),
        tried(
            "POST",
            "/api/v1/namespaces",
            json!({"metadata": {"name": "new"}}),
            201,
            "/status/phase",
            json!("Active"),
        ),
        tried(
            "PUT",
            &one,
            object(&one, |map| map["data"]["k"] = json!("dry")).await,
            200,
            "/data/k",
            json!("dry"),
        ),
        tried("PATCH", &one, json!({"data": {"more": "dry"}}), 200, "/data/more", json!("dry")),
        as_type(
            "application/strategic-merge-patch+json",
            tried("PATCH", &one, json!({"data": {"more": "dry"}}), 200, "/data/more", json!("dry")),
        ),
        as_type(
            "application/json-patch+json",
            tried(
                "PATCH",
                &one,
                json!([{"op": "add", "path": "/data/more", "value": "dry"}]),
                200,
                "/data/more",
                json!("dry"),
            ),
        ),
        as_type(
            APPLY,
            tried(
                "PATCH",
                format!("{one}?force=true&fieldManager=m"),
                map("a"),
                200,
                "/data/k",
                json!("dry"),
            ),
        ),
        as_type(
            APPLY,
            tried(
                "PATCH",
                format!("{MAPS}/applied?fieldManager=m"),
                map("applied"),
                201,
                "/metadata/name",
                json!("applied"),
            ),
        ),
        tried("DELETE", &one, Value::Null, 200, "/status", json!("Success")),
        tried(
            "DELETE",
            &one,
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"], "propagationPolicy": "Foreground"}),
            200,
            "/metadata/finalizers/0",
            json!("foregroundDeletion"),
        ),
        tried(
            "DELETE",
            format!("{MAPS}/kept"),
            Value::Null,
            200,
            "/metadata/finalizers/0",
            json!("example.com/keep"),
        ),
        tried("DELETE", MAPS, Value::Null, 200, "/items/0/metadata/name", json!("a")),
        tried("DELETE", format!("{MAPS}?labelSelector=none"), Value::Null, 200, "/items", json!([])),
        tried(
            "DELETE",
            format!("{PODS}/running"),
            Value::Null,
            200,
            "/metadata/deletionGracePeriodSeconds",
            json!(30),
        ),
        tried(
            "DELETE",
            format!("{PODS}/running?gracePeriodSeconds=0"),
            Value::Null,
            200,
            "/metadata/name",
            json!("running"),
        ),
        tried("DELETE", "/api/v1/namespaces/other", Value::Null, 200, "/status/phase", json!("Terminating")),
        // Subresources.
        tried(
            "PUT",
            format!("{DEPLOYMENTS}/d/status"),
            object(&format!("{DEPLOYMENTS}/d"), |d| d["status"]["replicas"] = json!(7)).await,
            200,
            "/status/replicas",
            json!(7),
        ),
        tried(
            "PATCH",
            format!("{DEPLOYMENTS}/d/status"),
            json!({"status": {"replicas": 8}}),
            200,
            "/status/replicas",
            json!(8),
        ),
        tried(
            "PUT",
            &scale,
            object(&scale, |scale| scale["spec"]["replicas"] = json!(5)).await,
            200,
            "/spec/replicas",
            json!(5),
        ),
        tried("PATCH", &scale, json!({"spec": {"replicas": 6}}), 200, "/spec/replicas", json!(6)),
        tried(
            "POST",
            format!("{PODS}/p/binding"),
            json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
            201,
            "/status",
            json!("Success"),
        ),
        tried(
            "POST",
            "/api/v1/namespaces/default/bindings",
            json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
            201,
            "/status",
            json!("Success"),
        ),
        tried(
            "POST",
            format!("{PODS}/running/eviction"),
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "running"}}),
            201,
            "/status",
            json!("Success"),
        ),
        tried(
            "PATCH",
            format!("{PODS}/running/ephemeralcontainers"),
            json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}),
            200,
            "/spec/ephemeralContainers/0/name",
            json!("e"),
        ),
        as_type(
            "application/strategic-merge-patch+json",
            tried(
                "PATCH",
                format!("{PODS}/running/resize"),
                json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "200m"}}}]}}),
                200,
                "/spec/containers/0/resources/requests/cpu",
                json!("200m"),
            ),
        ),
        tried(
            "PUT",
            format!("{CSRS}/csr/approval"),
            object(&format!("{CSRS}/csr"), |csr| {
                csr["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "r"}]);
            })
            .await,
            200,
            "/status/conditions/0/type",
            json!("Approved"),
        ),
        tried(
            "PUT",
            "/api/v1/namespaces/other/finalize",
            object("/api/v1/namespaces/other", |ns| ns["spec"]["finalizers"] = json!([])).await,
            200,
            "/metadata/name",
            json!("other"),
        ),
    ]
}

/// Everything that is told of now.
async fn watch(server: &Server, path: &str) -> Body {
    let list = get(server, path).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{path}?watch=1&resourceVersion={version}&timeoutSeconds=600");
    let answer = server.raw(Request::get(path).body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_tried_is_neither_stored_nor_told() {
    let server = filled().await;
    let tries = tries(&server).await;
    let collections = [
        "/api/v1/configmaps",
        "/api/v1/pods",
        "/api/v1/services",
        "/api/v1/namespaces",
        "/apis/apps/v1/deployments",
        CSRS,
        "/api/v1/resourcequotas",
    ];
    let mut watches = Vec::new();
    for path in collections {
        watches.push(watch(&server, path).await);
    }
    let before = server.storage.current_revision().await.expect("a revision");
    for one in tries {
        let with = if one.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{with}dryRun=All", one.path);
        let body = if one.body.is_null() { String::new() } else { one.body.to_string() };
        let (status, answer) = server.send_as(one.method, &path, one.content_type, body).await;
        assert_eq!(status, one.status, "{} {path}: {answer}", one.method);
        assert_eq!(answer.pointer(one.pointer), Some(&one.wanted), "{} {path}: {answer}", one.method);
        let now = server.storage.current_revision().await.expect("a revision");
        assert_eq!(now, before, "{} {path} has written", one.method);
    }
    // The first thing that any watcher hears of is what is really done.
    let (status, last) =
        server.send("PATCH", &format!("{MAPS}/a"), Some(json!({"data": {"real": "1"}}))).await;
    assert_eq!(status, 200);
    let frame = watches[0].frame().await.expect("a frame").expect("no error").into_data().expect("data");
    let frame: Value = serde_json::from_slice(&frame).expect("one frame");
    assert_eq!(
        (name(&frame["object"]), &frame["object"]["metadata"]["resourceVersion"]),
        ("a", &last["metadata"]["resourceVersion"])
    );
    assert_eq!(frame["object"]["data"], json!({"k": "dry", "real": "1"}));
    for mut watch in watches.drain(1..) {
        let more = tokio::time::timeout(std::time::Duration::from_millis(20), watch.frame()).await;
        assert!(more.is_err(), "{more:?}");
    }
    // What was tried is still free.
    let (status, made) = server.send("POST", SERVICES, Some(service("s"))).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_refused_where_the_real_thing_would_be() {
    let server = filled().await;
    let before = server.storage.current_revision().await.expect("a revision");
    let invalid = json!({"metadata": {"name": "Not A Name"}});
    let cases = [
        ("POST", MAPS.to_owned(), map("a"), 409),
        ("POST", MAPS.to_owned(), invalid, 422),
        ("PUT", format!("{MAPS}/none"), map("none"), 404),
        ("PATCH", format!("{MAPS}/a"), json!({"metadata": {"resourceVersion": "1"}}), 409),
        ("DELETE", format!("{MAPS}/none"), Value::Null, 404),
        ("DELETE", format!("{MAPS}/a"), json!({"preconditions": {"uid": "another"}}), 409),
        ("PATCH", format!("{DEPLOYMENTS}/d/scale"), json!({"spec": {"replicas": -1}}), 422),
        ("POST", format!("{PODS}/running/binding"), json!({"target": {"kind": "Node", "name": "m"}}), 409),
        ("POST", "/api/v1/namespaces/none/configmaps".to_owned(), map("a"), 404),
    ];
    for (method, path, body, wanted) in cases {
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = server.send(method, &format!("{path}?dryRun=All"), body).await;
        assert_eq!(status, wanted, "{method} {path}: {answer}");
    }
    // Only `All` is known, on every verb, and each names its options.
    for (method, path, kind) in [
        ("POST", MAPS.to_owned(), "CreateOptions"),
        ("PUT", format!("{MAPS}/a"), "UpdateOptions"),
        ("PATCH", format!("{MAPS}/a"), "PatchOptions"),
        ("DELETE", format!("{MAPS}/a"), "DeleteOptions"),
        ("DELETE", MAPS.to_owned(), "DeleteOptions"),
    ] {
        let body = (method != "DELETE").then(|| map("a"));
        let (status, answer) = server.send(method, &format!("{path}?dryRun=Some"), body).await;
        assert_eq!(status, 422, "{method} {path}: {answer}");
        let wanted = format!(
            "{kind}.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
        );
        assert_eq!(answer["message"], wanted, "{method} {path}");
    }
    let body = json!({"dryRun": ["All", "None"]});
    assert_eq!(server.send("DELETE", &format!("{MAPS}/a"), Some(body)).await.0, 422);
    // An apply says who applies.
    let (status, answer) = server.send_as("PATCH", &format!("{MAPS}/a"), APPLY, map("a").to_string()).await;
    assert_eq!(status, 422);
    assert_eq!(
        answer["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let (status, answer) = server.send("PATCH", &format!("{MAPS}/a?force=true"), Some(json!({}))).await;
    assert_eq!(status, 422);
    assert_eq!(
        answer["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    assert_eq!(server.storage.current_revision().await.expect("a revision"), before);
}

/// A definition that is only tried serves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_only_tried() {
    let server = Server::start().await;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";
    let before = server.storage.current_revision().await.expect("a revision");
    let (status, answer) = server.send("POST", path, Some(definition)).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(server.storage.current_revision().await.expect("a revision"), before);
    assert_eq!(
        get(&server, "/apis").await.body["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .filter(|group| group["name"] == "example.com")
            .count(),
        0
    );
}
