//! Custom resources through the router: definitions, objects, versions, publishing.

mod conversion;
mod objects;
mod real;
mod versions;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::Server;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition with one version and this schema of `spec`.
fn definition(group: &str, plural: &str, kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": spec,
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}

fn condition<'v>(definition: &'v Value, kind: &str) -> &'v str {
    let conditions = definition["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// Creates a definition and waits until it is established.
async fn establish(server: &Server, definition: Value) {
    let name = definition["metadata"]["name"].as_str().expect("a name").to_owned();
    let (status, created) = server.send("POST", CRDS, Some(definition)).await;
    assert_eq!(status, 201, "{created}");
    wait(server, &format!("{CRDS}/{name}"), |found| condition(found, "Established") == "True").await;
}

/// Waits until what is at a path satisfies a condition.
async fn wait(server: &Server, path: &str, done: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..200 {
        last = server.send("GET", path, None).await.1;
        if done(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} never came to be as it should: {last}");
}

fn widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn simple() -> Value {
    definition(
        "example.com",
        "widgets",
        "Widget",
        &json!({"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "color": {"type": "string", "default": "red", "enum": ["red", "green"]},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        }}),
    )
}

/// Holds AM-36, AM-40.
#[tokio::test]
async fn a_definition_is_established_served_and_removed() {
    let server = Server::start().await;
    let (status, _) = server.send("GET", WIDGETS, None).await;
    assert_eq!(status, 404);
    establish(&server, simple()).await;
    let (status, created) = server.send("POST", WIDGETS, Some(widget("a", &json!({"size": 1})))).await;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["spec"], json!({"size": 1, "color": "red"}));
    let (_, list) = server.send("GET", WIDGETS, None).await;
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("WidgetList"), Some(1)));

    let path = format!("{WIDGETS}/a");
    let patch = json!({"spec": {"size": 2}});
    let (status, patched) = server.send("PATCH", &path, Some(patch)).await;
    assert_eq!((status.as_u16(), &patched["metadata"]["generation"]), (200, &json!(2)), "{patched}");
    let strategic = "application/strategic-merge-patch+json";
    let (status, _) = server.send_as("PATCH", &path, strategic, "{}".to_owned()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, deleted) = server.send("DELETE", &path, None).await;
    assert_eq!((status.as_u16(), &deleted["details"]["kind"]), (200, &json!("widgets")));

    let (status, _) = server.send("POST", WIDGETS, Some(widget("b", &json!({"size": 1})))).await;
    assert_eq!(status, 201);
    let one = format!("{CRDS}/widgets.example.com");
    let (status, going) = server.send("DELETE", &one, None).await;
    assert_eq!(status, 200, "{going}");
    wait(&server, &one, |found| found["code"] == 404).await;
    let (status, _) = server.send("GET", WIDGETS, None).await;
    assert_eq!(status, 404);
    // The objects went with it.
    establish(&server, simple()).await;
    let (_, list) = server.send("GET", WIDGETS, None).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(0));
}

/// Holds AM-52, AM-53.
#[tokio::test]
async fn objects_are_checked_against_the_schema() {
    let server = Server::start().await;
    establish(&server, simple()).await;
    let cases = [
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"size": 0}),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            json!({"size": 1, "color": "blue"}),
            "spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\"",
        ),
        (
            json!({"size": 1, "name": "A"}),
            "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
        ),
        (json!({"size": 1, "name": "abcdef"}), "spec.name: Too long: may not be more than 5 bytes"),
    ];
    for (spec, wanted) in cases {
        let (status, refused) = server.send("POST", WIDGETS, Some(widget("a", &spec))).await;
        assert_eq!(status, 422, "{refused}");
        let message = refused["message"].as_str().expect("a message");
        assert_eq!(message, format!("Widget.example.com \"a\" is invalid: {wanted}"));
    }
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let unknown = widget("a", &json!({"size": 1, "bogus": 1}));
    let (status, refused) = server.send("POST", &strict, Some(unknown.clone())).await;
    assert_eq!(status, 400, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .expect("text")
            .contains("strict decoding error: unknown field \"spec.bogus\""),
        "{refused}"
    );
    let (status, pruned) = server.send("POST", WIDGETS, Some(unknown)).await;
    assert_eq!((status.as_u16(), &pruned["spec"]), (201, &json!({"size": 1, "color": "red"})));
}

/// Holds AM-26, AM-28, AM-48.
#[tokio::test]
async fn definitions_are_in_discovery_and_openapi() {
    let server = Server::start().await;
    establish(&server, simple()).await;
    establish(&server, definition("other.example.com", "gears", "Gear", &json!({"type": "object"}))).await;
    let (_, groups) = server.send("GET", "/apis", None).await;
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .filter_map(|group| group["name"].as_str())
        .collect();
    assert!(names.contains(&"example.com") && names.contains(&"other.example.com"), "{names:?}");
    let (_, list) = server.send("GET", "/apis/example.com/v1", None).await;
    assert_eq!(list["resources"][0]["name"], "widgets");
    assert_eq!(list["resources"][0]["kind"], "Widget");
    let (_, v3) = server.send("GET", "/openapi/v3/apis/example.com/v1", None).await;
    assert!(v3["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"].is_object(), "{v3}");
    let (_, v2) = server.send("GET", "/openapi/v2", None).await;
    assert!(v2["definitions"]["com.example.v1.Widget"].is_object());
    assert!(v2["definitions"]["com.example.other.v1.Gear"].is_object());
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
}
