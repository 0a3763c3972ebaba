//! ValidatingAdmissionPolicy at work.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{DEPLOYMENTS, GROUP, MAPS, constraints, create, deployment, map, start};
use crate::support::Server;

async fn policy(server: &Server, name: &str, spec: Value, binding: Value) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    create(server, &format!("{GROUP}/validatingadmissionpolicies"), body).await;
    bind(server, name, name, binding).await;
}

async fn bind(server: &Server, policy: &str, name: &str, mut spec: Value) {
    spec["policyName"] = json!(policy);
    if spec["validationActions"].is_null() {
        spec["validationActions"] = json!(["Deny"]);
    }
    let body = json!({"metadata": {"name": name}, "spec": spec});
    create(server, &format!("{GROUP}/validatingadmissionpolicybindings"), body).await;
    server.settled().await;
}

/// Holds AM-72.
#[tokio::test]
async fn a_bound_policy_refuses_what_does_not_hold() {
    let server = start().await;
    let spec = json!({
        "matchConstraints": constraints("apps", "deployments"),
        "validations": [
            {"expression": "object.spec.replicas > 1", "messageExpression": "'replicas must be greater than 1, got ' + string(object.spec.replicas)"},
            {"expression": "object.metadata.name != 'bad'", "message": "wrong name", "reason": "Forbidden"},
        ],
    });
    let body = json!({"metadata": {"name": "replicas"}, "spec": spec});
    create(&server, &format!("{GROUP}/validatingadmissionpolicies"), body).await;
    // Without a binding nothing happens.
    create(&server, DEPLOYMENTS, deployment("free", 1)).await;
    bind(&server, "replicas", "bound", json!({})).await;
    let (status, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("one", 1))).await;
    assert_eq!(status, 422, "{answer}");
    let said = "ValidatingAdmissionPolicy 'replicas' with binding 'bound' denied request: replicas must be greater than 1, got 1";
    assert_eq!(answer["message"], format!("deployments.apps \"one\" is forbidden: {said}"));
    assert_eq!(answer["reason"], "Invalid");
    assert_eq!(answer["details"]["causes"][0]["message"], said);
    let (status, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("bad", 2))).await;
    assert_eq!((status.as_u16(), &answer["reason"]), (403, &json!("Forbidden")), "{answer}");
    create(&server, DEPLOYMENTS, deployment("two", 2)).await;
    let (status, _) =
        server.send("PATCH", &format!("{DEPLOYMENTS}/two"), Some(json!({"spec": {"replicas": 0}}))).await;
    assert_eq!(status, 422);
    // Without its binding the policy is as if it were not there.
    let path = format!("{GROUP}/validatingadmissionpolicybindings/bound");
    assert_eq!(server.send("DELETE", &path, None).await.0, 200);
    server.settled().await;
    create(&server, DEPLOYMENTS, deployment("one", 1)).await;
}

/// Holds AM-69.
#[tokio::test]
async fn variables_build_on_each_other() {
    let server = start().await;
    let spec = json!({
        "matchConstraints": constraints("apps", "deployments"),
        "variables": [
            {"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
            {"name": "broken", "expression": "object.nope"},
        ],
        "validations": [
            {"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas"},
            {"expression": "object.metadata.name != 'breaks' || variables.broken == 1"},
        ],
    });
    policy(&server, "odd", spec, json!({})).await;
    create(&server, DEPLOYMENTS, deployment("three", 3)).await;
    let (status, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("four", 4))).await;
    assert_eq!(status, 422);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .ends_with("denied request: failed expression: variables.oddReplicas"),
        "{answer}"
    );
    let (_, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("breaks", 3))).await;
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains(
            "resulted in error: composited variable \"broken\" fails to evaluate: no such key: nope"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn parameters_come_from_the_binding() {
    let server = start().await;
    create(&server, MAPS, map("limit", &json!({"max": "3"}))).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": constraints("apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)",
            "messageExpression": "'at most ' + params.data.max"}],
    });
    let by_name = json!({"paramRef": {"name": "limit", "parameterNotFoundAction": "Deny"}});
    policy(&server, "limit", spec, by_name).await;
    create(&server, DEPLOYMENTS, deployment("three", 3)).await;
    let (status, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("four", 4))).await;
    assert_eq!(status, 422);
    assert!(answer["message"].as_str().unwrap().ends_with("at most 3"), "{answer}");
    assert_eq!(server.send("DELETE", &format!("{MAPS}/limit"), None).await.0, 200);
    server.settled().await;
    let (_, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("one", 1))).await;
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{message}"
    );
}

#[tokio::test]
async fn match_conditions_selectors_and_the_authorizer_narrow_a_policy() {
    let server = start().await;
    let mut limits = constraints("", "configmaps");
    limits["namespaceSelector"] = json!({"matchLabels": {"env": "test"}});
    let spec = json!({
        "matchConstraints": limits,
        "matchConditions": [
            {"name": "not-skipped", "expression": "object.metadata.name != 'skip-me'"},
            {"name": "not-system", "expression": "!request.userInfo.username.startsWith('system:')"},
        ],
        "validations": [
            {"expression": "authorizer.group('').resource('secrets').namespace(request.namespace).check('get').allowed()"},
            {"expression": "namespaceObject.metadata.labels['env'] == 'test'"},
            {"expression": "oldObject == null && request.operation == 'CREATE'", "message": "never changed"},
        ],
    });
    policy(&server, "narrow", spec, json!({})).await;
    create(&server, MAPS, map("skip-me", &json!({}))).await;
    create(&server, MAPS, map("a", &json!({}))).await;
    let change = Some(json!({"data": {"x": "y"}}));
    let (status, answer) = server.send("PATCH", &format!("{MAPS}/a"), change.clone()).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["message"].as_str().unwrap().ends_with("never changed"), "{answer}");
    let (status, _) = server.send("PATCH", &format!("{MAPS}/skip-me"), change).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn warn_lets_pass_and_says_why() {
    let server = start().await;
    let spec = json!({
        "matchConstraints": constraints("", "configmaps"),
        "validations": [{"expression": "has(object.data)", "message": "no data"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'name: ' + object.metadata.name"}],
    });
    policy(&server, "data", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let request = Request::post(MAPS)
        .header("content-type", "application/json")
        .body(Body::from(json!({"metadata": {"name": "a"}}).to_string()))
        .unwrap();
    let response = server.raw(request).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap().to_owned();
    assert_eq!(
        warning,
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'data' with binding 'data': no data\""
    );
    response.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn an_error_goes_by_the_failure_policy() {
    let server = start().await;
    for (name, policy_word, want) in [("closed", "Fail", 422), ("open", "Ignore", 201)] {
        let spec = json!({
            "failurePolicy": policy_word,
            "matchConstraints": constraints("", "configmaps"),
            "matchConditions": [{"name": "one", "expression": format!("object.metadata.name == '{name}'")}],
            "validations": [{"expression": "object.data.missing == 'x'"}],
        });
        policy(&server, name, spec, json!({})).await;
        let (status, answer) = server.send("POST", MAPS, Some(map(name, &json!({"a": "b"})))).await;
        assert_eq!(status, want, "{answer}");
        if want == 422 {
            let message = answer["message"].as_str().unwrap();
            assert!(
                message.ends_with(
                    "expression 'object.data.missing == 'x'' resulted in error: no such key: missing"
                ),
                "{message}"
            );
        }
    }
}
