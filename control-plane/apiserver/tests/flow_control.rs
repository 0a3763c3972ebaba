//! Priority and fairness, as clients see it.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;
use tower::ServiceExt;

use crate::support::Server;

const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn start() -> Server {
    let server = Server::start_with(|config| (config.max_reads, config.max_writes) = (10, 0)).await;
    server.api.ensure_flow_control().await.expect("made");
    tokio::spawn(server.api.clone().keep_flow_control(server.cancel.clone()));
    server
}

/// A schema of the user `jane`.
fn schema(level: &str) -> Value {
    json!({
        "metadata": {"name": "jane"},
        "spec": {
            "matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "jane"}}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                    "clusterScope": true,
                }],
            }],
        },
    })
}

fn level(name: &str, response: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response,
        }},
    })
}

/// A request by a user.
async fn ask(server: &Server, user: &str, method: &str, path: &str, body: Body) -> (StatusCode, HeaderMap) {
    let mut request = Request::builder().method(method).uri(path).body(body).expect("a request");
    let groups: &[&str] = if user == "admin" { &["system:masters"] } else { &[] };
    request.extensions_mut().insert(UserInfo::new(user, groups.iter().copied()));
    let answer = server.router.clone().oneshot(request).await.expect("infallible");
    (answer.status(), answer.headers().clone())
}

async fn dangling(server: &Server, name: &str) -> String {
    let (_, schema) = server.send("GET", &format!("{API}/flowschemas/{name}"), None).await;
    let conditions = schema.items(&["status", "conditions"]);
    conditions.iter().find(|c| c["type"] == "Dangling").map_or("", |c| c.text(&["reason"])).to_owned()
}

