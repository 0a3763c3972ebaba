//! What can be done to custom objects: status, scale, apply, tables, watches, fields of any kind.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{CRDS, definition, establish, simple, wait, widget};
use crate::support::Server;

const GEARS: &str = "/apis/example.com/v1/namespaces/default/gears";

/// With every subresource, columns, and lists of each kind.
fn gears() -> Value {
    let mut definition = definition(
        "example.com",
        "gears",
        "Gear",
        &json!({"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true},
                }},
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "template": {
                "type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true,
            },
        }}),
    );
    let version = &mut definition["spec"]["versions"][0];
    version["subresources"] = json!({
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    });
    version["additionalPrinterColumns"] = json!([
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Wide", "type": "string", "jsonPath": ".spec.tags", "priority": 1},
    ]);
    definition["spec"]["names"]["shortNames"] = json!(["gr"]);
    definition["spec"]["names"]["categories"] = json!(["all"]);
    definition
}

fn gear(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gear", "metadata": {"name": name}, "spec": spec})
}

async fn raw(server: &Server, path: &str, accept: &str) -> Value {
    let mut request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
    request.extensions_mut().insert(server.user.clone());
    let answer = server.router.clone().oneshot(request).await.expect("infallible");
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let server = Server::start().await;
    establish(&server, gears()).await;
    let mut sent = gear("a", &json!({"replicas": 2}));
    sent["status"] = json!({"replicas": 7});
    let (status, created) = server.send("POST", GEARS, Some(sent)).await;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created.get("status"), None);
    let path = format!("{GEARS}/a");
    let all = json!({"spec": {"replicas": 9}, "status": {"replicas": 1, "selector": "a=b"}});
    let (status, patched) = server.send("PATCH", &format!("{path}/status"), Some(all)).await;
    assert_eq!((status.as_u16(), &patched["spec"]["replicas"]), (200, &json!(2)), "{patched}");
    assert_eq!(patched["metadata"]["generation"], 1);
    let (_, scale) = server.send("GET", &format!("{path}/scale"), None).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let (status, scale) =
        server.send("PATCH", &format!("{path}/scale"), Some(json!({"spec": {"replicas": 4}}))).await;
    assert_eq!((status.as_u16(), &scale["spec"]["replicas"]), (200, &json!(4)), "{scale}");
    let (_, found) = server.send("GET", &path, None).await;
    assert_eq!((&found["spec"]["replicas"], &found["metadata"]["generation"]), (&json!(4), &json!(2)));
    assert_eq!(found["status"]["replicas"], 1);
    let (status, refused) = server.send("PUT", &path, Some(gear("a", &json!({})))).await;
    assert_eq!(status, 422, "{refused}");
    assert!(refused["message"].as_str().expect("text").contains("metadata.resourceVersion: Invalid value"));
}

#[tokio::test]
async fn apply_knows_the_keys_of_lists() {
    let server = Server::start().await;
    establish(&server, gears()).await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{GEARS}/a?fieldManager={manager}");
        server.send_as("PATCH", &path, "application/apply-patch+yaml", gear("a", &spec).to_string()).await
    };
    let (status, created) = apply("one", json!({"ports": [{"name": "x", "port": 1}], "tags": ["t"]})).await;
    assert_eq!(status, 201, "{created}");
    let (status, merged) =
        apply("two", json!({"ports": [{"name": "y", "port": "http"}], "tags": ["u"]})).await;
    assert_eq!(status, 200, "{merged}");
    assert_eq!(merged["spec"]["ports"], json!([{"name": "x", "port": 1}, {"name": "y", "port": "http"}]));
    assert_eq!(merged["spec"]["tags"], json!(["t", "u"]));
    let (status, conflict) = apply("two", json!({"ports": [{"name": "x", "port": 2}]})).await;
    assert_eq!((status.as_u16(), &conflict["reason"]), (409, &json!("Conflict")), "{conflict}");
    let twice = gear("b", &json!({"ports": [{"name": "x"}, {"name": "x"}], "tags": ["t", "t"]}));
    let (status, refused) = server.send("POST", GEARS, Some(twice)).await;
    assert_eq!(status, 422);
    let message = refused["message"].as_str().expect("text");
    assert!(message.contains("spec.ports[1]: Duplicate value: {\"name\":\"x\"}"), "{message}");
    assert!(message.contains("spec.tags[1]: Duplicate value: \"t\""), "{message}");
}

#[tokio::test]
async fn columns_are_those_of_the_definition() {
    let server = Server::start().await;
    establish(&server, gears()).await;
    server.send("POST", GEARS, Some(gear("a", &json!({"replicas": 3, "tags": ["x"]})))).await;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    server.send("PATCH", &format!("{GEARS}/a/status"), Some(status)).await;
    let table = raw(&server, GEARS, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|column| column["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Replicas", "Ready", "Age", "Wide"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[1], &cells[2]), (&json!("a"), &json!(3), &json!("True")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, list) = server.send("GET", "/apis/example.com/v1", None).await;
    assert_eq!(list["resources"][0]["shortNames"], json!(["gr"]));
    let names: Vec<&str> =
        list["resources"].as_array().expect("resources").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["gears", "gears/scale", "gears/status"]);
}

