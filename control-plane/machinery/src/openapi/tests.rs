//! The facts clients look for are where they look.

use super::*;
use crate::codec::wire::{Fields, Payload};
use crate::kind::SubresourceInfo;
use skep_api::resource::GroupVersionKind;

fn kind(group: &str, version: &str, kind: &str, plural: &str) -> KindInfo {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    KindInfo {
        gvk: GroupVersionKind::new(group, version, kind),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        namespaced: true,
        verbs: verbs.map(String::from).to_vec(),
        ..KindInfo::default()
    }
}

fn kinds() -> Vec<KindInfo> {
    let mut deployments = kind("apps", "v1", "Deployment", "deployments");
    deployments.subresources = vec![SubresourceInfo {
        name: "scale".into(),
        gvk: GroupVersionKind::new("autoscaling", "v1", "Scale"),
        verbs: vec!["get".into(), "update".into(), "patch".into()],
    }];
    let mut widgets = kind("example.com", "v1", "Widget", "widgets");
    widgets.schema =
        Some(json!({"type": "object", "properties": {"spec": {"type": "object", "nullable": true,
        "properties": {"x": {"oneOf": [{"type": "string"}]}}}}}));
    vec![kind("", "v1", "Pod", "pods"), deployments, widgets]
}

/// Every `$ref` in the document.
fn references<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, out));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    let mut documents: Vec<Value> = v3_all(&kinds(), "v1.36.0").into_values().collect();
    documents.push(v2(&kinds(), "v1.36.0"));
    for document in &documents {
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 10);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("local");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}

#[test]
fn what_kubectl_looks_for() {
    let all = v3_all(&kinds(), "v1.36.0");
    let apps = &all["apis/apps/v1"];
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let names: Vec<&Value> =
        patch["parameters"].as_array().into_iter().flatten().map(|p| &p["name"]).collect();
    assert!(names.contains(&&json!("fieldValidation")) && names.contains(&&json!("force")));
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let deployment = &apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let spec = &apps["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(spec["required"], json!(["containers"]));
    assert!(
        apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"].is_object()
    );
    let widget = &all["apis/example.com/v1"]["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["kind"]["type"], "string");
}

#[test]
fn index_addresses_carry_the_hash() {
    let index = v3_index([("api/v1", hash(b"{}").as_str())]);
    let address = index["paths"]["api/v1"]["serverRelativeURL"].as_str().expect("address");
    assert!(address.starts_with("/openapi/v3/api/v1?hash=") && address.len() > 60);
}

#[test]
fn operation_ids_are_unique() {
    let document = v2(&kinds(), "v1.36.0");
    let mut seen = BTreeSet::new();
    for item in document["paths"].as_object().into_iter().flat_map(Map::values) {
        for operation in item.as_object().into_iter().flat_map(Map::values) {
            if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
                assert!(seen.insert(id.to_owned()), "{id}");
            }
        }
    }
}

#[test]
fn gnostic_form_reads_as_protobuf() {
    let document = v2(&kinds(), "v1.36.0");
    let bytes = v2_protobuf(&document);
    let mut reader = Fields::new(&bytes);
    let mut definitions = 0;
    while let Some((number, payload)) = reader.next_field().expect("well-formed") {
        if let (9, Payload::Bytes(bytes)) = (number, payload) {
            let mut reader = Fields::new(bytes);
            while reader.next_field().expect("well-formed").is_some() {
                definitions += 1;
            }
        }
    }
    assert_eq!(definitions, document["definitions"].as_object().map_or(0, Map::len));
    // What v2 cannot say is left open.
    assert_eq!(document["definitions"]["com.example.v1.Widget"]["properties"]["spec"], json!({}));
}

/// The v3 message: schemas by name, with their texts.
#[test]
fn v3_reads_as_protobuf() {
    let document = &v3_all(&kinds(), "v1.36.0")["apis/apps/v1"];
    let bytes = v3_protobuf(document);
    let mut reader = Fields::new(&bytes);
    let mut schemas = 0;
    while let Some((number, payload)) = reader.next_field().expect("well-formed") {
        let (5, Payload::Bytes(components)) = (number, payload) else { continue };
        let mut reader = Fields::new(components);
        while let Some((number, payload)) = reader.next_field().expect("well-formed") {
            let (1, Payload::Bytes(named)) = (number, payload) else { continue };
            let mut reader = Fields::new(named);
            while reader.next_field().expect("well-formed").is_some() {
                schemas += 1;
            }
        }
    }
    assert_eq!(schemas, document["components"]["schemas"].as_object().map_or(0, Map::len));
}

#[test]
fn schemas_say_what_explain_shows() {
    let all = v3_all(&kinds(), "v1.36.0");
    let schemas = &all["api/v1"]["components"]["schemas"];
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"];
    let policy = &spec["properties"]["restartPolicy"];
    assert_eq!(policy["enum"], json!(["Always", "Never", "OnFailure"]));
    let text = policy["description"].as_str().expect("a text");
    assert!(text.starts_with("Restart policy for all containers within the pod."), "{text}");
    assert!(text.contains("Possible enum values:\n - `\"Always\"`"), "{text}");
    let context = &spec["properties"]["securityContext"];
    assert!(context["allOf"][0]["$ref"].is_string() && context["description"].is_string());
    assert_eq!(spec["properties"]["containers"]["items"]["default"], json!({}));
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"];
    assert_eq!((&port["protocol"]["default"], &port["containerPort"]["default"]), (&json!("TCP"), &json!(0)));
    let exec = &all["api/v1"]["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["delete"];
    let answer = &exec["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(answer, "#/components/schemas/io.k8s.api.core.v1.Pod");
}
