//! DefaultStorageClass and DefaultIngressClass: what names no class gets the one marked as default.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use crate::{Attributes, Operation, Plugin, Reader};

/// Which class, for which kind.
struct Rule {
    plugin: &'static str,
    group: &'static str,
    resource: &'static str,
    classes: (&'static str, &'static str),
    /// Marks a default class.
    marks: &'static [&'static str],
    field: &'static str,
    /// The field as it was before there was the field.
    annotation: &'static str,
}

static STORAGE: Rule = Rule {
    plugin: "DefaultStorageClass",
    group: "",
    resource: "persistentvolumeclaims",
    classes: ("storage.k8s.io", "storageclasses"),
    marks: &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ],
    field: "storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
};

static INGRESS: Rule = Rule {
    plugin: "DefaultIngressClass",
    group: "networking.k8s.io",
    resource: "ingresses",
    classes: ("networking.k8s.io", "ingressclasses"),
    marks: &["ingressclass.kubernetes.io/is-default-class"],
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
};

/// One of the two plug-ins.
pub struct DefaultClass {
    rule: &'static Rule,
    reader: Arc<dyn Reader>,
}

impl DefaultClass {
    /// DefaultStorageClass.
    pub fn storage(reader: Arc<dyn Reader>) -> Self {
        Self { rule: &STORAGE, reader }
    }

    /// DefaultIngressClass.
    pub fn ingress(reader: Arc<dyn Reader>) -> Self {
        Self { rule: &INGRESS, reader }
    }
}

/// The newest of those marked; of equally old ones the first by name.
fn default<'a>(classes: &'a [Arc<Value>], marks: &[&str]) -> Option<&'a Arc<Value>> {
    let marked = |class: &&Arc<Value>| marks.iter().any(|mark| class.annotation(mark) == Some("true"));
    classes.iter().filter(marked).min_by(|a, b| {
        b.creation_timestamp().cmp(&a.creation_timestamp()).then_with(|| a.name().cmp(b.name()))
    })
}

#[async_trait]
impl Plugin for DefaultClass {
    fn name(&self) -> &'static str {
        self.rule.plugin
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Create
            && gvr.group == self.rule.group
            && gvr.resource == self.rule.resource
            && subresource.is_empty()
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let Rule { classes, marks, field, annotation, .. } = *self.rule;
        let Some(object) = &mut attributes.object else { return Ok(()) };
        // An empty name is a choice too: no class at all.
        let chosen = object.at(&["spec", field]).is_some_and(|class| !class.is_null());
        if chosen || object.annotation(annotation).is_some() {
            return Ok(());
        }
        let classes = self.reader.list(&GroupVersionResource::new(classes.0, "v1", classes.1), None).await?;
        if let Some(class) = default(&classes, marks) {
            object.set(&["spec", field], class.name());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_default_wins() {
        let class = |name: &str, time: &str, mark: &str| {
            Arc::new(json!({"metadata": {"name": name, "creationTimestamp": time,
                "annotations": {"storageclass.kubernetes.io/is-default-class": mark}}}))
        };
        let old = "2026-01-01T00:00:00Z";
        let new = "2026-01-02T00:00:00Z";
        let pick =
            |classes: &[Arc<Value>]| default(classes, STORAGE.marks).map(|class| class.name().to_owned());
        assert_eq!(pick(&[class("a", old, "true"), class("b", new, "true")]).as_deref(), Some("b"));
        assert_eq!(pick(&[class("b", new, "true"), class("a", new, "true")]).as_deref(), Some("a"));
        assert_eq!(pick(&[class("a", new, "false")]), None);
    }
}
