//! Roles for people and for everyone: discovery, `cluster-admin`, `admin`, `edit`, `view`.

use serde_json::{Value, json};

use super::rules::{ALL, READ, WRITE, on, paths};
use super::{cluster_binding, cluster_role, group};

const TO_ADMIN: &str = "rbac.authorization.k8s.io/aggregate-to-admin";
const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";
const TO_VIEW: &str = "rbac.authorization.k8s.io/aggregate-to-view";

/// What may be read in a namespace, by group.
const VIEWED: [(&str, &str); 7] = [
    (
        "",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status namespaces",
    ),
    ("discovery.k8s.io", "endpointslices"),
    (
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
];

/// What may be changed in a namespace, by group.
const EDITED: [(&str, &str); 6] = [
    (
        "",
        "configmaps events persistentvolumeclaims pods replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    (
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
    ),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "ingresses networkpolicies"),
];

pub(super) fn roles() -> Vec<Value> {
    let discovery =
        "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/";
    let mut view: Vec<Value> = VIEWED.iter().map(|(group, resources)| on(group, resources, READ)).collect();
    view.push(on("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates", READ));
    let mut edit = vec![
        on("", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
        on("", "serviceaccounts", "impersonate"),
        on("", "pods/attach pods/exec pods/portforward pods/proxy", WRITE),
        on("", "pods/eviction serviceaccounts/token", "create"),
        on("coordination.k8s.io", "leases", ALL),
        on("resource.k8s.io", "resourceclaims resourceclaimtemplates", WRITE),
    ];
    edit.extend(EDITED.iter().map(|(group, resources)| on(group, resources, WRITE)));
    let admin = vec![
        on("authorization.k8s.io", "localsubjectaccessreviews", "create"),
        on("rbac.authorization.k8s.io", "rolebindings roles", ALL),
    ];
    vec![
        cluster_role("cluster-admin", &[], vec![on("*", "*", "*"), paths("*", "*")]),
        cluster_role("system:discovery", &[], vec![paths(discovery, "get")]),
        cluster_role(
            "system:monitoring",
            &[],
            vec![paths(
                "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
                "get",
            )],
        ),
        cluster_role(
            "system:public-info-viewer",
            &[],
            vec![paths("/healthz /livez /readyz /version /version/", "get")],
        ),
        cluster_role(
            "system:basic-user",
            &[],
            vec![
                on("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
                on("authentication.k8s.io", "selfsubjectreviews", "create"),
            ],
        ),
        cluster_role(
            "system:service-account-issuer-discovery",
            &[],
            vec![paths(
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
                "get",
            )],
        ),
        aggregated("admin", &[], &[TO_ADMIN]),
        aggregated("edit", &[(TO_ADMIN, "true")], &[TO_EDIT]),
        aggregated("view", &[(TO_EDIT, "true")], &[TO_VIEW]),
        cluster_role("system:aggregate-to-admin", &[(TO_ADMIN, "true")], admin),
        cluster_role("system:aggregate-to-edit", &[(TO_EDIT, "true")], edit),
        cluster_role("system:aggregate-to-view", &[(TO_VIEW, "true")], view),
    ]
}

fn aggregated(name: &str, labels: &[(&str, &str)], from: &[&str]) -> Value {
    let selector = |label: &&str| json!({ "matchLabels": { *label: "true" } });
    let selectors: Vec<Value> = from.iter().map(selector).collect();
    let mut role = cluster_role(name, labels, Vec::new());
    role["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
    role
}

pub(super) fn bindings() -> Vec<Value> {
    let authenticated = || group("system:authenticated");
    vec![
        cluster_binding("cluster-admin", "cluster-admin", vec![group("system:masters")]),
        cluster_binding("system:monitoring", "system:monitoring", vec![group("system:monitoring")]),
        cluster_binding("system:discovery", "system:discovery", vec![authenticated()]),
        cluster_binding("system:basic-user", "system:basic-user", vec![authenticated()]),
        cluster_binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            vec![authenticated(), group("system:unauthenticated")],
        ),
        cluster_binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            vec![group("system:serviceaccounts")],
        ),
    ]
}
