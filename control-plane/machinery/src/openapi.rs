//! OpenAPI documents, generated from the schema table and the served kinds: v3 per group and version, v2 for all.
//!
//! Clients read them for `explain`, to learn whether the server validates fields (`fieldValidation` on writes), and for
//! the patch facts (`x-kubernetes-patch-strategy` and the like). They are built once per set of kinds, not per request.

mod gnostic;
mod operations;
mod schemas;
mod texts;

use crate::kind::KindInfo;
use operations::Endpoint;
use schemas::{Flavour, definitions};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use texts::Texts;

/// How clients ask for the v2 document in protobuf (`Accept`).
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The `Content-Type` of that answer: the `@` of the request is not legal in a media type, and clients refuse it.
pub const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The same for a v3 document.
pub const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
/// The `Content-Type` of that answer.
pub const V3_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// Where a group and version is described: `api/v1`, `apis/apps/v1`.
pub fn v3_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`: which documents there are, by [`v3_path`], with their hash ([`hash`]), which is part of the
/// address, so that clients may keep what they have.
pub fn v3_index<'d>(documents: impl IntoIterator<Item = (&'d str, &'d str)>) -> Value {
    let paths: Map<String, Value> = documents
        .into_iter()
        .map(|(path, hash)| (path.to_owned(), json!({"serverRelativeURL": v3_address(path, hash)})))
        .collect();
    json!({"paths": paths})
}

/// Where a document is while it has this hash.
pub fn v3_address(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
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
    let texts = Texts::load();
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in operations::endpoints(kinds) {
        paths.insert(endpoint.path.clone(), v3_path_item(&endpoint, &texts));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": definitions(kinds, Flavour::V3, &texts),
            "securitySchemes": {"BearerToken": bearer()},
        },
        "security": [{"BearerToken": []}],
    })
}

/// The v2 document of everything.
pub fn v2(kinds: &[KindInfo], version: &str) -> Value {
    let texts = Texts::load();
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in operations::endpoints(kinds) {
        paths.insert(endpoint.path.clone(), v2_path_item(&endpoint, &texts));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions(kinds, Flavour::V2, &texts),
        "securityDefinitions": {"BearerToken": bearer()},
        "security": [{"BearerToken": []}],
    })
}

/// The v2 document as the protobuf message that clients ask for ([`V2_PROTOBUF`]).
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::document(document)
}

/// A v3 document as the protobuf message that clients ask for ([`V3_PROTOBUF`]).
pub fn v3_protobuf(document: &Value) -> Vec<u8> {
    gnostic::v3::document(document)
}

fn bearer() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}

/// What the parameters of a path are.
fn path_text(endpoint: &Endpoint, name: &str) -> String {
    match name {
        "namespace" => "object name and auth scope, such as for teams and projects".to_owned(),
        "path" => "path to the resource".to_owned(),
        _ => {
            let kind = endpoint.operations.first().and_then(|operation| operation.gvk["kind"].as_str());
            format!("name of the {}", kind.unwrap_or("object"))
        }
    }
}

const PRETTY: &str = "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).";

/// What a query parameter is, where the options of the same name say it.
fn query_text(texts: &Texts, name: &str) -> Option<String> {
    texts.named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", name)
}

fn v3_path_item(endpoint: &Endpoint, texts: &Texts) -> Value {
    let parameter = |name: &str, ty: &str, place: &str, text: Option<String>| {
        let mut parameter = json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}});
        if place == "path" {
            parameter["required"] = true.into();
        }
        if let Some(text) = text {
            parameter["description"] = text.into();
        }
        parameter
    };
    let content = |types: &[&str], schema: Option<&str>| -> Value {
        let schema = match schema {
            Some(name) => json!({"$ref": format!("{}{name}", Flavour::V3.prefix())}),
            None => json!({"type": "string"}),
        };
        Value::Object(types.iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect())
    };
    let mut item = Map::new();
    for operation in &endpoint.operations {
        let mut responses = json!({"401": {"description": "Unauthorized"}});
        for (code, text) in operation.codes {
            let body = content(operation.produces, operation.response.as_deref());
            responses[*code] = json!({"description": text, "content": body});
        }
        let query = operation.query.iter();
        let query: Vec<Value> =
            query.map(|(name, ty)| parameter(name, ty, "query", query_text(texts, name))).collect();
        let mut entry = json!({
            "tags": [endpoint.tag],
            "description": operation.description,
            "operationId": operation.id,
            "parameters": query,
            "responses": responses,
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.gvk,
        });
        if let Some(body) = &operation.body {
            entry["requestBody"] = json!({"content": content(operation.consumes, Some(body))});
            if operation.body_required {
                entry["requestBody"]["required"] = true.into();
            }
        }
        item.insert(operation.method.to_owned(), entry);
    }
    let mut parameters: Vec<Value> = endpoint
        .parameters
        .iter()
        .map(|name| parameter(name, "string", "path", Some(path_text(endpoint, name))))
        .collect();
    parameters.push(parameter("pretty", "string", "query", Some(PRETTY.to_owned())));
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

fn v2_path_item(endpoint: &Endpoint, texts: &Texts) -> Value {
    let parameter = |name: &str, ty: &str, place: &str, text: Option<String>| {
        let mut parameter = json!({"name": name, "in": place, "type": ty, "uniqueItems": true});
        if place == "path" {
            parameter["required"] = true.into();
        }
        if let Some(text) = text {
            parameter["description"] = text.into();
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
        let query = operation.query.iter();
        parameters.extend(query.map(|(name, ty)| parameter(name, ty, "query", query_text(texts, name))));
        let mut responses = json!({"401": {"description": "Unauthorized"}});
        for (code, text) in operation.codes {
            let schema = operation.response.as_deref().map_or_else(|| json!({"type": "string"}), reference);
            responses[*code] = json!({"description": text, "schema": schema});
        }
        let entry = json!({
            "tags": [endpoint.tag],
            "description": operation.description,
            "operationId": operation.id,
            "consumes": operation.consumes,
            "produces": operation.produces,
            "schemes": ["https"],
            "parameters": parameters,
            "responses": responses,
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.gvk,
        });
        item.insert(operation.method.to_owned(), entry);
    }
    let mut parameters: Vec<Value> = endpoint
        .parameters
        .iter()
        .map(|name| parameter(name, "string", "path", Some(path_text(endpoint, name))))
        .collect();
    parameters.push(parameter("pretty", "string", "query", Some(PRETTY.to_owned())));
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

#[cfg(test)]
mod tests;
