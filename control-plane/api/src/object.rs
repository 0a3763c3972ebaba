//! Metadata of dynamic objects.
//!
//! An object is a `serde_json::Value` holding a JSON object. Readers treat a missing field, `null` and a
//! wrong type alike as absent (decoding has checked types before); setters create what they need.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value};

use crate::resource::GroupVersionKind;

/// Access to the metadata of an object, and paths below it.
pub trait ObjectExt {
    /// The value at a path of field names.
    fn at(&self, path: &[&str]) -> Option<&Value>;
    /// The non-empty string at a path, else the empty string.
    fn text(&self, path: &[&str]) -> &str;
    /// The integer at a path.
    fn int(&self, path: &[&str]) -> Option<i64>;
    /// The boolean at a path; false when absent.
    fn flag(&self, path: &[&str]) -> bool;
    /// The items of the list at a path; none when absent.
    fn items(&self, path: &[&str]) -> &[Value];
    /// The map at a path.
    fn map(&self, path: &[&str]) -> Option<&Map<String, Value>>;
    /// Sets the value at a path, making the objects on the way.
    fn set(&mut self, path: &[&str], value: impl Into<Value>);
    /// Removes the value at a path.
    fn unset(&mut self, path: &[&str]) -> Option<Value>;

    /// `apiVersion` and `kind`.
    fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::from_api_version(self.text(&["apiVersion"]), self.text(&["kind"]))
    }
    /// Sets `apiVersion` and `kind`.
    fn set_gvk(&mut self, gvk: &GroupVersionKind) {
        self.set(&["apiVersion"], gvk.api_version());
        self.set(&["kind"], gvk.kind.as_str());
    }
    /// `metadata.name`, empty when absent.
    fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }
    /// `metadata.generateName`, empty when absent.
    fn generate_name(&self) -> &str {
        self.text(&["metadata", "generateName"])
    }
    /// `metadata.namespace`, empty when absent.
    fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }
    /// `metadata.uid`, empty when absent.
    fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }
    /// `metadata.resourceVersion`, empty when absent.
    fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }
    /// `metadata.generation`, 0 when absent.
    fn generation(&self) -> i64 {
        self.int(&["metadata", "generation"]).unwrap_or(0)
    }
    /// `metadata.labels`.
    fn labels(&self) -> Option<&Map<String, Value>> {
        self.map(&["metadata", "labels"])
    }
    /// One label.
    fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }
    /// `metadata.annotations`.
    fn annotations(&self) -> Option<&Map<String, Value>> {
        self.map(&["metadata", "annotations"])
    }
    /// One annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations()?.get(key)?.as_str()
    }
    /// `metadata.finalizers`.
    fn finalizers(&self) -> Vec<&str> {
        self.items(&["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
    }
    /// `metadata.ownerReferences`; a malformed reference is left out.
    fn owner_references(&self) -> Vec<OwnerReference> {
        let items = self.items(&["metadata", "ownerReferences"]).iter();
        items.filter_map(|item| serde_json::from_value(item.clone()).ok()).collect()
    }
    /// `metadata.creationTimestamp`.
    fn creation_timestamp(&self) -> Option<&str> {
        self.at(&["metadata", "creationTimestamp"])?.as_str()
    }
    /// `metadata.deletionTimestamp`: set when deletion has begun.
    fn deletion_timestamp(&self) -> Option<&str> {
        self.at(&["metadata", "deletionTimestamp"])?.as_str()
    }
    /// `metadata.deletionGracePeriodSeconds`.
    fn deletion_grace_period(&self) -> Option<i64> {
        self.int(&["metadata", "deletionGracePeriodSeconds"])
    }
    /// Sets `metadata.name`.
    fn set_name(&mut self, name: &str) {
        self.set(&["metadata", "name"], name);
    }
    /// Sets `metadata.namespace`; the empty string removes it.
    fn set_namespace(&mut self, namespace: &str) {
        if namespace.is_empty() {
            self.unset(&["metadata", "namespace"]);
        } else {
            self.set(&["metadata", "namespace"], namespace);
        }
    }
    /// Sets `metadata.uid`.
    fn set_uid(&mut self, uid: &str) {
        self.set(&["metadata", "uid"], uid);
    }
    /// Sets `metadata.resourceVersion`; the empty string removes it.
    fn set_resource_version(&mut self, version: &str) {
        if version.is_empty() {
            self.unset(&["metadata", "resourceVersion"]);
        } else {
            self.set(&["metadata", "resourceVersion"], version);
        }
    }
    /// Sets `metadata.generation`.
    fn set_generation(&mut self, generation: i64) {
        self.set(&["metadata", "generation"], generation);
    }
    /// Sets one label.
    fn set_label(&mut self, key: &str, value: &str) {
        self.set(&["metadata", "labels", key], value);
    }
    /// Sets one annotation.
    fn set_annotation(&mut self, key: &str, value: &str) {
        self.set(&["metadata", "annotations", key], value);
    }
    /// Sets `metadata.finalizers`; none removes the field.
    fn set_finalizers(&mut self, finalizers: &[&str]) {
        if finalizers.is_empty() {
            self.unset(&["metadata", "finalizers"]);
        } else {
            self.set(&["metadata", "finalizers"], finalizers.to_vec());
        }
    }
    /// Sets `metadata.creationTimestamp` (RFC 3339, seconds).
    fn set_creation_timestamp(&mut self, time: &str) {
        self.set(&["metadata", "creationTimestamp"], time);
    }
    /// Sets `metadata.deletionTimestamp` and `deletionGracePeriodSeconds`.
    fn set_deletion(&mut self, time: &str, grace_seconds: i64) {
        self.set(&["metadata", "deletionTimestamp"], time);
        self.set(&["metadata", "deletionGracePeriodSeconds"], grace_seconds);
    }
}

impl ObjectExt for Value {
    fn at(&self, path: &[&str]) -> Option<&Value> {
        let mut here = self;
        for step in path {
            here = here.get(step)?;
        }
        (!here.is_null()).then_some(here)
    }

    fn text(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    fn int(&self, path: &[&str]) -> Option<i64> {
        self.at(path)?.as_i64()
    }

    fn flag(&self, path: &[&str]) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or(false)
    }

    fn items(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn map(&self, path: &[&str]) -> Option<&Map<String, Value>> {
        self.at(path)?.as_object()
    }

    fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        let mut here = self;
        for step in path {
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            // Indexing a JSON object by an absent key inserts null.
            here = &mut here[*step];
        }
        *here = value.into();
    }

    fn unset(&mut self, path: &[&str]) -> Option<Value> {
        let (last, way) = path.split_last()?;
        let mut here = self;
        for step in way {
            here = here.get_mut(step)?;
        }
        here.as_object_mut()?.remove(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": null});
        assert_eq!(pod.name(), "");
        pod.set_name("a");
        pod.set_label("app", "x");
        pod.set_finalizers(&["f"]);
        pod.set_resource_version("7");
        assert_eq!(pod.name(), "a");
        assert_eq!(pod.label("app"), Some("x"));
        assert_eq!(pod.finalizers(), ["f"]);
        assert_eq!(pod.gvk().kind, "Pod");
        pod.set_resource_version("");
        pod.set_finalizers(&[]);
        assert_eq!(
            pod,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"app": "x"}}})
        );
    }

    #[test]
    fn absent_null_and_wrong_types_read_as_absent() {
        let object = json!({"metadata": {"name": 3, "labels": null, "finalizers": "x"}});
        assert_eq!(object.name(), "");
        assert!(object.labels().is_none());
        assert!(object.finalizers().is_empty());
        assert!(object.owner_references().is_empty());
    }
}
