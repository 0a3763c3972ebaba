//! What extension servers describe, as a part of this server's OpenAPI.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use skep_api::error::ApiError;
use skep_machinery::openapi;

use super::{Aggregator, Documents};

/// The merged v2 document, and what it was made of.
pub(super) struct Merged {
    of: Documents,
    /// The hash of this server's own document.
    local: String,
    json: Bytes,
    protobuf: Bytes,
}

impl Aggregator {
    /// The index of the v3 documents, with those of extension servers.
    pub(crate) fn openapi_v3_index(&self, local: &Bytes) -> Bytes {
        let documents = self.documents.load();
        let theirs: Vec<(String, &String)> = documents
            .iter()
            .filter_map(|(at, document)| {
                let url = document.openapi_v3.as_ref()?;
                Some((at.path().trim_start_matches('/').to_owned(), url))
            })
            .collect();
        let index = if theirs.is_empty() { None } else { serde_json::from_slice::<Value>(local).ok() };
        let Some(mut index) = index else { return local.clone() };
        for (path, url) in theirs {
            index["paths"][path] = json!({"serverRelativeURL": url});
        }
        index.to_string().into()
    }

    /// Does any extension server describe itself in a v2 document?
    pub(crate) fn has_openapi_v2(&self) -> bool {
        self.documents.load().values().any(|document| document.openapi_v2.is_some())
    }

    /// The v2 document as JSON and protobuf, with those of extension servers. `hash` is that of the local
    /// document, which changes with custom resources.
    pub(crate) fn openapi_v2(
        &self,
        hash: &str,
        local: impl FnOnce() -> Result<(Bytes, Bytes), ApiError>,
    ) -> Result<(Bytes, Bytes), ApiError> {
        let documents = self.documents.load_full();
        if documents.values().all(|document| document.openapi_v2.is_none()) {
            return local();
        }
        if let Some(known) = &*self.merged.load()
            && Arc::ptr_eq(&known.of, &documents)
            && known.local == hash
        {
            return Ok((known.json.clone(), known.protobuf.clone()));
        }
        let local = local()?;
        let Ok(mut whole) = serde_json::from_slice::<Value>(&local.0) else { return Ok(local) };
        // In a fixed order: the ETag must not change by itself.
        let sorted: BTreeMap<_, _> = documents.iter().collect();
        for (at, document) in sorted {
            if let Some(theirs) = &document.openapi_v2 {
                merge(&mut whole, theirs, &at.path());
            }
        }
        let json = Bytes::from(whole.to_string());
        let protobuf = Bytes::from(openapi::v2_protobuf(&whole));
        let merged =
            Merged { of: documents, local: hash.to_owned(), json: json.clone(), protobuf: protobuf.clone() };
        self.merged.store(Some(Arc::new(merged)));
        Ok((json, protobuf))
    }
}

/// Adds the paths below `prefix` of another document, and what they refer to.
fn merge(whole: &mut Value, theirs: &Value, prefix: &str) {
    let below =
        |path: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    let all = theirs.get("paths").and_then(Value::as_object);
    let mut paths: Map<String, Value> = all
        .into_iter()
        .flatten()
        .filter(|(path, _)| below(path))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let definitions = theirs.get("definitions").and_then(Value::as_object);
    let mut wanted: Vec<String> = Vec::new();
    paths.values().for_each(|item| references(item, &mut wanted));
    let mut used: BTreeMap<String, Value> = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if used.contains_key(&name) {
            continue;
        }
        let Some(definition) = definitions.and_then(|all| all.get(&name)) else { continue };
        references(definition, &mut wanted);
        used.insert(name, definition.clone());
    }
    let ours = whole.get("definitions").and_then(Value::as_object);
    let renamed: BTreeMap<String, String> = used
        .iter()
        .filter(|(name, definition)| {
            ours.and_then(|ours| ours.get(*name)).is_some_and(|own| own != *definition)
        })
        .map(|(name, _)| {
            let taken = |new: &str| used.contains_key(new) || ours.is_some_and(|ours| ours.contains_key(new));
            let new = (2_u32..).map(|n| format!("{name}_v{n}")).find(|new| !taken(new)).unwrap_or_default();
            (name.clone(), new)
        })
        .collect();
    paths.values_mut().for_each(|item| rename(item, &renamed));
    for (name, mut definition) in used {
        rename(&mut definition, &renamed);
        let name = renamed.get(&name).cloned().unwrap_or(name);
        whole["definitions"][name] = definition;
    }
    for (path, item) in paths {
        whole["paths"][path] = item;
    }
}

const REFERENCE: &str = "#/definitions/";

/// The definitions that a part of a document refers to.
fn references(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().and_then(|text| text.strip_prefix(REFERENCE)) {
                    Some(definition) if name == "$ref" => found.push(definition.to_owned()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn rename(part: &mut Value, names: &BTreeMap<String, String>) {
    match part {
        Value::Object(fields) => {
            for (name, value) in fields {
                let new = value.as_str().and_then(|text| names.get(text.strip_prefix(REFERENCE)?));
                match new {
                    Some(new) if name == "$ref" => *value = json!(format!("{REFERENCE}{new}")),
                    _ => rename(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_merged_and_clashing_definitions_renamed() {
        let mut whole = json!({
            "paths": {"/api/v1/": {}},
            "definitions": {"Meta": {"type": "object"}, "Time": {"type": "string"}},
        });
        let theirs = json!({
            "paths": {
                "/apis/e/v1/things": {"get": {"schema": {"$ref": "#/definitions/Thing"}}},
                "/apis/e/v12/others": {"get": {"schema": {"$ref": "#/definitions/Other"}}},
                "/version": {},
            },
            "definitions": {
                "Thing": {"properties": {"m": {"$ref": "#/definitions/Meta"}, "t": {"$ref": "#/definitions/Time"}}},
                "Meta": {"type": "object", "description": "another"},
                "Time": {"type": "string"},
                "Other": {},
            },
        });
        merge(&mut whole, &theirs, "/apis/e/v1");
        let paths: Vec<&String> = whole["paths"].as_object().expect("paths").keys().collect();
        assert_eq!(paths, ["/api/v1/", "/apis/e/v1/things"]);
        assert_eq!(whole["definitions"]["Thing"]["properties"]["m"]["$ref"], "#/definitions/Meta_v2");
        assert_eq!(whole["definitions"]["Meta_v2"]["description"], "another");
        assert_eq!(whole["definitions"]["Meta"], json!({"type": "object"}));
        assert_eq!(whole["definitions"].get("Other"), None);
    }
}
