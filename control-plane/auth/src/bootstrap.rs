//! The roles and bindings every cluster starts with, as upstream has them.
//!
//! They are made at start and repaired when a right of theirs is missing (an object whose annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone). Labels mark them, so that
//! people know not to edit them. `admin`, `edit` and `view` are aggregated: labelled roles of others
//! add to them.

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};

use crate::authorization::rbac::{aggregate, missing_rules};

mod cluster;
mod controllers;
mod namespaced;
mod people;
mod rules;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// All of them, roles before their bindings.
pub fn objects() -> Vec<Value> {
    let mut roles = people::roles();
    roles.extend(cluster::roles());
    roles.extend(controllers::roles());
    fill_aggregated(&mut roles);
    roles.extend(namespaced::roles());
    roles.extend(people::bindings());
    roles.extend(cluster::bindings());
    roles.extend(controllers::bindings());
    roles.extend(namespaced::bindings());
    roles
}

/// What to store in place of an object that is there already: `None` when it has all it should.
/// Rights and subjects that people added stay.
pub fn repaired(stored: &Value, wanted: &Value) -> Option<Value> {
    let annotation =
        |object: &Value| object.pointer("/metadata/annotations").and_then(|all| all.get(AUTOUPDATE)).cloned();
    if annotation(stored) == Some(Value::from("false")) {
        return None;
    }
    let mut repaired = stored.clone();
    let mut changed = false;
    if wanted.get("aggregationRule").is_some() {
        if stored.get("aggregationRule") != wanted.get("aggregationRule") {
            repaired["aggregationRule"] = wanted["aggregationRule"].clone();
            changed = true;
        }
    } else if let Some(rules) = wanted.get("rules") {
        let read = |value: Option<&Value>| -> Vec<k8s_openapi::api::rbac::v1::PolicyRule> {
            value.and_then(|rules| serde_json::from_value(rules.clone()).ok()).unwrap_or_default()
        };
        let missing = missing_rules(&read(stored.get("rules")), &read(Some(rules)));
        if !missing.is_empty() {
            let mut all = stored.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
            all.extend(missing.iter().filter_map(|rule| serde_json::to_value(rule).ok()));
            repaired["rules"] = Value::Array(all);
            changed = true;
        }
    }
    if let Some(subjects) = wanted.get("subjects").and_then(Value::as_array) {
        let mut all = stored.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<Value> = subjects.iter().filter(|subject| !all.contains(subject)).cloned().collect();
        if !missing.is_empty() {
            all.extend(missing);
            repaired["subjects"] = Value::Array(all);
            changed = true;
        }
    }
    changed.then_some(repaired)
}

/// Aggregated roles show the rules they have, so that nobody waits for a controller to write them.
fn fill_aggregated(roles: &mut [Value]) {
    let typed: Vec<ClusterRole> =
        roles.iter().filter_map(|role| serde_json::from_value(role.clone()).ok()).collect();
    for role in roles.iter_mut().filter(|role| role.get("aggregationRule").is_some()) {
        let own =
            typed.iter().find(|other| other.metadata.name.as_deref() == role["metadata"]["name"].as_str());
        if let Some(Ok(rules)) = own.map(|own| serde_json::to_value(aggregate(own, &typed))) {
            role["rules"] = rules;
        }
    }
}

fn metadata(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut all = serde_json::Map::new();
    all.insert("kubernetes.io/bootstrapping".into(), "rbac-defaults".into());
    for (key, value) in labels {
        all.insert((*key).to_owned(), (*value).into());
    }
    json!({ "name": name, "labels": all, "annotations": { AUTOUPDATE: "true" } })
}

fn cluster_role(name: &str, labels: &[(&str, &str)], rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": metadata(name, labels),
        "rules": Value::Array(rules),
    })
}

fn cluster_binding(name: &str, role: &str, subjects: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata(name, &[]),
        "roleRef": role_ref("ClusterRole", role),
        "subjects": Value::Array(subjects),
    })
}

fn role_ref(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

fn group(name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name })
}

fn user(name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name })
}

fn service_account(namespace: &str, name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name })
}

