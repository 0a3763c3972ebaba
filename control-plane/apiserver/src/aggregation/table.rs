//! The APIServices in effect: who serves which group-version, and in which order they are told. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};
use skep_api::object::ObjectExt;
use skep_machinery::discovery::compare_versions;

use super::priorities::{self, Priority};

/// This server's own group, which is registered nowhere and told first.
pub(super) const OWN_GROUP: &str = "apiregistration.k8s.io";

/// A group and a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupVersion {
    pub(crate) group: String,
    pub(crate) version: String,
}

impl GroupVersion {
    pub(crate) fn new(group: &str, version: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned() }
    }

    /// Where it is served.
    pub(crate) fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The name of its APIService.
    pub(super) fn service_name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }

    /// Of a path `/api/V…` or `/apis/G/V…`.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let mut parts = path.trim_start_matches('/').split('/');
        let (group, version) = match parts.next()? {
            "api" => ("", parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        (!version.is_empty()).then(|| Self::new(group, version))
    }
}

/// A service of the cluster that an extension server is behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reference {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl Reference {
    fn of(spec: &Value) -> Option<Self> {
        let service = spec.at(&["service"]).filter(|service| service.is_object())?;
        Some(Self {
            namespace: service.text(&["namespace"]).to_owned(),
            name: service.text(&["name"]).to_owned(),
            port: service.int(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
        })
    }
}

/// One APIService.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: GroupVersion,
    pub(crate) priority: Priority,
    /// Who serves it; none is this server.
    pub(crate) service: Option<Reference>,
    pub(crate) available: bool,
    pub(crate) object: Arc<Value>,
}

impl Entry {
    pub(super) fn new(object: &Arc<Value>) -> Self {
        let spec = object.get("spec").cloned().unwrap_or_default();
        let number = |name: &str| spec.int(&[name]).unwrap_or_default();
        Self {
            at: GroupVersion::new(spec.text(&["group"]), spec.text(&["version"])),
            priority: Priority { group: number("groupPriorityMinimum"), version: number("versionPriority") },
            service: Reference::of(&spec),
            available: condition(object).is_some_and(|available| available.text(&["status"]) == "True"),
            object: object.clone(),
        }
    }
}

/// The Available condition of an APIService.
pub(super) fn condition(object: &Value) -> Option<&Value> {
    object.items(&["status", "conditions"]).iter().find(|known| known.text(&["type"]) == "Available")
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<GroupVersion, Entry>,
}

impl Table {
    pub(super) fn new(objects: impl IntoIterator<Item = Arc<Value>>) -> Self {
        let entries = objects.into_iter().map(|object| Entry::new(&object));
        Self { entries: entries.map(|entry| (entry.at.clone(), entry)).collect() }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The entry of a group-version that somebody else serves.
    pub(super) fn remote(&self, at: &GroupVersion) -> Option<&Entry> {
        self.entries.get(at).filter(|entry| entry.service.is_some())
    }

    /// The entries that somebody else serves.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.service.is_some())
    }

    /// Every group with its versions, in the order in which they are told. `local` is what this server
    /// serves itself.
    pub(super) fn order(&self, local: impl IntoIterator<Item = GroupVersion>) -> Vec<(String, Vec<String>)> {
        let mut priorities: BTreeMap<GroupVersion, Priority> = local
            .into_iter()
            .map(|at| {
                let priority = priorities::built_in(&at.group, &at.version);
                (at, priority)
            })
            .collect();
        for entry in self.entries.values() {
            if entry.service.is_some() || priorities.contains_key(&entry.at) {
                priorities.insert(entry.at.clone(), entry.priority);
            }
        }
        let mut groups: BTreeMap<&str, Vec<(&str, Priority)>> = BTreeMap::new();
        for (at, priority) in &priorities {
            groups.entry(&at.group).or_default().push((&at.version, *priority));
        }
        let highest = |group: &str| {
            let versions = groups.get(group).into_iter().flatten();
            let own = (group == OWN_GROUP).then_some(i64::MAX);
            own.or_else(|| versions.map(|(_, priority)| priority.group).max()).unwrap_or_default()
        };
        let mut names: Vec<&str> = groups.keys().copied().collect();
        names.sort_by(|a, b| highest(b).cmp(&highest(a)).then_with(|| a.cmp(b)));
        names
            .into_iter()
            .map(|group| {
                let mut versions = groups.get(group).cloned().unwrap_or_default();
                versions
                    .sort_by(|a, b| b.1.version.cmp(&a.1.version).then_with(|| compare_versions(a.0, b.0)));
                (group.to_owned(), versions.into_iter().map(|(version, _)| version.to_owned()).collect())
            })
            .collect()
    }
}

/// A group as `/apis` lists it.
pub(super) fn group_entry(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(group: &str, version: &str, of_group: i64, of_version: i64, remote: bool) -> Arc<Value> {
        let mut object = json!({
            "metadata": {"name": format!("{version}.{group}")},
            "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": of_group, "versionPriority": of_version,
            },
        });
        if remote {
            object["spec"]["service"] = json!({"namespace": "n", "name": "s"});
        }
        Arc::new(object)
    }

    #[test]
    fn groups_and_versions_come_by_priority() {
        let table = Table::new([
            service("apps", "v1", 17800, 15, false),
            service("metrics.k8s.io", "v1beta1", 100, 100, true),
            service("first.example.com", "v1", 19000, 1, true),
            service("first.example.com", "v2", 19000, 1, true),
            service("first.example.com", "v1alpha1", 19000, 7, true),
            // Registered, but nobody here serves it (any more).
            service("gone.example.com", "v1", 1000, 100, false),
        ]);
        let local = [("apps", "v1"), ("", "v1"), (OWN_GROUP, "v1"), ("batch", "v1")];
        let order = table.order(local.map(|(group, version)| GroupVersion::new(group, version)));
        let text: Vec<String> =
            order.iter().map(|(group, versions)| format!("{group}:{}", versions.join(","))).collect();
        assert_eq!(
            text,
            [
                "apiregistration.k8s.io:v1",
                "first.example.com:v1alpha1,v2,v1",
                ":v1",
                "apps:v1",
                "batch:v1",
                "metrics.k8s.io:v1beta1",
            ]
        );
        let at = GroupVersion::of_path("/apis/metrics.k8s.io/v1beta1/nodes").expect("a group-version");
        assert_eq!(table.remote(&at).expect("remote").service.as_ref().expect("a service").port, 443);
        assert!(table.remote(&GroupVersion::new("apps", "v1")).is_none());
        assert_eq!(GroupVersion::of_path("/apis/apps"), None);
    }
}
