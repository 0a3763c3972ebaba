//! `matchPolicy: Equivalent`: webhooks and policies see requests to other versions and groups of the same
//! objects, in the version they ask for.

use serde_json::{Value, json};

use super::hook::Hook;
use super::{mutating, start, validating, webhook, with};
use crate::support::Server;

const AUTOSCALERS: &str = "namespaces/default/horizontalpodautoscalers";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// A rule for one version of one resource.
fn rule(group: &str, version: &str, resource: &str) -> Value {
    json!({"operations": ["*"], "apiGroups": [group], "apiVersions": [version], "resources": [resource]})
}

fn autoscaler(name: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {
            "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}],
        },
    })
}

async fn send(server: &Server, method: &str, path: &str, body: Value) -> Value {
    let (status, answer) = server.send(method, path, Some(body)).await;
    assert!(status.is_success(), "{method} {path}: {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_see_the_version_they_ask_for_and_their_patches_go_back() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let v1 = rule("autoscaling", "v1", "horizontalpodautoscalers");
    mutating(
        &server,
        "m",
        &[
            webhook(&hook, "/target-80", &v1),
            with(webhook(&hook, "/exact", &v1), "matchPolicy", json!("Exact")),
        ],
    )
    .await;
    validating(&server, "v", &[webhook(&hook, "/look", &v1)]).await;
    let made = send(&server, "POST", &format!("/apis/autoscaling/v2/{AUTOSCALERS}"), autoscaler("a")).await;
    let target = &made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"];
    assert_eq!((&made["apiVersion"], target), (&json!("autoscaling/v2"), &json!(80)), "{made}");
    assert!(hook.requests("/exact").is_empty());
    for (path, percent) in [("/target-80", 70), ("/look", 80)] {
        let [request] = hook.requests(path).try_into().expect("one request");
        let Value::Object(request) = request else { panic!("{request}") };
        assert_eq!(request["resource"]["version"], "v1");
        assert_eq!(
            (&request["kind"]["version"], &request["requestKind"]["version"]),
            (&json!("v1"), &json!("v2"))
        );
        assert_eq!(request["requestResource"]["version"], "v2");
        let object = &request["object"];
        assert_eq!(object["apiVersion"], "autoscaling/v1");
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], percent, "{path}: {object}");
    }
    // An update shows the old object in that version too; a subresource is matched as such.
    let mut next = made;
    next["spec"]["maxReplicas"] = json!(7);
    send(&server, "PUT", &format!("/apis/autoscaling/v2/{AUTOSCALERS}/a"), next.clone()).await;
    let request = hook.requests("/look").pop().expect("a request");
    assert_eq!(request["oldObject"]["apiVersion"], "autoscaling/v1");
    assert_eq!(request["oldObject"]["spec"]["maxReplicas"], 5);
    assert_eq!(request["object"]["spec"]["maxReplicas"], 7);
    let before = hook.requests("/look").len();
    let path = format!("/apis/autoscaling/v2/{AUTOSCALERS}/a/status");
    let status = json!({"status": {"currentReplicas": 1, "desiredReplicas": 1}});
    send(&server, "PATCH", &path, status).await;
    assert_eq!(hook.requests("/look").len(), before, "no rule names the status");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_both_groups_are_the_same_objects() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    validating(
        &server,
        "v",
        &[
            webhook(&hook, "/core", &rule("", "v1", "events")),
            webhook(&hook, "/new", &rule("events.k8s.io", "v1", "events")),
        ],
    )
    .await;
    let event = json!({
        "metadata": {"name": "e1"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "message": "hello", "reason": "Because", "type": "Normal",
    });
    send(&server, "POST", "/api/v1/namespaces/default/events", event).await;
    let request = hook.requests("/new").pop().expect("a request");
    assert_eq!(request["object"]["apiVersion"], "events.k8s.io/v1");
    assert_eq!(
        (&request["object"]["note"], &request["object"]["regarding"]["name"]),
        (&json!("hello"), &json!("p"))
    );
    assert_eq!(request["requestResource"]["group"], "");
    let event = json!({
        "metadata": {"name": "e2"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "hi",
        "reason": "Because", "type": "Normal", "action": "Act", "reportingController": "example.com/c",
        "reportingInstance": "c-1", "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    send(&server, "POST", "/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    let request = hook.requests("/core").pop().expect("a request");
    assert_eq!(
        (&request["object"]["apiVersion"], &request["object"]["message"]),
        (&json!("v1"), &json!("hi"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_custom_resource_are_equivalent() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    super::custom::define(&server, &[("v1", true), ("v2", false)], &["start", "stage-1"]).await;
    let v1 = rule("example.com", "v1", "things");
    mutating(&server, "m", &[webhook(&hook, "/stage-1", &v1)]).await;
    let thing = json!({"apiVersion": "example.com/v2", "kind": "Thing", "metadata": {"name": "t"}, "data": {"start": "yes"}});
    let path = "/apis/example.com/v2/namespaces/default/things";
    let made = send(&server, "POST", path, thing).await;
    assert_eq!(made["apiVersion"], "example.com/v2");
    assert_eq!(made["data"], json!({"start": "yes", "stage-1": "yes"}), "the patch of v1 is in v2");
    let request = hook.requests("/stage-1").pop().expect("a request");
    assert_eq!(
        (&request["object"]["apiVersion"], &request["requestKind"]["version"]),
        (&json!("example.com/v1"), &json!("v2"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_see_the_version_they_ask_for() {
    let server = start().await;
    let policy = |name: &str, match_policy: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {
                "matchPolicy": match_policy,
                "resourceRules": [rule("autoscaling", "v1", "horizontalpodautoscalers")],
            },
            "validations": [{
                "expression": "object.spec.targetCPUUtilizationPercentage <= 60",
                "messageExpression": "request.kind.version + ' asked as ' + request.requestKind.version",
            }],
        }})
    };
    let binding = |name: &str| json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    let path = format!("/apis/autoscaling/v2/{AUTOSCALERS}");
    for name in ["exact", "equivalent"] {
        let match_policy = if name == "exact" { "Exact" } else { "Equivalent" };
        send(&server, "POST", POLICIES, policy(name, match_policy)).await;
        send(&server, "POST", BINDINGS, binding(name)).await;
        server.settled().await;
        let (status, answer) = server.send("POST", &path, Some(autoscaler(name))).await;
        if name == "exact" {
            assert_eq!(status, 201, "{answer}");
        } else {
            assert_eq!(status, 422, "{answer}");
            let message = answer["message"].as_str().expect("words");
            assert!(message.ends_with("denied request: v1 asked as v2"), "{message}");
        }
    }
}
