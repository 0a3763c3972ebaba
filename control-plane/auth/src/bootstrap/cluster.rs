//! Roles for the cluster's own components: nodes, scheduler, controller manager, proxies, kubelet API.

use serde_json::{Value, json};

use super::rules::{ALL, READ, events, leader, on, on_named};
use super::{cluster_binding, cluster_role, group, service_account, user};

pub(super) fn roles() -> Vec<Value> {
    vec![
        cluster_role("system:node", &[], node()),
        cluster_role(
            "system:node-problem-detector",
            &[],
            [vec![on("", "nodes", "get"), on("", "nodes/status", "patch")], events()].concat(),
        ),
        cluster_role(
            "system:node-proxier",
            &[],
            [
                vec![
                    on("", "services endpoints", "list watch"),
                    on("", "nodes", READ),
                    on("discovery.k8s.io", "endpointslices", "list watch"),
                    on("networking.k8s.io", "servicecidrs", "list watch"),
                ],
                events(),
            ]
            .concat(),
        ),
        cluster_role(
            "system:node-bootstrapper",
            &[],
            vec![on("certificates.k8s.io", "certificatesigningrequests", "create get list watch")],
        ),
        cluster_role(
            "system:kubelet-api-admin",
            &[],
            vec![
                on("", "nodes", "get list watch proxy"),
                on(
                    "",
                    "nodes/log nodes/metrics nodes/proxy nodes/spec nodes/stats nodes/configz nodes/healthz nodes/pods",
                    "*",
                ),
            ],
        ),
        cluster_role("system:kube-scheduler", &[], scheduler()),
        cluster_role("system:kube-controller-manager", &[], controller_manager()),
        cluster_role(
            "system:kube-dns",
            &[],
            vec![
                on("", "endpoints services", "list watch"),
                on("discovery.k8s.io", "endpointslices", "list watch"),
            ],
        ),
        cluster_role(
            "system:volume-scheduler",
            &[],
            vec![
                on("", "persistentvolumes", "get list patch update watch"),
                on("", "persistentvolumeclaims", "get list patch update watch"),
                on("storage.k8s.io", "storageclasses csinodes csidrivers csistoragecapacities", READ),
            ],
        ),
        cluster_role(
            "system:persistent-volume-provisioner",
            &[],
            vec![
                on("", "persistentvolumes", "create delete get list watch"),
                on("", "persistentvolumeclaims", "get list update watch"),
                on("storage.k8s.io", "storageclasses", READ),
                on("", "events", "watch create patch update"),
            ],
        ),
        cluster_role(
            "system:auth-delegator",
            &[],
            vec![
                on("authentication.k8s.io", "tokenreviews", "create"),
                on("authorization.k8s.io", "subjectaccessreviews", "create"),
            ],
        ),
        cluster_role("system:kube-aggregator", &[], vec![on("", "endpoints services", READ)]),
        cluster_role(
            "system:heapster",
            &[],
            vec![on("", "events namespaces nodes pods", READ), on("apps", "deployments", READ)],
        ),
        cluster_role(
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            &[],
            vec![on("certificates.k8s.io", "certificatesigningrequests/nodeclient", "create")],
        ),
        cluster_role(
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            &[],
            vec![on("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", "create")],
        ),
        signer_approver(
            "system:certificates.k8s.io:kube-apiserver-client-approver",
            "kubernetes.io/kube-apiserver-client",
        ),
        signer_approver(
            "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
            "kubernetes.io/kube-apiserver-client-kubelet",
        ),
        signer_approver(
            "system:certificates.k8s.io:kubelet-serving-approver",
            "kubernetes.io/kubelet-serving",
        ),
        signer_approver("system:certificates.k8s.io:legacy-unknown-approver", "kubernetes.io/legacy-unknown"),
    ]
}

fn signer_approver(name: &str, signer: &str) -> Value {
    cluster_role(name, &[], vec![on_named("certificates.k8s.io", "signers", signer, "approve")])
}

