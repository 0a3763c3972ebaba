//! A role for each controller.
//!
//! Each is bound to the controller's own service account in kube-system, and all of them to the user
//! `system:kube-controller-manager`, as which our controllers run in one process: together they have
//! what the single roles give, and no more.

use serde_json::Value;

use super::rules::{READ, events, on, on_named};
use super::{cluster_binding, cluster_role, service_account, user};

const MANAGER: &str = "system:kube-controller-manager";
const APPS: &str = "apps";

fn table() -> Vec<(&'static str, Vec<Value>)> {
    let finalizers = |group, resource: &str| on(group, &format!("{resource}/finalizers"), "update");
    vec![
        (
            "attachdetach-controller",
            vec![
                on("", "persistentvolumeclaims persistentvolumes", "list watch"),
                on("", "nodes", READ),
                on("", "nodes/status", "patch update"),
                on("", "pods", "list watch"),
                on("storage.k8s.io", "volumeattachments", "create delete get list watch"),
                on("storage.k8s.io", "csidrivers csinodes", READ),
            ],
        ),
        (
            "certificate-controller",
            vec![
                on("certificates.k8s.io", "certificatesigningrequests", "delete get list watch"),
                on(
                    "certificates.k8s.io",
                    "certificatesigningrequests/approval certificatesigningrequests/status",
                    "update",
                ),
                on_named(
                    "certificates.k8s.io",
                    "signers",
                    "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
                    "approve sign",
                ),
                on("authorization.k8s.io", "subjectaccessreviews", "create"),
            ],
        ),
        (
            "clusterrole-aggregation-controller",
            vec![on("rbac.authorization.k8s.io", "clusterroles", "escalate get list patch update watch")],
        ),
        (
            "cronjob-controller",
            vec![
                on("batch", "cronjobs", "get list update watch"),
                on("batch", "jobs", "create delete get list patch update watch"),
                on("batch", "cronjobs/status", "update patch"),
                finalizers("batch", "cronjobs"),
                on("", "pods", "delete list"),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                on(APPS, "daemonsets", READ),
                on(APPS, "daemonsets/status", "update patch"),
                finalizers(APPS, "daemonsets"),
                on("", "nodes", "list watch"),
                on("", "pods", "create delete list patch watch"),
                on("", "pods/binding", "create"),
                on(APPS, "controllerrevisions", "create delete get list patch update watch"),
            ],
        ),
        (
            "deployment-controller",
            vec![
                on(APPS, "deployments", "get list update watch patch"),
                on(APPS, "deployments/status", "update patch"),
                finalizers(APPS, "deployments"),
                on(APPS, "replicasets", "create delete get list patch update watch"),
                on("", "pods", "get list update watch"),
            ],
        ),
        (
            "disruption-controller",
            vec![
                on(APPS, "deployments replicasets statefulsets", READ),
                on("", "replicationcontrollers", READ),
                on("policy", "poddisruptionbudgets", READ),
                on("policy", "poddisruptionbudgets/status", "update patch"),
                on("", "pods", "list watch"),
                on("", "pods/status", "patch update"),
                on("*", "*/scale", "get"),
            ],
        ),
        (
            "endpoint-controller",
            vec![
                on("", "pods services", READ),
                on("", "endpoints", "create delete get list update watch"),
                on("", "endpoints/restricted", "create"),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                on("", "nodes pods services", READ),
                on("discovery.k8s.io", "endpointslices", "create delete get list update watch patch"),
                on("discovery.k8s.io", "endpointslices/restricted", "create"),
                finalizers("", "services"),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                on("", "services endpoints", READ),
                on("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
                on("discovery.k8s.io", "endpointslices/restricted", "create"),
                finalizers("", "services"),
                finalizers("", "endpoints"),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                on("", "pods", READ),
                finalizers("", "pods"),
                on("", "persistentvolumeclaims", "create get list watch"),
            ],
        ),
        (
            "expand-controller",
            vec![
                on("", "persistentvolumes persistentvolumeclaims", "get list patch update watch"),
                on("", "persistentvolumeclaims/status", "patch update"),
                on("storage.k8s.io", "storageclasses", READ),
            ],
        ),
        ("generic-garbage-collector", vec![on("*", "*", "delete get list patch update watch")]),
        (
            "horizontal-pod-autoscaler",
            vec![
                on("autoscaling", "horizontalpodautoscalers", READ),
                on("autoscaling", "horizontalpodautoscalers/status", "update"),
                on("*", "*/scale", "get update"),
                on("", "pods", "list"),
                on("metrics.k8s.io", "pods", "list"),
                on("custom.metrics.k8s.io", "*", "get list"),
                on("external.metrics.k8s.io", "*", "get list"),
            ],
        ),
        (
            "job-controller",
            vec![
                on("batch", "jobs", "get list patch update watch"),
                on("batch", "jobs/status", "update patch"),
                finalizers("batch", "jobs"),
                on("", "pods", "create delete list patch watch"),
            ],
        ),
        (
            "namespace-controller",
            vec![
                on("", "namespaces", "delete get list watch"),
                on("", "namespaces/finalize namespaces/status", "update"),
                on("*", "*", "delete deletecollection get list"),
            ],
        ),
        (
            "node-controller",
            vec![
                on("", "nodes", "delete get list patch update watch"),
                on("", "nodes/status", "patch update"),
                on("", "pods", "delete get list watch"),
                on("", "pods/status", "patch update"),
                on("coordination.k8s.io", "leases", READ),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                on("", "persistentvolumes", "create delete get list patch update watch"),
                on("", "persistentvolumes/status persistentvolumeclaims/status", "update patch"),
                on("", "persistentvolumeclaims", "get list patch update watch"),
                on("", "pods", "create delete get list watch"),
                on("", "nodes", "get list watch"),
                on("storage.k8s.io", "storageclasses", READ),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                on("", "pods", "delete list watch"),
                on("", "pods/status", "patch"),
                on("", "nodes", "get list watch"),
            ],
        ),
        ("pv-protection-controller", vec![on("", "persistentvolumes", "get list update watch patch")]),
        (
            "pvc-protection-controller",
            vec![on("", "persistentvolumeclaims", "get list update watch patch"), on("", "pods", READ)],
        ),
        (
            "replicaset-controller",
            vec![
                on(APPS, "replicasets", "get list update watch patch"),
                on(APPS, "replicasets/status", "update patch"),
                finalizers(APPS, "replicasets"),
                on("", "pods", "create delete list patch watch"),
            ],
        ),
        (
            "replication-controller",
            vec![
                on("", "replicationcontrollers", "get list update watch patch"),
                on("", "replicationcontrollers/status", "update patch"),
                finalizers("", "replicationcontrollers"),
                on("", "pods", "create delete list patch watch"),
            ],
        ),
        (
            "resource-claim-controller",
            vec![
                on("", "pods", READ),
                finalizers("", "pods"),
                on("resource.k8s.io", "resourceclaims", "create delete get list update watch patch"),
                on("resource.k8s.io", "resourceclaims/status", "update patch"),
                on("resource.k8s.io", "resourceclaimtemplates", READ),
                on("", "pods/status", "patch update"),
            ],
        ),
        (
            "resourcequota-controller",
            vec![on("*", "*", "list watch"), on("", "resourcequotas/status", "update patch")],
        ),
        ("root-ca-cert-publisher", vec![on("", "configmaps", "create update get list watch")]),
        ("route-controller", vec![on("", "nodes", "list watch"), on("", "nodes/status", "patch")]),
        ("service-account-controller", vec![on("", "serviceaccounts", "create get list watch")]),
        (
            "service-cidrs-controller",
            vec![
                on("networking.k8s.io", "servicecidrs", "get list patch update watch"),
                on("networking.k8s.io", "servicecidrs/status", "patch update"),
                finalizers("networking.k8s.io", "servicecidrs"),
                on("networking.k8s.io", "ipaddresses", READ),
            ],
        ),
        (
            "service-controller",
            vec![
                on("", "services", READ),
                on("", "services/status", "patch update"),
                on("", "nodes", "list watch"),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                on("", "pods", "create delete get list patch update watch"),
                on(APPS, "statefulsets", READ),
                on(APPS, "statefulsets/status", "update patch"),
                finalizers(APPS, "statefulsets"),
                on(APPS, "controllerrevisions", "create delete get list patch update watch"),
                on("", "persistentvolumeclaims", "create delete get list patch update watch"),
            ],
        ),
        (
            "taint-eviction-controller",
            vec![
                on("", "pods", "delete get list watch"),
                on("", "nodes", READ),
                on("", "pods/status", "patch"),
            ],
        ),
        ("token-cleaner", vec![on("", "secrets", "delete get list watch")]),
        ("ttl-after-finished-controller", vec![on("batch", "jobs", "delete get list watch")]),
        ("ttl-controller", vec![on("", "nodes", "list patch update watch")]),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                on("admissionregistration.k8s.io", "validatingadmissionpolicies", READ),
                on("admissionregistration.k8s.io", "validatingadmissionpolicies/status", "get patch update"),
            ],
        ),
        (
            "legacy-service-account-token-cleaner",
            vec![
                on_named("", "configmaps", "kube-apiserver-legacy-service-account-token-tracking", "get"),
                on("", "secrets", "delete patch"),
            ],
        ),
    ]
}

pub(super) fn roles() -> Vec<Value> {
    let role = |(name, mut rules): (&str, Vec<Value>)| {
        rules.extend(events());
        cluster_role(&format!("system:controller:{name}"), &[], rules)
    };
    table().into_iter().map(role).collect()
}

pub(super) fn bindings() -> Vec<Value> {
    let binding = |(name, _): (&str, Vec<Value>)| {
        let full = format!("system:controller:{name}");
        cluster_binding(&full, &full, vec![service_account("kube-system", name), user(MANAGER)])
    };
    table().into_iter().map(binding).collect()
}
