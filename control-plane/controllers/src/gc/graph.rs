//! Owners and dependents. Pure: each change answers with the uids worth looking at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::discovery::Resource;

/// Finalizer: dependents go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer: dependents stay.
pub(super) const ORPHAN: &str = "orphan";

/// An object as the graph knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) resource: Arc<Resource>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
    pub(super) orphaning: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    objects: HashMap<String, Known>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// An object is there, or has changed.
    pub(super) fn put(&mut self, resource: &Arc<Resource>, meta: &ObjectMeta) -> Vec<String> {
        let uid = meta.uid.clone().unwrap_or_default();
        let finalizer = |name: &str| meta.finalizers.iter().flatten().any(|f| f == name);
        let deleting = meta.deletion_timestamp.is_some();
        let known = Known {
            resource: resource.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: uid.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            foreground: deleting && finalizer(FOREGROUND),
            orphaning: deleting && finalizer(ORPHAN),
        };
        let old = self.objects.insert(uid.clone(), known.clone());
        let mut touched = Vec::new();
        for owner in old.iter().flat_map(|o| &o.owners) {
            if !known.owners.iter().any(|o| o.uid == owner.uid) {
                self.unlink(&owner.uid, &uid);
            }
        }
        for owner in &known.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        // Owners that wait for this object may no longer have to.
        for owner in old.iter().flat_map(|o| &o.owners) {
            let still = known
                .owners
                .iter()
                .any(|o| o.uid == owner.uid && o.block_owner_deletion == owner.block_owner_deletion);
            if !still && self.objects.get(&owner.uid).is_some_and(|o| o.foreground) {
                touched.push(owner.uid.clone());
            }
        }
        let began = known.foreground && !old.as_ref().is_some_and(|o| o.foreground);
        if began {
            touched.extend(self.dependents_of(&uid));
        }
        let owners_changed = old.as_ref().is_none_or(|o| o.owners != known.owners);
        if known.foreground || known.orphaning || owners_changed && !known.owners.is_empty() {
            touched.push(uid);
        }
        touched
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, meta: &ObjectMeta) -> Vec<String> {
        let uid = meta.uid.clone().unwrap_or_default();
        let Some(old) = self.objects.remove(&uid) else { return Vec::new() };
        let mut touched = self.dependents_of(&uid);
        for owner in &old.owners {
            self.unlink(&owner.uid, &uid);
            if self.objects.get(&owner.uid).is_some_and(|o| o.foreground) {
                touched.push(owner.uid.clone());
            }
        }
        touched
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// An object.
    pub(super) fn get(&self, uid: &str) -> Option<&Known> {
        self.objects.get(uid)
    }

    /// The uids of its dependents.
    pub(super) fn dependents_of(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The dependents that an owner deleted in the foreground waits for.
    pub(super) fn blocking(&self, uid: &str) -> Vec<String> {
        let blocks = |dependent: &String| {
            self.objects.get(dependent).is_some_and(|d| {
                d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
            })
        };
        self.dependents_of(uid).into_iter().filter(blocks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use skep_api::resource::GroupVersionResource;

    fn resource() -> Arc<Resource> {
        let gvr = GroupVersionResource::new("", "v1", "pods");
        Arc::new(Resource { gvr, kind: "Pod".into(), namespaced: true, verbs: Vec::new() })
    }

    fn meta(uid: &str, owners: &[&str], finalizers: &[&str]) -> ObjectMeta {
        let owners: Vec<_> = owners
            .iter()
            .map(|o| json!({"apiVersion": "v1", "kind": "Pod", "name": o, "uid": o, "blockOwnerDeletion": true}))
            .collect();
        let deleted = (!finalizers.is_empty()).then_some("2026-01-01T00:00:00Z");
        let meta = json!({"uid": uid, "name": uid, "ownerReferences": owners, "finalizers": finalizers, "deletionTimestamp": deleted});
        serde_json::from_value(meta).expect("meta")
    }

    #[test]
    fn an_owner_that_goes_touches_its_dependents() {
        let mut graph = Graph::default();
        assert!(graph.put(&resource(), &meta("owner", &[], &[])).is_empty());
        assert_eq!(graph.put(&resource(), &meta("a", &["owner"], &[])), ["a"]);
        assert_eq!(graph.put(&resource(), &meta("a", &["owner"], &[])), Vec::<String>::new());
        assert_eq!(graph.remove(&meta("owner", &[], &[])), ["a"]);
    }

    #[test]
    fn a_foreground_owner_waits_for_those_that_block() {
        let mut graph = Graph::default();
        graph.put(&resource(), &meta("owner", &[], &[]));
        graph.put(&resource(), &meta("a", &["owner"], &[]));
        let mut touched = graph.put(&resource(), &meta("owner", &[], &[FOREGROUND]));
        touched.sort();
        assert_eq!(touched, ["a", "owner"]);
        assert_eq!(graph.blocking("owner"), ["a"]);
        assert_eq!(graph.remove(&meta("a", &["owner"], &[])), ["owner"]);
        assert!(graph.blocking("owner").is_empty());
    }
}
