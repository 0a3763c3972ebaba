//! Policies, bindings and match conditions as objects: stored, listed, changed, refused.

use serde_json::{Value, json};

use super::{GROUP, causes, constraints, create, start};
use crate::support::Server;

/// Create, get, list, patch, update, delete and deletecollection of a kind.
async fn lifecycle(server: &Server, plural: &str, spec: Value, change: Value) {
    let path = format!("{GROUP}/{plural}");
    for name in ["a", "b"] {
        let body = json!({"metadata": {"name": name, "labels": {"set": "x"}}, "spec": spec});
        create(server, &path, body).await;
    }
    let (_, mut object) = server.send("GET", &format!("{path}/a"), None).await;
    assert_eq!(object["metadata"]["generation"], 1);
    let (status, list) = server.send("GET", &format!("{path}?labelSelector=set%3Dx"), None).await;
    assert_eq!((status.as_u16(), list["items"].as_array().map(Vec::len)), (200, Some(2)));
    let (status, patched) = server.send("PATCH", &format!("{path}/a"), Some(json!({"spec": change}))).await;
    assert_eq!((status.as_u16(), &patched["metadata"]["generation"]), (200, &json!(2)), "{patched}");
    object["metadata"] = patched["metadata"].clone();
    object["metadata"]["annotations"] = json!({"updated": "yes"});
    let (status, updated) = server.send("PUT", &format!("{path}/a"), Some(object)).await;
    assert_eq!(
        (status.as_u16(), &updated["metadata"]["annotations"]["updated"]),
        (200, &json!("yes")),
        "{updated}"
    );
    assert_eq!(server.send("DELETE", &format!("{path}/a"), None).await.0, 200);
    assert_eq!(server.send("DELETE", &format!("{path}?labelSelector=set%3Dx"), None).await.0, 200);
    server.settled().await;
    let (_, list) = server.send("GET", &path, None).await;
    assert_eq!(list["items"], json!([]));
}

/// Holds AM-67, AM-68, AM-70, AM-71.
#[tokio::test]
async fn policies_and_bindings_live_and_die() {
    let server = start().await;
    let policy = json!({"matchConstraints": constraints("apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas <= 100"}]});
    lifecycle(&server, "validatingadmissionpolicies", policy.clone(), json!({"failurePolicy": "Ignore"}))
        .await;
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    lifecycle(&server, "validatingadmissionpolicybindings", binding, json!({"validationActions": ["Warn"]}))
        .await;
    let mutating = json!({"matchConstraints": constraints("apps", "deployments"), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]});
    lifecycle(&server, "mutatingadmissionpolicies", mutating, json!({"failurePolicy": "Ignore"})).await;
    let binding = json!({"policyName": "p"});
    lifecycle(&server, "mutatingadmissionpolicybindings", binding, json!({"policyName": "q"})).await;
    let path = format!("{GROUP}/validatingadmissionpolicies");
    create(&server, &path, json!({"metadata": {"name": "s"}, "spec": policy})).await;
    let condition = json!([{"type": "T", "status": "True", "reason": "R", "message": "M",
        "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
    let body = json!({"status": {"conditions": condition}});
    let (status, answer) = server.send("PATCH", &format!("{path}/s/status"), Some(body)).await;
    assert_eq!((status.as_u16(), &answer["status"]["conditions"][0]["type"]), (200, &json!("T")), "{answer}");
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused() {
    let server = start().await;
    let body = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": constraints("apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas >"}, {"expression": "nope == 1"}],
    }});
    let (status, answer) =
        server.send("POST", &format!("{GROUP}/validatingadmissionpolicies"), Some(body)).await;
    assert_eq!(status, 422);
    let causes = causes(&answer);
    assert_eq!(causes.len(), 2, "{answer:#}");
    assert_eq!(causes[0].0, "spec.validations[0].expression");
    assert!(causes[0].1.contains("compilation failed: ERROR: <input>:1:23: Syntax error"), "{}", causes[0].1);
    assert!(
        causes[1].1.contains(
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')"
        ),
        "{}",
        causes[1].1
    );
}

async fn bad_condition(plural: &str) {
    let server = start().await;
    let webhook = json!({
        "name": "a.example.com", "clientConfig": {"url": "https://127.0.0.1:1/"}, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [],
        "matchConditions": [{"name": "a", "expression": "... [] bad expression"}],
    });
    let body = json!({"metadata": {"name": "w"}, "webhooks": [webhook]});
    let (status, answer) = server.send("POST", &format!("{GROUP}/{plural}"), Some(body)).await;
    assert_eq!(status, 422, "{answer}");
    let causes = causes(&answer);
    assert_eq!(causes[0].0, "webhooks[0].matchConditions[0].expression");
    assert!(causes[0].1.contains("compilation failed"), "{answer}");
}

/// Holds AM-22.
#[tokio::test]
async fn a_mutating_webhook_with_a_bad_match_condition_is_refused() {
    bad_condition("mutatingwebhookconfigurations").await;
}

/// Holds AM-23.
#[tokio::test]
async fn a_validating_webhook_with_a_bad_match_condition_is_refused() {
    bad_condition("validatingwebhookconfigurations").await;
}