/// Holds AM-35.
#[tokio::test]
async fn watches_tell_of_objects_and_outlive_a_change_of_the_definition() {
    let server = Server::start().await;
    establish(&server, simple()).await;
    let widgets = super::WIDGETS;
    let (_, list) = server.send("GET", widgets, None).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let watch = format!("{widgets}?watch=true&resourceVersion={version}&timeoutSeconds=3");
    let mut request = Request::get(&watch).body(Body::empty()).expect("a request");
    request.extensions_mut().insert(server.user.clone());
    let answer = server.router.clone().oneshot(request).await.expect("infallible");
    server.send("POST", widgets, Some(widget("a", &json!({"size": 1})))).await;
    let one = format!("{CRDS}/widgets.example.com");
    let names = json!({"spec": {"names": {"shortNames": ["wd"]}}});
    let (status, _) = server.send("PATCH", &one, Some(names)).await;
    assert_eq!(status, 200);
    wait(&server, "/apis/example.com/v1", |list| list["resources"][0]["shortNames"] == json!(["wd"])).await;
    server.send("PATCH", &format!("{widgets}/a"), Some(json!({"spec": {"size": 2}}))).await;
    server.send("DELETE", &format!("{widgets}/a"), None).await;
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let frames: Vec<Value> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    let seen: Vec<(&str, i64)> = frames
        .iter()
        .map(|frame| {
            let size = frame.pointer("/object/spec/size").and_then(Value::as_i64).unwrap_or_default();
            (frame["type"].as_str().unwrap_or_default(), size)
        })
        .collect();
    assert_eq!(seen, [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)]);
}

/// Holds AM-51, AM-54, AM-56.
#[tokio::test]
async fn strict_reading_tells_of_each_field() {
    let server = Server::start().await;
    establish(&server, gears()).await;
    let mut open = definition("example.com", "blobs", "Blob", &json!({"type": "object"}));
    open["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    establish(&server, open).await;
    let blobs = "/apis/example.com/v1/namespaces/default/blobs?fieldValidation=Strict";
    let body = json!({
        "apiVersion": "example.com/v1", "kind": "Blob", "metadata": {"name": "a"}, "any": {"thing": 1},
    });
    let (status, created) = server.send("POST", blobs, Some(body)).await;
    assert_eq!((status.as_u16(), &created["any"]["thing"]), (201, &json!(1)), "{created}");
    let twice = "{\"apiVersion\":\"example.com/v1\",\"kind\":\"Blob\",\"metadata\":{\"name\":\"b\"},\
                 \"spec\":{\"x\":1,\"x\":2}}";
    let (status, refused) = server.send_as("POST", blobs, "application/json", twice.to_owned()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["message"].as_str().expect("text").contains("duplicate field \"spec.x\""), "{refused}");
    let mut meta = gear(
        "a",
        &json!({"template": {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "unknownInner": 1}, "spec": {"x": 1},
        }}),
    );
    meta["metadata"]["unknownMeta"] = json!("x");
    let strict = format!("{GEARS}?fieldValidation=Strict");
    let (status, refused) = server.send("POST", &strict, Some(meta.clone())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = refused["message"].as_str().expect("text");
    assert!(message.contains("unknown field \"metadata.unknownMeta\""), "{message}");
    assert!(message.contains("unknown field \"spec.template.metadata.unknownInner\""), "{message}");
    let (status, created) = server.send("POST", GEARS, Some(meta)).await;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["spec"]["template"]["metadata"], json!({"name": "p"}));
    assert_eq!(created["spec"]["template"]["spec"], json!({"x": 1}));
}

/// Holds AM-37.
#[tokio::test]
async fn definitions_have_a_status_of_their_own() {
    let server = Server::start().await;
    establish(&server, simple()).await;
    let path = format!("{CRDS}/widgets.example.com/status");
    let (_, mut found) = server.send("GET", &path, None).await;
    let condition = json!({"type": "Mine", "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2024-01-01T00:00:00Z"});
    found["status"]["conditions"].as_array_mut().expect("conditions").push(condition.clone());
    found["spec"]["names"]["kind"] = json!("Changed");
    let (status, updated) = server.send("PUT", &path, Some(found)).await;
    assert_eq!(status, 200, "{updated}");
    assert_eq!(updated["spec"]["names"]["kind"], "Widget");
    assert!(updated["status"]["conditions"].as_array().expect("conditions").contains(&condition));
    let (status, refused) =
        server.send("POST", CRDS, Some(definition("nodots", "as", "A", &json!({"type": "object"})))).await;
    assert_eq!(status, 422);
    assert!(refused["message"].as_str().expect("text").contains("should be a domain with at least one dot"));
}

#[tokio::test]
async fn rules_of_the_schema_are_run() {
    let server = Server::start().await;
    let mut definition = simple();
    let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.size >= oldSelf.size", "message": "may only grow"},
        {"rule": "self.size < 10 || self.color == 'green'", "message": "large ones are green", "fieldPath": ".color"},
    ]);
    establish(&server, definition).await;
    let widgets = super::WIDGETS;
    let (status, refused) = server.send("POST", widgets, Some(widget("a", &json!({"size": 11})))).await;
    assert_eq!(status, 422, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .expect("text")
            .ends_with("spec.color: Invalid value: large ones are green"),
        "{refused}"
    );
    let (status, _) = server.send("POST", widgets, Some(widget("a", &json!({"size": 3})))).await;
    assert_eq!(status, 201);
    let (status, refused) =
        server.send("PATCH", &format!("{widgets}/a"), Some(json!({"spec": {"size": 2}}))).await;
    assert_eq!(status, 422);
    assert!(
        refused["message"].as_str().expect("text").ends_with("spec: Invalid value: may only grow"),
        "{refused}"
    );
}