/// What every node may do; what depends on the node's own pods is the Node authorizer's.
pub(crate) fn node() -> Vec<Value> {
    let mut rules = vec![
        on("authentication.k8s.io", "tokenreviews", "create"),
        on("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
        on("", "services namespaces", READ),
        on("discovery.k8s.io", "endpointslices", READ),
        on("networking.k8s.io", "networkpolicies", READ),
        on("", "nodes", "create get list watch"),
        on("", "nodes nodes/status", "patch update"),
        on("", "pods", "get list watch create delete"),
        on("", "pods/status", "patch update"),
        on("", "pods/eviction", "create"),
        on("coordination.k8s.io", "leases", "create delete get patch update"),
        on("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
        on("node.k8s.io", "runtimeclasses", READ),
        on("storage.k8s.io", "csidrivers", READ),
        on("storage.k8s.io", "csinodes", "create delete get patch update"),
        on("scheduling.k8s.io", "priorityclasses", READ),
    ];
    rules.extend(events());
    rules
}

fn scheduler() -> Vec<Value> {
    let mut rules = leader("kube-scheduler");
    rules.extend(events());
    rules.extend([
        on("coordination.k8s.io", "leasecandidates", ALL),
        on("", "nodes", READ),
        on("", "pods", "delete get list watch"),
        on("", "bindings pods/binding", "create"),
        on("", "pods/status", "patch update"),
        on("", "namespaces replicationcontrollers services", READ),
        on("apps", "replicasets statefulsets", READ),
        on("policy", "poddisruptionbudgets", READ),
        on("", "persistentvolumeclaims persistentvolumes", "get list patch update watch"),
        on(
            "storage.k8s.io",
            "csinodes csidrivers csistoragecapacities storageclasses volumeattachments",
            READ,
        ),
        on("scheduling.k8s.io", "priorityclasses", READ),
        on("authentication.k8s.io", "tokenreviews", "create"),
        on("authorization.k8s.io", "subjectaccessreviews", "create"),
        on("resource.k8s.io", "deviceclasses resourceslices", READ),
        on("resource.k8s.io", "resourceclaims", "get list watch patch update"),
        on("resource.k8s.io", "resourceclaims/status", "patch update"),
    ]);
    rules
}

fn controller_manager() -> Vec<Value> {
    let mut rules = leader("kube-controller-manager");
    rules.extend(events());
    rules.extend([
        on("coordination.k8s.io", "leasecandidates", ALL),
        on("", "secrets serviceaccounts", "create"),
        on("", "secrets", "delete"),
        on("", "configmaps namespaces secrets serviceaccounts", "get"),
        on("", "secrets serviceaccounts", "update"),
        on("authentication.k8s.io", "tokenreviews", "create"),
        on("authorization.k8s.io", "subjectaccessreviews", "create"),
        on("", "serviceaccounts/token", "create"),
        // Quota and garbage collection look at every kind there is.
        on("*", "*", "list watch"),
    ]);
    rules
}

pub(super) fn bindings() -> Vec<Value> {
    let nodes = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": super::metadata("system:node", &[]),
        "roleRef": super::role_ref("ClusterRole", "system:node"),
        // Nodes get their rights from the Node authorizer; the binding is there for people to fill.
        "subjects": [],
    });
    vec![
        nodes,
        cluster_binding("system:node-proxier", "system:node-proxier", vec![user("system:kube-proxy")]),
        cluster_binding(
            "system:kube-scheduler",
            "system:kube-scheduler",
            vec![user("system:kube-scheduler")],
        ),
        cluster_binding(
            "system:volume-scheduler",
            "system:volume-scheduler",
            vec![user("system:kube-scheduler")],
        ),
        cluster_binding(
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            vec![user("system:kube-controller-manager")],
        ),
        cluster_binding(
            "system:kube-dns",
            "system:kube-dns",
            vec![service_account("kube-system", "kube-dns")],
        ),
        cluster_binding(
            "system:certificates.k8s.io:nodeclient",
            "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
            vec![group("system:bootstrappers")],
        ),
        cluster_binding(
            "system:certificates.k8s.io:selfnodeclient",
            "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
            vec![group("system:nodes")],
        ),
        cluster_binding(
            "system:node-bootstrapper",
            "system:node-bootstrapper",
            vec![group("system:bootstrappers")],
        ),
    ]
}