/// Waits until the condition of a schema has this reason.
async fn told(server: &Server, name: &str, reason: &str) {
    for _ in 0..500 {
        if dangling(server, name).await == reason {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is {:?}, not {reason:?}", dangling(server, name).await);
}

/// A body that never ends, and the sender that ends it.
fn endless() -> (Body, tokio::sync::oneshot::Sender<()>) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let frames = stream::once(async move {
        // Ends by the sender's end.
        let _ = receiver.await;
        Ok::<_, std::io::Error>(Bytes::from_static(b"{\"metadata\":{\"name\":\"held\"}}"))
    });
    (Body::from_stream(frames), sender)
}

/// Holds AM-01, AM-02.
#[tokio::test(flavor = "multi_thread")]
async fn every_cluster_begins_with_levels_and_schemas() {
    let server = start().await;
    for (plural, count) in [("flowschemas", 11), ("prioritylevelconfigurations", 8)] {
        let (status, list) = server.send("GET", &format!("{API}/{plural}"), None).await;
        assert_eq!((status, list.items(&["items"]).len()), (StatusCode::OK, count));
        for object in list.items(&["items"]) {
            assert_eq!(object.annotation("apf.kubernetes.io/autoupdate-spec"), Some("true"), "{object}");
        }
    }
    told(&server, "catch-all", "Found").await;

    // Mandatory objects can't be changed, and come back when they are deleted.
    let path = format!("{API}/prioritylevelconfigurations/catch-all");
    let change = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    let (status, answer) = server.send("PATCH", &path, Some(change)).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(server.send("DELETE", &path, None).await.0, 200);
    server.api.ensure_flow_control().await.expect("made again");
    assert_eq!(server.send("GET", &path, None).await.0, 200);

    // A suggested object is the server's until somebody says otherwise.
    let path = format!("{API}/prioritylevelconfigurations/system");
    let change = json!({"spec": {"limited": {"nominalConcurrencyShares": 77}}});
    assert_eq!(server.send("PATCH", &path, Some(change.clone())).await.0, 200);
    server.api.ensure_flow_control().await.expect("repaired");
    let shares = async || {
        server.send("GET", &path, None).await.1["spec"]["limited"]["nominalConcurrencyShares"].clone()
    };
    assert_eq!(shares().await, 30);
    let mut own = change;
    own["metadata"] = json!({"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}});
    assert_eq!(server.send("PATCH", &path, Some(own)).await.0, 200);
    server.api.ensure_flow_control().await.expect("left alone");
    assert_eq!(shares().await, 77);
}

/// Holds AM-01, AM-02.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_level_answers_429_and_the_others_go_on() {
    let server = start().await;
    let (status, made) = server.send("POST", &format!("{API}/flowschemas"), Some(schema("jane"))).await;
    assert_eq!(status, 201, "{made}");
    told(&server, "jane", "NotFound").await;
    let uid = made.uid();
    let pods = "/api/v1/namespaces/default/pods";
    let (status, headers) = ask(&server, "jane", "GET", pods, Body::empty()).await;
    assert_eq!(status, 200);
    assert_ne!(headers["x-kubernetes-pf-flowschema-uid"], uid, "its level does not exist");

    let reject = level("jane", &json!({"type": "Reject"}));
    let (status, answer) =
        server.send("POST", &format!("{API}/prioritylevelconfigurations"), Some(reject)).await;
    assert_eq!(status, 201, "{answer}");
    let level_uid = answer.uid();
    told(&server, "jane", "Found").await;
    let (_, headers) = ask(&server, "jane", "GET", pods, Body::empty()).await;
    assert_eq!(headers["x-kubernetes-pf-flowschema-uid"], uid);
    assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"], level_uid);

    // The only seat is taken by a request whose body does not come.
    let (body, end) = endless();
    let held = {
        let (router, user) = (server.router.clone(), UserInfo::new("jane", [""; 0]));
        let request = Request::post("/api/v1/namespaces/default/configmaps");
        let mut request = request.header("content-type", "application/json").body(body).expect("a request");
        request.extensions_mut().insert(user);
        tokio::spawn(async move { router.oneshot(request).await.expect("infallible").status() })
    };
    let mut refused = HeaderMap::new();
    for _ in 0..500 {
        let (status, headers) = ask(&server, "jane", "GET", pods, Body::empty()).await;
        if status == 429 {
            refused = headers;
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(refused["retry-after"], "1");
    assert_eq!(refused["x-kubernetes-pf-flowschema-uid"], uid);
    assert_eq!(ask(&server, "joe", "GET", pods, Body::empty()).await.0, 200, "another level");
    assert_eq!(ask(&server, "admin", "GET", pods, Body::empty()).await.0, 200, "exempt");
    // Streams that last need no seat: a log is refused for its own reasons.
    let log = format!("{pods}/p/log");
    assert_eq!(ask(&server, "jane", "GET", &log, Body::empty()).await.0, 404);

    let text =
        async |path: &str| server.text(Request::get(path).body(Body::empty()).expect("a request")).await.1;
    let levels = text("/debug/api_priority_and_fairness/dump_priority_levels").await;
    let line = levels.lines().find(|line| line.starts_with("jane,")).expect("a line");
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    assert_eq!(cells[2..6], ["false", "false", "0", "1"], "{levels}");
    let requests = text("/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await;
    let line = requests.lines().find(|line| line.starts_with("jane,")).expect("a line");
    assert!(line.contains("create") && line.contains("configmaps"), "{requests}");
    assert!(text("/debug/api_priority_and_fairness/dump_queues").await.contains("workload-low,"));
    let metrics = text("/metrics").await;
    for part in [
        "apiserver_flowcontrol_rejected_requests_total{priority_level=\"jane\",flow_schema=\"jane\",\
         reason=\"concurrency-limit\"}",
        "apiserver_flowcontrol_current_executing_requests{priority_level=\"jane\",flow_schema=\"jane\"} 1",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"jane\"} 1",
    ] {
        assert!(metrics.contains(part), "{part}\n{metrics}");
    }

    drop(end);
    assert_eq!(held.await.expect("answered"), 201);
    assert_eq!(ask(&server, "jane", "GET", pods, Body::empty()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_waited_in_for_a_quarter_of_the_time_limit() {
    let server = start().await;
    let queue = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}});
    let (status, answer) =
        server.send("POST", &format!("{API}/prioritylevelconfigurations"), Some(level("jane", &queue))).await;
    assert_eq!(status, 201, "{answer}");
    server.send("POST", &format!("{API}/flowschemas"), Some(schema("jane"))).await;
    told(&server, "jane", "Found").await;
    let (body, end) = endless();
    let request = Request::post("/api/v1/namespaces/default/configmaps");
    let mut request = request.header("content-type", "application/json").body(body).expect("a request");
    request.extensions_mut().insert(UserInfo::new("jane", [""; 0]));
    let held = tokio::spawn(server.router.clone().oneshot(request));
    tokio::time::sleep(Duration::from_millis(50)).await;

    let begun = std::time::Instant::now();
    let pods = "/api/v1/namespaces/default/pods";
    let (status, headers) = ask(&server, "jane", "GET", &format!("{pods}?timeout=1s"), Body::empty()).await;
    assert_eq!(status, 429);
    assert!(headers.contains_key("retry-after"));
    assert!((200..900).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());

    // One that waits gets the seat when it is free; what does not fit into the queue is refused at once.
    let waits = {
        let mut request = Request::get(pods).body(Body::empty()).expect("a request");
        request.extensions_mut().insert(UserInfo::new("jane", [""; 0]));
        tokio::spawn(server.router.clone().oneshot(request))
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (status, _) = ask(&server, "jane", "GET", pods, Body::empty()).await;
    assert_eq!(status, 429);
    drop(end);
    assert_eq!(waits.await.expect("answered").expect("infallible").status(), 200);
    assert_eq!(held.await.expect("answered").expect("infallible").status(), 201);
    let bad = ask(&server, "jane", "GET", &format!("{pods}?timeout=soon"), Body::empty()).await;
    assert_eq!(bad.0, 400);
}
