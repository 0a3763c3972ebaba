//! RoleBinding and ClusterRoleBinding: who may do what a role says.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, namespaced};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, items_mut};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Rows of the table of kinds.
pub(super) static ROLE_BINDING: KindRow =
    namespaced(GROUP, "v1", "RoleBinding", "rolebindings", &Binding { namespaced: true });
/// The same everywhere.
pub(super) static CLUSTER_ROLE_BINDING: KindRow =
    cluster(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", &Binding { namespaced: false });

struct Binding {
    namespaced: bool,
}

fn subject(subject: &At<'_>, namespaced: bool) {
    let (name, group, kind) = (subject.child("name"), subject.child("apiGroup"), subject.child("kind"));
    name.require();
    let in_group = |wanted: &str| {
        if group.text() != wanted {
            group.error(Error::not_supported(group.path(), group.text(), &[wanted]));
        }
    };
    match kind.text() {
        "ServiceAccount" => {
            name.named(names::dns1123_subdomain);
            in_group("");
            if !namespaced {
                subject.child("namespace").require();
            }
        }
        "User" | "Group" => in_group(GROUP),
        other => {
            kind.error(Error::not_supported(kind.path(), other, &["ServiceAccount", "User", "Group"]));
        }
    }
}

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        default_text(object, &["roleRef", "apiGroup"], GROUP);
        for subject in items_mut(object, &["subjects"]) {
            if ["User", "Group"].contains(&subject.text(&["kind"])) {
                default_text(subject, &["apiGroup"], GROUP);
            }
        }
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::path_segment
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let role = root.child("roleRef");
            let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
            for (field, known) in [("apiGroup", &[GROUP][..]), ("kind", kinds)] {
                let here = role.child(field);
                if !known.contains(&here.text()) {
                    here.error(Error::not_supported(here.path(), here.text(), known));
                }
            }
            role.child("name").require_named(names::path_segment);
            root.child("subjects").items().iter().for_each(|s| subject(s, self.namespaced));
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let before = old.get("roleRef").unwrap_or(&Value::Null);
            root.child("roleRef").immutable_with(before, "cannot change roleRef");
        }));
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Role"),
            printer::AGE,
            printer::wide("Users"),
            printer::wide("Groups"),
            printer::wide("ServiceAccounts"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let subjects = |kind: &str| -> Value {
            let of_kind = object.items(&["subjects"]).iter().filter(|s| s.text(&["kind"]) == kind);
            let name = |s: &Value| match kind {
                "ServiceAccount" => format!("{}/{}", s.text(&["namespace"]), s.text(&["name"])),
                _ => s.text(&["name"]).to_owned(),
            };
            of_kind.map(name).collect::<Vec<_>>().join(", ").into()
        };
        vec![
            object.name().into(),
            format!("{}/{}", object.text(&["roleRef", "kind"]), object.text(&["roleRef", "name"])).into(),
            printer::age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bindings_are_checked_and_keep_their_role() {
        let mut binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
        CLUSTER_ROLE_BINDING.default(&mut binding);
        assert_eq!(
            CLUSTER_ROLE_BINDING.validate_create(&binding).lines(),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[1].namespace: Required value",
            ]
        );
        let mut other = binding.clone();
        other.set(&["roleRef", "name"], "x");
        let lines = ROLE_BINDING.strategy.validate_update(&other, &binding).lines();
        assert!(lines[0].ends_with(": cannot change roleRef"), "{lines:?}");
    }
}
