//! Discovery documents as pure functions of the served kinds: the legacy lists and the aggregated document.

use crate::kind::{KindInfo, SubresourceInfo};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

/// Version of the aggregated document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`.
    V2Beta1,
}

impl Aggregated {
    /// The version in the media type parameter `v`.
    pub fn version(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(self) -> String {
        format!("application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList", self.version())
    }
}

/// `GET /api`.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `GET /apis`.
pub fn api_group_list(kinds: &[KindInfo]) -> Value {
    let groups: Vec<Value> = groups(kinds)
        .iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| group_entry(group.name, &group.versions()))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`; `None` when nothing of that group is served.
pub fn api_group(group: &str, kinds: &[KindInfo]) -> Option<Value> {
    let found = groups(kinds).into_iter().find(|other| other.name == group)?;
    let mut entry = group_entry(group, &found.versions());
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn group_entry(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// `GET /api/v1` and `GET /apis/GROUP/VERSION`; `None` when nothing there is served.
pub fn api_resource_list(group: &str, version: &str, kinds: &[KindInfo]) -> Option<Value> {
    let mut kinds: Vec<&KindInfo> =
        kinds.iter().filter(|kind| kind.gvk.group == group && kind.gvk.version == version).collect();
    if kinds.is_empty() {
        return None;
    }
    kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
    let mut resources = Vec::new();
    for kind in kinds {
        let mut entry = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.gvk.kind,
            "verbs": kind.verbs,
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if kind.has_verb("get") {
            entry["storageVersionHash"] = storage_version_hash(kind).into();
        }
        resources.push(entry);
        let mut subresources: Vec<&SubresourceInfo> = kind.subresources.iter().collect();
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
        for sub in subresources {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub.gvk.kind,
                "verbs": sub.verbs,
            });
            if (&sub.gvk.group, &sub.gvk.version) != (&kind.gvk.group, &kind.gvk.version) {
                entry["group"] = sub.gvk.group.clone().into();
                entry["version"] = sub.gvk.version.clone().into();
            }
            resources.push(entry);
        }
    }
    let group_version = kinds_api_version(group, version);
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
}

fn kinds_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn storage_version_hash(kind: &KindInfo) -> String {
    let text = format!("{}/{}/{}", kind.gvk.group, kind.gvk.version, kind.gvk.kind);
    STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

/// The aggregated document: of the core group for `/api`, of all others for `/apis`.
pub fn aggregated(kinds: &[KindInfo], core: bool, version: Aggregated) -> Value {
    let items: Vec<Value> = groups(kinds)
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions()
                .iter()
                .map(|name| {
                    let mut kinds = group.by_version[name].clone();
                    kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
                    let resources: Vec<Value> = kinds.into_iter().map(aggregated_resource).collect();
                    json!({"version": name, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.name.is_empty() {
                metadata["name"] = group.name.into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", version.version()),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &KindInfo) -> Value {
    let response = |gvk: &skep_api::resource::GroupVersionKind| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": response(&kind.gvk),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let mut subresources: Vec<&SubresourceInfo> = kind.subresources.iter().collect();
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
        let subresources: Vec<Value> = subresources
            .into_iter()
            .map(|sub| json!({"subresource": sub.name, "responseKind": response(&sub.gvk), "verbs": sub.verbs}))
            .collect();
        entry["subresources"] = subresources.into();
    }
    entry
}

struct Group<'k> {
    name: &'k str,
    by_version: BTreeMap<&'k str, Vec<&'k KindInfo>>,
}

impl<'k> Group<'k> {
    /// Versions, the preferred one first.
    fn versions(&self) -> Vec<&'k str> {
        let mut versions: Vec<&'k str> = self.by_version.keys().copied().collect();
        versions.sort_by(|a, b| compare_versions(a, b));
        versions
    }
}

/// Groups by name, in the order in which the kinds first mention them.
fn groups(kinds: &[KindInfo]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for kind in kinds {
        let at = groups.iter().position(|group| group.name == kind.gvk.group).unwrap_or_else(|| {
            groups.push(Group { name: &kind.gvk.group, by_version: BTreeMap::new() });
            groups.len() - 1
        });
        groups[at].by_version.entry(&kind.gvk.version).or_default().push(kind);
    }
    groups
}

/// Stable before beta before alpha, then the higher number; names that are no versions last, by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => Reverse(a).cmp(&Reverse(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

fn rank(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..end].parse().ok()?;
    let (stability, minor) = match &rest[end..] {
        "" => (2, 0),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor.parse().ok()?),
            (_, Some(minor)) => (0, minor.parse().ok()?),
            _ => return None,
        },
    };
    Some((stability, major, minor))
}

#[cfg(test)]
mod tests {
    //! The shapes clients read.
    use super::*;
    use skep_api::resource::GroupVersionKind;

    fn kinds() -> Vec<KindInfo> {
        let kind = |group: &str, version: &str, kind: &str, plural: &str| KindInfo {
            gvk: GroupVersionKind::new(group, version, kind),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            namespaced: true,
            verbs: vec!["get".into(), "list".into()],
            ..KindInfo::default()
        };
        let mut pods = kind("", "v1", "Pod", "pods");
        pods.short_names = vec!["po".into()];
        pods.subresources = vec![SubresourceInfo {
            name: "eviction".into(),
            gvk: GroupVersionKind::new("policy", "v1", "Eviction"),
            verbs: vec!["create".into()],
        }];
        vec![
            pods,
            kind("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
            kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        ]
    }

    #[test]
    fn legacy_lists() {
        let groups = api_group_list(&kinds());
        assert_eq!(groups["groups"][0]["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert_eq!(groups["groups"].as_array().map(Vec::len), Some(1));
        let core = api_resource_list("", "v1", &kinds()).expect("core");
        assert_eq!(core["groupVersion"], "v1");
        assert_eq!(core["resources"][1]["name"], "pods/eviction");
        assert_eq!(core["resources"][1]["group"], "policy");
        assert!(api_resource_list("", "v2", &kinds()).is_none());
        assert!(api_group("apps", &kinds()).is_none());
    }

    #[test]
    fn aggregated_splits_core_from_the_rest() {
        let core = aggregated(&kinds(), true, Aggregated::V2);
        assert_eq!(
            core["items"][0]["versions"][0]["resources"][0]["subresources"][0]["responseKind"]["group"],
            "policy"
        );
        let rest = aggregated(&kinds(), false, Aggregated::V2Beta1);
        assert_eq!(rest["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        assert_eq!(rest["items"][0]["versions"][0]["version"], "v2");
    }

    #[test]
    fn versions_order() {
        let mut versions = ["v1beta1", "foo", "v2", "v1", "v11alpha2", "v1beta2", "v10"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v11alpha2", "foo"]);
    }
}
