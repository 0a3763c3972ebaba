//! Kinds with few rules or none of their own: templates, revisions, runtime classes.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::resources::overhead;
use super::pod::spec::{template, tolerations};
use super::pod::warnings;
use super::workload;
use super::{cluster, namespaced};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// PodTemplate.
pub(super) static POD_TEMPLATE: KindRow = KindRow {
    generation: &["template"],
    ..namespaced("", "v1", "PodTemplate", "podtemplates", &PodTemplate)
};
/// ControllerRevision.
pub(super) static CONTROLLER_REVISION: KindRow =
    namespaced("apps", "v1", "ControllerRevision", "controllerrevisions", &Revision);
/// RuntimeClass.
pub(super) static RUNTIME_CLASS: KindRow =
    cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", &RuntimeClass);

struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["template"], false);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| template(&root.child("template")))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::template(object, old, "template")
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Containers"),
            printer::text("Images"),
            printer::text("Pod Labels"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let [names, images] = printer::containers(&object["template"]);
        let labels = printer::labels(object.map(&["template", "metadata", "labels"]));
        vec![object.name().into(), names, images, labels.into()]
    }
}

struct Revision;

impl Strategy for Revision {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            root.child("revision").non_negative();
        })
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = self.validate(object);
        errors.extend(check(object, |root| {
            let data = root.child("data");
            if !data.is_set() {
                data.required("data is mandatory");
            } else if !data.value().is_object() {
                data.required("data must be a valid JSON object");
            }
        }));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            root.child("data").immutable(old.get("data").unwrap_or(&Value::Null));
        }));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Controller"), printer::text("Revision"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owner = object.owner_references().into_iter().find(|o| o.controller == Some(true));
        let controller = owner.map_or_else(
            || "<none>".to_owned(),
            |o| {
                let group = o.api_version.split_once('/').map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", o.kind.to_lowercase(), o.name)
            },
        );
        let revision = object.int(&["revision"]).unwrap_or(0);
        vec![object.name().into(), controller.into(), revision.into(), printer::age(object, now)]
    }
}

struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            root.child("handler").require_named(names::dns1123_label);
            overhead(&root.child("overhead").child("podFixed").told_at(root.path().child("overhead")));
            let scheduling = root.child("scheduling");
            scheduling.child("nodeSelector").labels();
            let list = scheduling.child("tolerations");
            tolerations(&list);
            let mut taken: Vec<[&str; 4]> = Vec::new();
            for toleration in list.items() {
                let keys = ["key", "operator", "value", "effect"].map(|field| toleration.child(field).text());
                if taken.contains(&keys) {
                    toleration.duplicate();
                }
                taken.push(keys);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            root.child("handler").immutable(old.get("handler").unwrap_or(&Value::Null));
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let keys = object.map(&["scheduling", "nodeSelector"]).into_iter().flat_map(|map| map.keys());
        let fates = keys.filter_map(|key| warnings::deprecated_label(key));
        fates.map(|fate| format!("scheduling.nodeSelector: {fate}")).collect()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Handler"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.text(&["handler"]).into(), printer::age(object, now)]
    }
}
