//! Kinds that are questions: posted, answered, never kept.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::{cluster, namespaced};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Storage, Strategy};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// A question about the whole cluster.
const fn question(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    strategy: &'static dyn Strategy,
) -> KindRow {
    KindRow { verbs: &["create"], storage: Storage::Virtual, ..cluster(group, "v1", kind, plural, strategy) }
}

/// TokenReview.
pub(super) static TOKEN: KindRow =
    question(AUTHENTICATION, "TokenReview", "tokenreviews", &Requires(&["token"]));
/// SelfSubjectReview.
pub(super) static SELF: KindRow =
    question(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", &Requires(&[]));
/// SubjectAccessReview.
pub(super) static ACCESS: KindRow =
    question(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews", &Access { subject: true });
/// SelfSubjectAccessReview.
pub(super) static SELF_ACCESS: KindRow = question(
    AUTHORIZATION,
    "SelfSubjectAccessReview",
    "selfsubjectaccessreviews",
    &Access { subject: false },
);
/// SelfSubjectRulesReview.
pub(super) static SELF_RULES: KindRow =
    question(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews", &Requires(&["namespace"]));
/// LocalSubjectAccessReview.
pub(super) static LOCAL_ACCESS: KindRow = KindRow {
    verbs: &["create"],
    storage: Storage::Virtual,
    ..namespaced(
        AUTHORIZATION,
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        &Access { subject: true },
    )
};
/// Binding, posted to a namespace rather than to a pod.
pub(super) static BINDING: KindRow = KindRow {
    verbs: &["create"],
    storage: Storage::Virtual,
    ..namespaced("", "v1", "Binding", "bindings", &Requires(&[]))
};

/// ComponentStatus: nothing is stored, the server looks when it is asked.
pub(super) static COMPONENT: KindRow = KindRow {
    verbs: &["get", "list"],
    short_names: &["cs"],
    deprecated: Some("deprecated in v1.19+"),
    storage: Storage::Virtual,
    ..cluster("", "v1", "ComponentStatus", "componentstatuses", &Component)
};

struct Component;

impl Strategy for Component {
    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Status"), printer::text("Message"), printer::text("Error")];
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let healthy = object.items(&["conditions"]).iter().find(|c| c.text(&["type"]) == "Healthy");
        let text = |field: &str| healthy.map_or("", |condition| condition.text(&[field]));
        let status = match text("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![object.name().into(), status.into(), text("message").into(), text("error").into()]
    }
}

struct Requires(&'static [&'static str]);

impl Strategy for Requires {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            for field in self.0 {
                root.child("spec").child(field).require();
            }
        })
    }
}

struct Access {
    subject: bool,
}

impl Strategy for Access {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let (resource, path) = (spec.child("resourceAttributes"), spec.child("nonResourceAttributes"));
            if resource.is_set() && path.is_set() {
                path.invalid("cannot be specified in combination with resourceAttributes");
            }
            if !resource.is_set() && !path.is_set() {
                resource.error(Error::invalid(
                    resource.path(),
                    Value::Null,
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified",
                ));
            }
            if self.subject && spec.child("user").is_empty() && spec.child("groups").is_empty() {
                spec.child("user").error(Error::invalid(
                    spec.child("user").path(),
                    "",
                    "at least one of user or group must be specified",
                ));
            }
        })
    }
}
