//! What extension servers serve, as a part of this server's discovery.

use std::collections::HashMap;

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::Aggregator;
use super::table::{GroupVersion, group_entry};
use super::visit::Told;

/// Asks for aggregated discovery.
pub(super) const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// An entry that says only that the version exists.
pub(super) fn empty(version: &str) -> Value {
    json!({"version": version})
}

/// The entry of a group-version in a server's aggregated discovery.
pub(super) fn find(told: &Told, at: &GroupVersion) -> Option<Value> {
    let aggregated = told.status.is_success()
        && told.content_type.replace(' ', "").contains("g=apidiscovery.k8s.io;v=v2;");
    if !aggregated {
        return None;
    }
    let list: Value = serde_json::from_slice(&told.body).ok()?;
    let group = list.items(&["items"]).iter().find(|group| group.name() == at.group)?;
    let versions = group.items(&["versions"]);
    versions.iter().find(|version| version.text(&["version"]) == at.version).cloned()
}

/// The entry made of an `APIResourceList`, of servers that know nothing newer.
pub(super) fn of_list(version: &str, body: &[u8]) -> Value {
    let list: Value = serde_json::from_slice(body).unwrap_or_default();
    let (group, of_list) = list.text(&["groupVersion"]).split_once('/').unwrap_or(("", version));
    let mut resources: Vec<Value> = Vec::new();
    let mut below: Vec<(&str, Value)> = Vec::new();
    for resource in list.items(&["resources"]) {
        let or = |field: &str, default: &str| match resource.text(&[field]) {
            "" => default.to_owned(),
            own => own.to_owned(),
        };
        let kind = json!({
            "group": or("group", group),
            "version": or("version", of_list),
            "kind": resource.text(&["kind"]),
        });
        let verbs = resource.get("verbs").cloned().unwrap_or_else(|| json!([]));
        let name = resource.text(&["name"]);
        if let Some((parent, subresource)) = name.split_once('/') {
            let entry = json!({"subresource": subresource, "responseKind": kind, "verbs": verbs});
            below.push((parent, entry));
            continue;
        }
        let namespaced = resource.flag(&["namespaced"]);
        let mut entry = json!({
            "resource": name,
            "responseKind": kind,
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": resource.text(&["singularName"]),
            "verbs": verbs,
        });
        for field in ["shortNames", "categories"] {
            if let Some(values) = resource.get(field) {
                entry[field] = values.clone();
            }
        }
        resources.push(entry);
    }
    for (parent, entry) in below {
        let parent = resources.iter_mut().find(|resource| resource.text(&["resource"]) == parent);
        let Some(parent) = parent else { continue };
        match parent.get_mut("subresources").and_then(Value::as_array_mut) {
            Some(subresources) => subresources.push(entry),
            None => parent["subresources"] = json!([entry]),
        }
    }
    json!({"version": version, "resources": resources})
}

impl Aggregator {
    /// `/apis`, with the groups of extension servers, in order. `list` is this server's own.
    pub(crate) fn group_list(&self, mut list: Value) -> Value {
        let local = list.items(&["groups"]).iter().flat_map(versions_of);
        let order = self.state.load().table.order(local);
        let groups: Vec<Value> = order.iter().map(|(group, versions)| group_entry(group, versions)).collect();
        list["groups"] = groups.into();
        list
    }

    /// `/apis/GROUP`; `local` is this server's own answer.
    pub(crate) fn group(&self, group: &str, local: Option<Value>) -> Option<Value> {
        let state = self.state.load();
        if !state.table.remotes().any(|entry| entry.at.group == group) {
            return local;
        }
        let order = state.table.order(local.iter().flat_map(versions_of));
        let (group, versions) = order.iter().find(|(name, _)| name == group)?;
        let mut entry = group_entry(group, versions);
        entry["kind"] = json!("APIGroup");
        entry["apiVersion"] = json!("v1");
        Some(entry)
    }

    /// Aggregated discovery, with what extension servers told last.
    pub(crate) fn aggregated(&self, mut list: Value) -> Value {
        let state = self.state.load();
        let documents = self.documents.load();
        let mut entries: HashMap<GroupVersion, Value> = HashMap::new();
        let mut metadata: HashMap<String, Value> = HashMap::new();
        for group in list.items(&["items"]) {
            for version in group.items(&["versions"]) {
                entries.insert(GroupVersion::new(group.name(), version.text(&["version"])), version.clone());
            }
            metadata.insert(group.name().to_owned(), group.get("metadata").cloned().unwrap_or_default());
        }
        let local: Vec<GroupVersion> = entries.keys().cloned().collect();
        for remote in state.table.remotes() {
            let document = documents.get(&remote.at);
            let mut entry =
                document.map_or_else(|| empty(&remote.at.version), |known| known.discovery.clone());
            let current = document.is_some_and(|known| known.current);
            entry["freshness"] = json!(if current { "Current" } else { "Stale" });
            entries.insert(remote.at.clone(), entry);
        }
        let order = state.table.order(local);
        // The legacy group has a document of its own.
        let core = metadata.contains_key("");
        let items: Vec<Value> = order
            .into_iter()
            .filter(|(group, _)| group.is_empty() == core)
            .map(|(group, versions)| {
                let versions: Vec<Value> = versions
                    .iter()
                    .filter_map(|version| entries.remove(&GroupVersion::new(&group, version)))
                    .collect();
                let metadata = metadata
                    .remove(&group)
                    .unwrap_or_else(|| json!({"name": group, "creationTimestamp": null}));
                json!({"metadata": metadata, "versions": versions})
            })
            .collect();
        list["items"] = items.into();
        list
    }
}

/// The group-versions of a group of a legacy list.
fn versions_of(group: &Value) -> Vec<GroupVersion> {
    let name = group.text(&["name"]);
    let versions = group.items(&["versions"]).iter();
    versions.map(|version| GroupVersion::new(name, version.text(&["version"]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_list_becomes_an_entry() {
        let list = json!({"groupVersion": "metrics.k8s.io/v1beta1", "resources": [
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get"]},
            {"name": "pods", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"], "shortNames": ["pm"]},
            {"name": "pods/log", "namespaced": true, "kind": "Log", "group": "", "version": "v1", "verbs": ["get"]},
        ]});
        let entry = of_list("v1beta1", list.to_string().as_bytes());
        assert_eq!(entry["resources"][0]["scope"], "Cluster");
        assert_eq!(entry["resources"][1]["responseKind"]["group"], "metrics.k8s.io");
        assert_eq!(entry["resources"][1]["shortNames"][0], "pm");
        assert_eq!(entry["resources"][1]["subresources"][0]["responseKind"]["version"], "v1");
        assert_eq!(of_list("v1", b"no JSON")["resources"], json!([]));
    }
}
