//! Several versions of one resource, and defaults that come and go.

use serde_json::{Value, json};

use super::{CRDS, establish, simple, wait, widget};
use crate::support::Server;

const V1: &str = "/apis/example.com/v1/namespaces/default/widgets";
const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";
const ONE: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";

/// The simple definition with a second version, whose selectors see another field.
fn two() -> Value {
    let mut definition = simple();
    let versions = definition["spec"]["versions"].as_array_mut().expect("versions");
    versions[0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    let mut second = versions[0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["selectableFields"] = json!([{"jsonPath": ".spec.size"}]);
    second["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
    ]);
    versions.push(second);
    definition
}

#[tokio::test]
async fn an_object_is_seen_in_every_version() {
    let server = Server::start().await;
    establish(&server, two()).await;
    for (name, size, color) in [("a", 1, "red"), ("b", 2, "green")] {
        let object = widget(name, &json!({"size": size, "color": color}));
        let (status, created) = server.send("POST", V1, Some(object)).await;
        assert_eq!(status, 201, "{created}");
    }
    let (_, found) = server.send("GET", &format!("{V2}/a"), None).await;
    assert_eq!((&found["apiVersion"], &found["spec"]["size"]), (&json!("example.com/v2"), &json!(1)));
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().into_iter().flatten();
        items.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect()
    };
    let (_, list) = server.send("GET", &format!("{V1}?fieldSelector=spec.color%3Dgreen"), None).await;
    assert_eq!(names(&list), ["b"], "{list}");
    let (_, list) = server.send("GET", &format!("{V2}?fieldSelector=spec.size%3D1"), None).await;
    assert_eq!(names(&list), ["a"], "{list}");
    let (status, refused) = server.send("GET", &format!("{V2}?fieldSelector=spec.color%3Dred"), None).await;
    assert_eq!(
        (status.as_u16(), &refused["message"]),
        (400, &json!("field label not supported: spec.color"))
    );
    let (_, first) = server.send("GET", &format!("{V2}?limit=1"), None).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".to_owned()], &json!(1)));

    // Written through the other version, it is still stored in the first.
    let patch = json!({"spec": {"size": 5}});
    let (status, patched) = server.send("PATCH", &format!("{V2}/a"), Some(patch)).await;
    assert_eq!((status.as_u16(), &patched["apiVersion"]), (200, &json!("example.com/v2")), "{patched}");
    let (_, found) = server.send("GET", &format!("{V1}/a"), None).await;
    assert_eq!((&found["apiVersion"], &found["spec"]["size"]), (&json!("example.com/v1"), &json!(5)));
}

/// Holds AM-39.
#[tokio::test]
async fn defaults_apply_on_reads_too() {
    let server = Server::start().await;
    let mut definition = simple();
    let color = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color/default";
    let default = definition.pointer_mut(color).expect("a default").take();
    let schema = |definition: &mut Value, default: Option<Value>| {
        let color = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color";
        let color = definition.pointer_mut(color).and_then(Value::as_object_mut).expect("a schema");
        match default {
            Some(default) => _ = color.insert("default".to_owned(), default),
            None => _ = color.remove("default"),
        }
    };
    schema(&mut definition, None);
    establish(&server, definition).await;
    server.send("POST", V1, Some(widget("old", &json!({"size": 1})))).await;
    let (_, old) = server.send("GET", &format!("{V1}/old"), None).await;
    assert_eq!(old["spec"], json!({"size": 1}));

    let change = async |default: Option<Value>| {
        let (_, mut stored) = server.send("GET", ONE, None).await;
        schema(&mut stored, default);
        let (status, updated) = server.send("PUT", ONE, Some(stored)).await;
        assert_eq!(status, 200, "{updated}");
    };
    change(Some(default)).await;
    wait(&server, &format!("{V1}/old"), |found| found["spec"]["color"] == "red").await;
    server.send("POST", V1, Some(widget("new", &json!({"size": 1})))).await;
    change(None).await;
    wait(&server, &format!("{V1}/old"), |found| found["spec"].get("color").is_none()).await;
    let (_, new) = server.send("GET", &format!("{V1}/new"), None).await;
    assert_eq!(new["spec"]["color"], "red");
}

