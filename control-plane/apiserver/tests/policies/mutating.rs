//! MutatingAdmissionPolicy at work.

use serde_json::{Value, json};

use super::{DEPLOYMENTS, GROUP, MAPS, constraints, create, deployment, map, start};
use crate::support::Server;

async fn policy(server: &Server, name: &str, resource: (&str, &str), mutations: Value) {
    let spec = json!({
        "matchConstraints": constraints(resource.0, resource.1),
        "reinvocationPolicy": "IfNeeded",
        "mutations": mutations,
    });
    let body = json!({"metadata": {"name": name}, "spec": spec});
    create(server, &format!("{GROUP}/mutatingadmissionpolicies"), body).await;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    create(server, &format!("{GROUP}/mutatingadmissionpolicybindings"), binding).await;
    server.settled().await;
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// Holds AM-65.
#[tokio::test]
async fn a_json_patch_changes_a_deployment() {
    let server = start().await;
    let mutation = patch(
        "object.spec.replicas < 2 ? [JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.replicas * 2}] : []",
    );
    policy(&server, "double", ("apps", "deployments"), json!([mutation])).await;
    let made = create(&server, DEPLOYMENTS, deployment("d", 1)).await;
    assert_eq!(made["spec"]["replicas"], 2);
    let made = create(&server, DEPLOYMENTS, deployment("e", 3)).await;
    assert_eq!(made["spec"]["replicas"], 3);
}

/// Holds AM-66.
#[tokio::test]
async fn an_apply_configuration_adds_annotations() {
    let server = start().await;
    let annotations =
        "Object{metadata: Object.metadata{annotations: {'my-annotation': object.metadata.name}}}";
    let sidecar = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{
        initContainers: [Object.spec.template.spec.initContainers{name: 'proxy', image: 'p', restartPolicy: 'Always'}]}}}}";
    policy(&server, "annotate", ("apps", "deployments"), json!([apply(annotations), apply(sidecar)])).await;
    let made = create(&server, DEPLOYMENTS, deployment("d", 1)).await;
    assert_eq!(made["metadata"]["annotations"]["my-annotation"], "d");
    let pod = &made["spec"]["template"]["spec"];
    assert_eq!(
        (&pod["containers"][0]["name"], &pod["initContainers"][0]["name"]),
        (&json!("c"), &json!("proxy"))
    );
    // What was added went through the defaults.
    assert_eq!(pod["initContainers"][0]["terminationMessagePolicy"], "File");
}

#[tokio::test]
async fn a_policy_sees_what_another_changed() {
    let server = start().await;
    let label = |own: &str, other: &str| {
        apply(&format!(
            "Object{{metadata: Object.metadata{{labels: {{'{own}': has(object.metadata.labels) && '{other}' in object.metadata.labels ? 'saw' : 'alone'}}}}}}"
        ))
    };
    policy(&server, "a", ("", "configmaps"), json!([label("a", "b")])).await;
    policy(&server, "b", ("", "configmaps"), json!([label("b", "a")])).await;
    let made = create(&server, MAPS, map("m", &json!({}))).await;
    // `a` is asked again after `b` changed the object.
    assert_eq!(made["metadata"]["labels"], json!({"a": "saw", "b": "saw"}));
}

#[tokio::test]
async fn a_mutation_that_fails_refuses_the_request() {
    let server = start().await;
    policy(
        &server,
        "broken",
        ("", "configmaps"),
        json!([patch("[JSONPatch{op: 'remove', path: '/data/nope'}]")]),
    )
    .await;
    let (status, answer) = server.send("POST", MAPS, Some(map("m", &json!({})))).await;
    assert_eq!(status, 403, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.starts_with("policy 'broken' with binding 'broken' denied request: JSON Patch: "),
        "{message}"
    );
    policy(
        &server,
        "atomic",
        ("apps", "deployments"),
        json!([apply("Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}")]),
    )
    .await;
    let (_, answer) = server.send("POST", DEPLOYMENTS, Some(deployment("d", 1))).await;
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("may not mutate atomic arrays, maps or structs: .spec.selector"), "{message}");
}
