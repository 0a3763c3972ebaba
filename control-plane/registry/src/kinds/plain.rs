//! Kinds with few rules or none of their own: templates, revisions, runtime classes.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

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
        workload::default_template(object, &["template"]);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| template(&root.child("template")))
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, "template")
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
            let data = root.child("data");
            if !data.is_set() {
                data.required("data is mandatory");
            }
            root.child("revision").non_negative();
        })
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
            let scheduling = root.child("scheduling");
            scheduling.child("nodeSelector").labels();
            tolerations(&scheduling.child("tolerations"));
            let mut taken: Vec<&Value> = Vec::new();
            for toleration in scheduling.child("tolerations").items() {
                if taken.contains(&toleration.value()) {
                    toleration.duplicate();
                }
                taken.push(toleration.value());
            }
            for (_, amount) in root.down(&["overhead", "podFixed"]).entries() {
                if amount.quantity().is_some_and(|quantity| quantity.sign() < 0) {
                    amount.invalid("must be greater than or equal to 0");
                }
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            root.child("handler").immutable(old.get("handler").unwrap_or(&Value::Null));
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Handler"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.text(&["handler"]).into(), printer::age(object, now)]
    }
}
