//! OpenAPI documents, generated from the schema table and the served kinds: v3 per group and version, v2 for all.
//!
//! Clients read them for `explain`, to learn whether the server validates fields (`fieldValidation` on writes), and for
//! the patch facts (`x-kubernetes-patch-strategy` and the like). They are built once per set of kinds, not per request.

mod gnostic;
mod operations;
mod schemas;

use crate::kind::KindInfo;
use operations::Endpoint;
use schemas::{Flavour, definitions};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// How clients ask for the v2 document in protobuf (`Accept`).
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The `Content-Type` of that answer: the `@` of the request is not legal in a media type, and clients refuse it.
pub const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Where a group and version is described: `api/v1`, `apis/apps/v1`.
pub fn v3_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`: which documents there are. `documents` maps [`v3_path`] to the document's bytes, whose hash is
/// part of the address, so that clients may keep what they have.
pub fn v3_index<'d>(documents: impl IntoIterator<Item = (&'d str, &'d [u8])>) -> Value {
    let paths: Map<String, Value> = documents
        .into_iter()
        .map(|(path, bytes)| {
            let address = format!("/openapi/v3/{path}?hash={}", hash(bytes));
            (path.to_owned(), json!({"serverRelativeURL": address}))
        })
        .collect();
    json!({"paths": paths})
}

/// The hash of a document, as addresses and entity tags carry it.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// All v3 documents, by [`v3_path`].
pub fn v3_all(kinds: &[KindInfo], version: &str) -> BTreeMap<String, Value> {
    let groups: BTreeSet<(&str, &str)> =
        kinds.iter().map(|kind| (kind.gvk.group.as_str(), kind.gvk.version.as_str())).collect();
    groups
        .into_iter()
        .map(|(group, group_version)| {
            let of: Vec<KindInfo> = kinds
                .iter()
                .filter(|kind| kind.gvk.group == group && kind.gvk.version == group_version)
                .cloned()
                .collect();
            (v3_path(group, group_version), v3_group(&of, version))
        })
        .collect()
}

/// The v3 document of one group and version.
pub fn v3_group(kinds: &[KindInfo], version: &str) -> Value {
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in operations::endpoints(kinds) {
        paths.insert(endpoint.path.clone(), v3_path_item(&endpoint));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": definitions(kinds, Flavour::V3),
            "securitySchemes": {"BearerToken": bearer()},
        },
        "security": [{"BearerToken": []}],
    })
}

/// The v2 document of everything.
pub fn v2(kinds: &[KindInfo], version: &str) -> Value {
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in operations::endpoints(kinds) {
        paths.insert(endpoint.path.clone(), v2_path_item(&endpoint));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions(kinds, Flavour::V2),
        "securityDefinitions": {"BearerToken": bearer()},
        "security": [{"BearerToken": []}],
    })
}

/// The v2 document as the protobuf message that clients ask for ([`V2_PROTOBUF`]).
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::document(document)
}

fn bearer() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}

const PRODUCES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

fn v3_path_item(endpoint: &Endpoint) -> Value {
    let parameter = |name: &str, ty: &str, place: &str| {
        let mut parameter = json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}});
        if place == "path" {
            parameter["required"] = true.into();
        }
        parameter
    };
    let mut item = Map::new();
    for operation in &endpoint.operations {
        let content = |types: &[&str], schema: &str| -> Value {
            let schema = json!({"$ref": format!("{}{schema}", Flavour::V3.prefix())});
            Value::Object(types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect())
        };
        let mut entry = json!({
            "tags": [endpoint.tag],
            "operationId": operation.id,
            "parameters": operation.query.iter().map(|(name, ty)| parameter(name, ty, "query")).collect::<Vec<_>>(),
            "responses": {
                "200": {"description": "OK", "content": content(&PRODUCES, &operation.response)},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.gvk,
        });
        if let Some(body) = &operation.body {
            entry["requestBody"] =
                json!({"content": content(&operation.consumes, body), "required": operation.body_required});
        }
        item.insert(operation.method.to_owned(), entry);
    }
    let mut parameters: Vec<Value> =
        endpoint.parameters.iter().map(|name| parameter(name, "string", "path")).collect();
    parameters.push(parameter("pretty", "string", "query"));
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

fn v2_path_item(endpoint: &Endpoint) -> Value {
    let parameter = |name: &str, ty: &str, place: &str| {
        let mut parameter = json!({"name": name, "in": place, "type": ty, "uniqueItems": true});
        if place == "path" {
            parameter["required"] = true.into();
        }
        parameter
    };
    let reference = |schema: &str| json!({"$ref": format!("{}{schema}", Flavour::V2.prefix())});
    let mut item = Map::new();
    for operation in &endpoint.operations {
        let mut parameters: Vec<Value> = Vec::new();
        if let Some(body) = &operation.body {
            let mut parameter = json!({"name": "body", "in": "body", "schema": reference(body)});
            if operation.body_required {
                parameter["required"] = true.into();
            }
            parameters.push(parameter);
        }
        parameters.extend(operation.query.iter().map(|(name, ty)| parameter(name, ty, "query")));
        let entry = json!({
            "tags": [endpoint.tag],
            "operationId": operation.id,
            "consumes": operation.consumes,
            "produces": PRODUCES,
            "schemes": ["https"],
            "parameters": parameters,
            "responses": {
                "200": {"description": "OK", "schema": reference(&operation.response)},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.gvk,
        });
        item.insert(operation.method.to_owned(), entry);
    }
    let mut parameters: Vec<Value> =
        endpoint.parameters.iter().map(|name| parameter(name, "string", "path")).collect();
    parameters.push(parameter("pretty", "string", "query"));
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

#[cfg(test)]
mod tests;
