//! The client against a small fake server, in process and over a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{Response, StatusCode};
use axum::routing::get;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_client::{Client, ClientConfig, Informer, ListParams};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn map(name: &str, uid: &str, revision: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": "ns", "uid": uid, "resourceVersion": revision.to_string(),
    }})
}

fn answer(code: u16, body: impl Into<Body>) -> Response<Body> {
    let code = StatusCode::from_u16(code).expect("code");
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.into())
        .expect("response")
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

/// First list: `a` and `b`. Its watch changes `a`, then says 410. Second list: `a` made anew, no `b`.
async fn maps(State(lists): State<Arc<AtomicU32>>, RawQuery(query): RawQuery) -> Response<Body> {
    if query.unwrap_or_default().contains("watch=true") {
        if lists.load(Ordering::SeqCst) == 1 {
            let changed = json!({"type": "MODIFIED", "object": map("a", "1", 11)});
            let mark = json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "15"}}});
            let gone = json!({"type": "ERROR", "object": status(410, "Expired")});
            return answer(200, format!("{changed}\n{mark}\n{gone}\n"));
        }
        let silent = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        return answer(200, Body::from_stream(silent));
    }
    let items = match lists.fetch_add(1, Ordering::SeqCst) {
        0 => vec![map("a", "1", 5), map("b", "2", 6)],
        _ => vec![map("a", "9", 18)],
    };
    let revision = if items.len() == 2 { "10" } else { "20" };
    let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items});
    answer(200, list.to_string())
}

async fn busy_once(State(calls): State<Arc<AtomicU32>>) -> Response<Body> {
    if calls.fetch_add(1, Ordering::SeqCst) == 0 {
        let mut response = answer(429, status(429, "TooManyRequests").to_string());
        response.headers_mut().insert("retry-after", "0".parse().expect("header"));
        return response;
    }
    answer(200, map("x", "3", 1).to_string())
}

fn server() -> Router {
    let maps_at = "/api/v1/namespaces/ns/configmaps";
    let missing = || async { answer(404, status(404, "NotFound").to_string()) };
    // Each part counts for itself.
    let lists = Router::new().route(maps_at, get(maps)).with_state(Arc::<AtomicU32>::default());
    let one = Router::new()
        .route("/api/v1/namespaces/ns/configmaps/x", get(busy_once))
        .route("/api/v1/namespaces/ns/configmaps/none", get(missing))
        .with_state(Arc::<AtomicU32>::default());
    lists.merge(one)
}

async fn exercise(client: Client) {
    let api = client.namespaced::<ConfigMap>("ns");
    assert!(api.get("none").await.expect_err("missing").is_not_found());
    assert_eq!(api.get_opt("none").await.expect("missing is fine"), None);
    assert_eq!(api.get("x").await.expect("after a retry").metadata.uid.as_deref(), Some("3"));

    let (sender, mut changes) = tokio::sync::mpsc::channel::<String>(16);
    let tracker = TaskTracker::new();
    let cancel = CancellationToken::new();
    let uid = |o: Option<&Arc<ConfigMap>>| o.and_then(|o| o.metadata.uid.clone()).unwrap_or("-".into());
    let store = Informer::new(api, ListParams::default())
        .on_change(move |old, new| sender.try_send(format!("{}>{}", uid(old), uid(new))).expect("room"))
        .spawn(&tracker, cancel.clone());
    store.synced().await;
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let next = tokio::time::timeout(Duration::from_secs(10), changes.recv()).await;
        seen.push(next.expect("in time").expect("open"));
    }
    // The list, the change, then after 410: `b` is gone, `a` is another object.
    assert_eq!(seen, ["->1", "->2", "1>1", "2>-", "1>-", "->9"]);
    assert_eq!((store.len(), store.get("ns", "b")), (1, None));
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test]
async fn in_process() {
    exercise(Client::in_process(server(), UserInfo::new("system:test", ["system:masters"]))).await;
}

#[tokio::test]
async fn over_a_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let serving = tokio::spawn(async move { axum::serve(listener, server()).await });
    exercise(Client::new(ClientConfig::new(format!("http://{address}"))).expect("client")).await;
    serving.abort();
}