/// What every node may do, typed, for the Node authorizer.
pub(crate) fn node_rules() -> Vec<k8s_openapi::api::rbac::v1::PolicyRule> {
    cluster::node().into_iter().filter_map(|rule| serde_json::from_value(rule).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use skep_api::user::UserInfo;

    use super::*;
    use crate::authorization::Attributes;
    use crate::authorization::rbac::{Objects, Snapshot};

    fn snapshot() -> Snapshot {
        Snapshot::new(&Objects::from_values(&objects()))
    }

    #[test]
    fn every_object_is_readable_unique_and_its_role_exists() {
        let all = objects();
        let read = Objects::from_values(&all);
        let counted = read.cluster_roles.len()
            + read.roles.len()
            + read.cluster_role_bindings.len()
            + read.role_bindings.len();
        assert_eq!(counted, all.len());
        let id = |object: &Value| {
            let text = |path| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
        };
        let ids: BTreeSet<_> = all.iter().map(id).collect();
        assert_eq!(ids.len(), all.len());
        for binding in &read.cluster_role_bindings {
            let role = ("ClusterRole".to_owned(), String::new(), binding.role_ref.name.clone());
            assert!(ids.contains(&role), "{}", binding.role_ref.name);
        }
    }

    #[test]
    fn people_have_what_their_role_says() {
        let mut all = objects();
        for (role, name) in [("admin", "ada"), ("edit", "eve"), ("view", "vic")] {
            let mut binding = cluster_binding(name, role, vec![user(name)]);
            binding["kind"] = "RoleBinding".into();
            binding["metadata"]["namespace"] = "team".into();
            all.push(binding);
        }
        let snapshot = Snapshot::new(&Objects::from_values(&all));
        let may = |name: &str, verb: &str, group: &str, resource: &str, namespace: &str| {
            let user = UserInfo::new(name, ["system:authenticated"]);
            let attributes =
                Attributes { namespace, ..Attributes::for_resource(&user, verb, group, resource) };
            snapshot.decide(&attributes).allowed()
        };
        assert!(may("vic", "list", "", "pods", "team"));
        assert!(!may("vic", "get", "", "secrets", "team"));
        assert!(!may("vic", "list", "", "pods", "other"));
        assert!(may("eve", "create", "apps", "deployments", "team"));
        assert!(may("eve", "get", "", "secrets", "team"));
        assert!(!may("eve", "create", "rbac.authorization.k8s.io", "rolebindings", "team"));
        assert!(may("ada", "create", "rbac.authorization.k8s.io", "rolebindings", "team"));
        assert!(may("vic", "create", "authorization.k8s.io", "selfsubjectaccessreviews", ""));
        assert!(may("system:kube-controller-manager", "update", "apps", "deployments", "a"));
        assert!(may("system:kube-controller-manager", "create", "", "pods", "a"));
        assert!(!may("system:kube-scheduler", "create", "", "secrets", "a"));
    }

    #[test]
    fn anyone_reads_the_version_and_only_users_discover() {
        let snapshot = snapshot();
        let anonymous = crate::authentication::anonymous();
        let user = UserInfo::new("u", [""; 0]);
        let may = |who, path| snapshot.decide(&Attributes::for_path(who, "get", path)).allowed();
        assert!(may(&anonymous, "/version"));
        assert!(!may(&anonymous, "/apis"));
        assert!(may(&user, "/apis/apps/v1"));
        assert!(!may(&user, "/metrics"));
    }

    #[test]
    fn a_missing_right_is_repaired_and_added_ones_stay() {
        let wanted = cluster_role("r", &[], vec![rules::on("", "pods", "get list")]);
        let mut stored = wanted.clone();
        assert_eq!(repaired(&stored, &wanted), None);
        stored["rules"] = json!([rules::on("", "pods", "get"), rules::on("", "nodes", "get")]);
        let fixed = repaired(&stored, &wanted).expect("needs repair");
        assert_eq!(fixed["rules"].as_array().map(Vec::len), Some(3));
        assert_eq!(repaired(&fixed, &wanted), None);
        stored["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(repaired(&stored, &wanted), None);
    }
}
