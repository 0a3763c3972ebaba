//! The audit log of requests, by policy.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};
use skep_apiserver::audit::{Auditor, Events};
use skep_auth::audit::Policy;

use super::Secure;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  nonResourceURLs: ['/version']
- level: Metadata
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  omitStages: [RequestReceived]
  resources: [{group: '', resources: [configmaps]}]
- level: Metadata
  verbs: [watch]
- level: Request
  omitStages: [RequestReceived]
";

async fn start() -> (Secure, Events) {
    let mut auditor = Auditor::new(Policy::parse(POLICY).expect("a policy"));
    let events = auditor.sink("test");
    let server = Secure::start_with(|config| config.audit = Some(Arc::new(auditor))).await;
    (server, events)
}

fn next(events: &mut Events) -> Value {
    Value::clone(&events.try_recv().expect("an event"))
}

#[tokio::test]
async fn events_hold_what_their_level_wants() {
    let (server, mut events) = start().await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hidden"}});
    let path = "/api/v1/namespaces/default/secrets";
    let headers =
        [("audit-id", "my-id"), ("user-agent", "test/1"), ("x-forwarded-for", "192.0.2.7, nonsense")];
    let (status, answered, _) = server.raw("admin", "POST", path, &headers, Some(secret)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(answered["audit-id"], "my-id");
    let received = next(&mut events);
    assert_eq!(received["stage"], "RequestReceived");
    let done = next(&mut events);
    assert_eq!((&done["kind"], &done["stage"]), (&json!("Event"), &json!("ResponseComplete")));
    assert_eq!(done["auditID"], "my-id");
    assert_eq!((&done["verb"], &done["level"]), (&json!("create"), &json!("Metadata")));
    assert_eq!(done["user"]["username"], "admin");
    assert_eq!(done["sourceIPs"], json!(["192.0.2.7"]));
    assert_eq!(done["userAgent"], "test/1");
    assert_eq!(done["objectRef"], json!({"resource": "secrets", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!(done["responseStatus"]["code"], 201);
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(!done.to_string().contains("hidden") && done["requestObject"].is_null());

    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}});
    server.create("/api/v1/namespaces/default/configmaps", map).await;
    let done = next(&mut events);
    assert_eq!(done["stage"], "ResponseComplete", "the other stage is omitted");
    assert_eq!(done["requestObject"]["data"]["a"], "b");
    assert_eq!(done["responseObject"]["metadata"]["name"], "m");
    assert!(done["responseObject"]["metadata"]["managedFields"].is_null());

    let (status, _) = server.send("admin", "GET", "/version", None).await;
    assert_eq!((status, events.try_recv().is_err()), (StatusCode::OK, true), "nothing of it");
}

#[tokio::test]
async fn refusals_strangers_and_borrowed_names_are_written_down() {
    let (server, mut events) = start().await;
    let (status, _) = server.send("jane", "GET", "/api/v1/namespaces/default/pods", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let done = next(&mut events);
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&done["responseStatus"]["code"], &done["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    let (status, _) = server.send("wrong", "GET", "/api/v1/pods", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let done = next(&mut events);
    assert_eq!(done["responseStatus"]["code"], 401);
    let headers = [("impersonate-user", "jane")];
    server.raw("admin", "GET", "/api/v1/nodes", &headers, None).await;
    let done = next(&mut events);
    assert_eq!(done["user"]["username"], "admin");
    assert_eq!(done["impersonatedUser"]["username"], "jane");
}

#[tokio::test]
async fn a_watch_is_told_when_it_begins_and_when_it_ends() {
    let (server, mut events) = start().await;
    let path = "/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1";
    let (status, _) = server.send("admin", "GET", path, None).await;
    assert_eq!(status, StatusCode::OK);
    let stages: Vec<Value> =
        std::iter::from_fn(|| events.try_recv().ok()).map(|event| event["stage"].clone()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}