/// Holds AM-42, AM-43, AM-50.
#[tokio::test]
async fn served_versions_are_published() {
    let server = Server::start().await;
    establish(&server, two()).await;
    let definitions = async || server.send("GET", "/openapi/v2", None).await.1["definitions"].take();
    let both = definitions().await;
    assert!(both["com.example.v1.Widget"].is_object() && both["com.example.v2.Widget"].is_object());
    let etag = async || {
        let (_, document) = server.send("GET", "/apis/example.com", None).await;
        document["versions"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(etag().await, 2);
    let path = "application/json-patch+json";
    let unserve = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]).to_string();
    let (status, patched) = server.send_as("PATCH", ONE, path, unserve).await;
    assert_eq!(status, 200, "{patched}");
    wait(&server, V2, |found| found["code"] == 404).await;
    let one = definitions().await;
    assert!(one["com.example.v1.Widget"].is_object() && one["com.example.v2.Widget"].is_null());
    assert_eq!(etag().await, 1);
    let rename = json!([
        {"op": "replace", "path": "/spec/versions/1/served", "value": true},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v3"},
    ]);
    let (status, patched) = server.send_as("PATCH", ONE, path, rename.to_string()).await;
    assert_eq!(status, 200, "{patched}");
    wait(&server, "/apis/example.com/v3/namespaces/default/widgets", |found| found["kind"] == "WidgetList")
        .await;
    assert!(definitions().await["com.example.v3.Widget"].is_object());
}

/// Holds AM-38.
#[tokio::test]
async fn definitions_are_deleted_by_label() {
    let server = Server::start().await;
    for index in 0..3 {
        let mut definition = super::definition(
            "x.example.com",
            &format!("p{index}s"),
            &format!("P{index}"),
            &json!({"type": "object"}),
        );
        definition["metadata"]["labels"] = json!({"group": if index < 2 { "a" } else { "b" }});
        establish(&server, definition).await;
    }
    let (status, _) = server.send("DELETE", &format!("{CRDS}?labelSelector=group%3Da"), None).await;
    assert_eq!(status, 200);
    let left = wait(&server, CRDS, |list| list["items"].as_array().map(Vec::len) == Some(1)).await;
    assert_eq!(left["items"][0]["metadata"]["name"], "p2s.x.example.com");
}

/// Holds AM-49.
#[tokio::test]
async fn kinds_of_one_version_are_all_published() {
    let server = Server::start().await;
    for (plural, kind, field) in [("gears", "Gear", "teeth"), ("belts", "Belt", "length")] {
        let spec = json!({"type": "object", "properties": {field: {"type": "integer"}}});
        establish(&server, super::definition("parts.example.com", plural, kind, &spec)).await;
    }
    let (_, document) = server.send("GET", "/openapi/v2", None).await;
    let (_, other) = server.send("GET", "/openapi/v3/apis/parts.example.com/v1", None).await;
    let (_, list) = server.send("GET", "/apis/parts.example.com/v1", None).await;
    for (plural, kind, field) in [("gears", "Gear", "teeth"), ("belts", "Belt", "length")] {
        let name = format!("com.example.parts.v1.{kind}");
        for schema in [&document["definitions"][&name], &other["components"]["schemas"][&name]] {
            let properties = &schema["properties"]["spec"]["properties"];
            assert_eq!(properties[field]["type"], "integer", "{name}: {schema}");
            assert_eq!(properties.as_object().map(serde_json::Map::len), Some(1), "{name}");
        }
        let path = format!("/apis/parts.example.com/v1/namespaces/{{namespace}}/{plural}");
        assert!(document["paths"][&path].is_object() && other["paths"][&path].is_object(), "{path}");
        let resources = list["resources"].as_array().expect("resources");
        assert!(resources.iter().any(|resource| resource["name"] == plural), "{list}");
    }
}
