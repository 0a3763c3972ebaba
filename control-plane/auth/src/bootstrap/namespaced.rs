//! Roles that hold in kube-system and kube-public only.

use serde_json::{Value, json};

use super::rules::{READ, leader, on, on_named};
use super::{metadata, role_ref, service_account, user};

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";
/// Machines that are about to join read it before they can say who they are.
const CLUSTER_INFO: &str = "kubeadm:bootstrap-signer-clusterinfo";

fn role(namespace: &str, name: &str, rules: &[Value]) -> Value {
    let mut metadata = metadata(name, &[]);
    metadata["namespace"] = namespace.into();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": rules,
    })
}

fn binding(namespace: &str, name: &str, role: &str, subjects: &[Value]) -> Value {
    let mut metadata = metadata(name, &[]);
    metadata["namespace"] = namespace.into();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": role_ref("Role", role),
        "subjects": subjects,
    })
}

pub(super) fn roles() -> Vec<Value> {
    let authentication = [on_named("", "configmaps", "extension-apiserver-authentication", "get list watch")];
    let manager = [leader("kube-controller-manager"), vec![on("", "configmaps", READ)]].concat();
    vec![
        role(SYSTEM, "extension-apiserver-authentication-reader", &authentication),
        role(SYSTEM, "system::leader-locking-kube-controller-manager", &manager),
        role(
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            &[leader("kube-scheduler"), vec![on("", "configmaps", READ)]].concat(),
        ),
        role(SYSTEM, "system:controller:bootstrap-signer", &[on("", "secrets", READ)]),
        role(SYSTEM, "system:controller:token-cleaner", &[on("", "secrets", "delete get list watch")]),
        role(
            PUBLIC,
            "system:controller:bootstrap-signer",
            &[on("", "configmaps", READ), on_named("", "configmaps", "cluster-info", "update")],
        ),
        role(PUBLIC, CLUSTER_INFO, &[on_named("", "configmaps", "cluster-info", "get")]),
    ]
}

pub(super) fn bindings() -> Vec<Value> {
    let manager = || user("system:kube-controller-manager");
    let scheduler = || user("system:kube-scheduler");
    vec![
        binding(
            SYSTEM,
            "system::extension-apiserver-authentication-reader",
            "extension-apiserver-authentication-reader",
            &[manager(), scheduler()],
        ),
        binding(
            SYSTEM,
            "system::leader-locking-kube-controller-manager",
            "system::leader-locking-kube-controller-manager",
            &[manager()],
        ),
        binding(
            SYSTEM,
            "system::leader-locking-kube-scheduler",
            "system::leader-locking-kube-scheduler",
            &[scheduler()],
        ),
        binding(
            SYSTEM,
            "system:controller:bootstrap-signer",
            "system:controller:bootstrap-signer",
            &[service_account(SYSTEM, "bootstrap-signer"), manager()],
        ),
        binding(
            SYSTEM,
            "system:controller:token-cleaner",
            "system:controller:token-cleaner",
            &[service_account(SYSTEM, "token-cleaner"), manager()],
        ),
        binding(
            PUBLIC,
            "system:controller:bootstrap-signer",
            "system:controller:bootstrap-signer",
            &[service_account(SYSTEM, "bootstrap-signer"), manager()],
        ),
        binding(PUBLIC, CLUSTER_INFO, CLUSTER_INFO, &[user("system:anonymous")]),
    ]
}
