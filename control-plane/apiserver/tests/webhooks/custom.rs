//! Webhooks and custom resources.

use serde_json::{Value, json};

use super::hook::Hook;
use super::{mutating, rule, start, validating, webhook};
use crate::support::Server;

const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition whose objects may have these keys in `data`.
pub(super) async fn define(server: &Server, versions: &[(&str, bool)], keys: &[&str]) {
    let properties: serde_json::Map<String, Value> =
        keys.iter().map(|key| ((*key).to_owned(), json!({"type": "string"}))).collect();
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "data": {"type": "object", "properties": properties},
    }}});
    let versions: Vec<Value> = versions
        .iter()
        .map(|(name, storage)| json!({"name": name, "served": true, "storage": storage, "schema": schema}))
        .collect();
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": versions,
        },
    });
    let (status, answer) = server.send("POST", DEFINITIONS, Some(definition)).await;
    assert_eq!(status, 201, "{answer}");
    served(server).await;
}

async fn served(server: &Server) {
    for _ in 0..100 {
        let (status, _) = server.send("GET", THINGS, None).await;
        if status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the things are not served");
}

fn thing(name: &str, data: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "data": data})
}

/// Holds AM-10.
#[tokio::test(flavor = "multi_thread")]
async fn create_update_and_delete_can_be_denied() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    define(&server, &[("v1", true)], &["start", "bad"]).await;
    let (status, answer) = server.send("POST", THINGS, Some(thing("old", &json!({"bad": "yes"})))).await;
    assert_eq!(status, 201, "{answer}");
    let rule = rule(&["CREATE", "UPDATE", "DELETE"], "example.com", "things");
    validating(&server, "c", &[webhook(&hook, "/guard", &rule)]).await;
    let (status, answer) = server.send("POST", THINGS, Some(thing("new", &json!({"bad": "yes"})))).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = server.send("POST", THINGS, Some(thing("good", &json!({"start": "yes"})))).await;
    assert_eq!(status, 201, "{answer}");
    let bad = json!({"data": {"bad": "yes"}});
    let (status, answer) = server.send("PATCH", &format!("{THINGS}/good"), Some(bad)).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = server.send("DELETE", &format!("{THINGS}/old"), None).await;
    assert_eq!(status, 400, "{answer}");
    let request = &hook.requests("/guard")[0];
    assert_eq!(request["kind"], json!({"group": "example.com", "version": "v1", "kind": "Thing"}));
}

/// Holds AM-16.
#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_mutated() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    define(&server, &[("v1", true)], &["start", "stage-1", "stage-2"]).await;
    let things = rule(&["CREATE"], "example.com", "things");
    mutating(&server, "c", &[webhook(&hook, "/stage-1", &things), webhook(&hook, "/stage-2", &things)]).await;
    let (status, made) = server.send("POST", THINGS, Some(thing("t", &json!({"start": "yes"})))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["data"], json!({"start": "yes", "stage-1": "yes", "stage-2": "yes"}));
}

/// Holds AM-18.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_does_not_know_is_pruned_after_a_patch() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    define(&server, &[("v1", true)], &["start", "stage-1"]).await;
    let things = rule(&["CREATE"], "example.com", "things");
    mutating(&server, "c", &[webhook(&hook, "/stage-1", &things), webhook(&hook, "/stage-2", &things)]).await;
    let (status, made) = server.send("POST", THINGS, Some(thing("t", &json!({"start": "yes"})))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["data"], json!({"start": "yes", "stage-1": "yes"}));
}

/// Holds AM-17.
#[tokio::test(flavor = "multi_thread")]
async fn mutation_goes_on_when_another_version_is_stored() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    define(&server, &[("v1", true), ("v2", false)], &["start", "stage-1", "more"]).await;
    let things = rule(&["CREATE", "UPDATE"], "example.com", "things");
    mutating(&server, "c", &[webhook(&hook, "/stage-1", &things)]).await;
    let (status, made) = server.send("POST", THINGS, Some(thing("t", &json!({"start": "yes"})))).await;
    assert_eq!(status, 201, "{made}");
    let path = format!("{DEFINITIONS}/things.example.com");
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let (status, answer) =
        server.send_as("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    server.settled().await;
    served(&server).await;
    let patch = json!({"data": {"more": "of it"}});
    let (status, patched) = server.send("PATCH", &format!("{THINGS}/t"), Some(patch)).await;
    assert_eq!(status, 200, "{patched}");
    assert_eq!(patched["data"], json!({"start": "yes", "stage-1": "yes", "more": "of it"}));
}
