//! What discovery and OpenAPI are told of a served kind.

use skep_api::resource::{GroupVersionKind, GroupVersionResource};

/// One served resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindInfo {
    /// Its kind.
    pub gvk: GroupVersionKind,
    /// Plural resource name.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, `all` for one.
    pub categories: Vec<String>,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Verbs, as discovery spells them.
    pub verbs: Vec<String>,
    /// Subresources.
    pub subresources: Vec<SubresourceInfo>,
    /// The schema of a kind that is not in the table (a custom resource), OpenAPI v3; `None` for built-ins.
    pub schema: Option<serde_json::Value>,
}

/// One subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubresourceInfo {
    /// Name, `status`.
    pub name: String,
    /// The kind it answers with.
    pub gvk: GroupVersionKind,
    /// Verbs.
    pub verbs: Vec<String>,
}

impl KindInfo {
    /// The resource.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(&self.gvk.group, &self.gvk.version, &self.plural)
    }

    /// Whether the verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|other| other == verb)
    }
}

/// Kinds a deletion of which answers with the object; of the others it answers with a `Status`.
const RETURNS_DELETED: [(&str, &str); 16] = [
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "ResourceQuota"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourceClaimTemplate"),
    ("resource.k8s.io", "ResourceSlice"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];

/// Whether the deletion of an object of this kind answers with the object itself.
pub fn returns_deleted(gvk: &GroupVersionKind) -> bool {
    RETURNS_DELETED.contains(&(gvk.group.as_str(), gvk.kind.as_str()))
}
