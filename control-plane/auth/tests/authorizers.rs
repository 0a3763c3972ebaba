//! Nodes, roles, and what one may hand on.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};
use skep_api::selector::FieldSelector;
use skep_api::user::UserInfo;
use skep_auth::authorization::node::{Node, NodePods};
use skep_auth::authorization::rbac::{Objects, Rbac, Snapshot, missing_rules};
use skep_auth::authorization::{Attributes, Authorizer, Decision, Union};

struct Pods(Vec<Arc<Value>>);

#[async_trait]
impl NodePods for Pods {
    async fn pods(&self, node: &str, namespace: &str) -> Result<Vec<Arc<Value>>, String> {
        let fits = |pod: &&Arc<Value>| {
            pod["spec"]["nodeName"] == node
                && (namespace.is_empty() || pod["metadata"]["namespace"] == namespace)
        };
        Ok(self.0.iter().filter(fits).cloned().collect())
    }
}

fn pods() -> Pods {
    let pod = json!({
        "metadata": { "name": "web", "namespace": "team" },
        "spec": {
            "nodeName": "one",
            "serviceAccountName": "robot",
            "imagePullSecrets": [{ "name": "pull" }],
            "containers": [{ "env": [{ "valueFrom": { "secretKeyRef": { "name": "env" } } }] }],
            "volumes": [
                { "name": "a", "secret": { "secretName": "volume" } },
                { "name": "b", "projected": { "sources": [{ "configMap": { "name": "kube-root-ca.crt" } }] } },
                { "name": "c", "persistentVolumeClaim": { "claimName": "data" } },
            ],
        },
    });
    Pods(vec![Arc::new(pod)])
}

#[tokio::test]
async fn a_node_sees_what_its_pods_need_and_writes_its_own() {
    let node = Node::new(pods());
    let one = UserInfo::new("system:node:one", ["system:nodes"]);
    let two = UserInfo::new("system:node:two", ["system:nodes"]);
    let jane = UserInfo::new("jane", ["people"]);
    // user, verb, group, resource/subresource, namespace, name, allowed
    let cases = [
        (&one, "get", "", "secrets", "team", "volume", true),
        (&one, "watch", "", "secrets", "team", "env", true),
        (&one, "get", "", "secrets", "team", "pull", true),
        (&one, "get", "", "secrets", "team", "other", false),
        (&one, "list", "", "secrets", "team", "", false),
        (&one, "get", "", "secrets", "elsewhere", "volume", false),
        (&two, "get", "", "secrets", "team", "volume", false),
        (&one, "update", "", "secrets", "team", "volume", false),
        (&one, "get", "", "configmaps", "team", "kube-root-ca.crt", true),
        (&one, "get", "", "persistentvolumeclaims", "team", "data", true),
        (&one, "create", "", "serviceaccounts/token", "team", "robot", true),
        (&two, "create", "", "serviceaccounts/token", "team", "robot", false),
        (&one, "list", "", "pods", "", "", true),
        (&one, "watch", "", "services", "", "", true),
        (&one, "watch", "", "namespaces", "", "", true),
        (&one, "watch", "discovery.k8s.io", "endpointslices", "", "", true),
        (&one, "create", "", "nodes", "", "", true),
        (&one, "get", "", "nodes", "", "one", true),
        (&one, "patch", "", "nodes/status", "", "one", true),
        (&two, "patch", "", "nodes/status", "", "one", false),
        (&one, "delete", "", "nodes", "", "one", false),
        (&one, "patch", "", "pods/status", "team", "web", true),
        (&one, "create", "", "events", "team", "", true),
        (&one, "update", "coordination.k8s.io", "leases", "kube-node-lease", "one", true),
        (&two, "update", "coordination.k8s.io", "leases", "kube-node-lease", "one", false),
        (&one, "update", "coordination.k8s.io", "leases", "kube-system", "one", false),
        (&one, "update", "discovery.k8s.io", "endpointslices", "kube-system", "kube-dns-one-ipv4", true),
        (&two, "update", "discovery.k8s.io", "endpointslices", "kube-system", "kube-dns-one-ipv4", false),
        (&one, "create", "discovery.k8s.io", "endpointslices", "team", "", false),
        (&one, "create", "", "pods/exec", "team", "web", false),
        (&jane, "get", "", "secrets", "team", "volume", false),
    ];
    for (user, verb, group, resource, namespace, name, allowed) in cases {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let attributes = Attributes {
            subresource,
            namespace,
            name,
            ..Attributes::for_resource(user, verb, group, resource)
        };
        let decision = node.authorize(&attributes).await;
        assert_eq!(
            decision.allowed(),
            allowed,
            "{} {verb} {resource} {namespace}/{name}: {decision:?}",
            user.name
        );
    }
}

#[tokio::test]
async fn a_node_lists_what_it_offers_itself() {
    let node = Node::new(pods());
    let one = UserInfo::new("system:node:one", ["system:nodes"]);
    let own = FieldSelector::equals("spec.nodeName", "one");
    let other = FieldSelector::equals("spec.nodeName", "two");
    let not = FieldSelector::parse("spec.nodeName!=one").expect("a selector");
    for (verb, fields, allowed) in [
        ("list", Some(&own), true),
        ("watch", Some(&own), true),
        ("deletecollection", Some(&own), true),
        ("list", Some(&other), false),
        ("list", Some(&not), false),
        ("list", None, false),
        ("create", None, true),
    ] {
        let attributes = Attributes {
            fields: fields.map(FieldSelector::requirements).unwrap_or_default(),
            ..Attributes::for_resource(&one, verb, "resource.k8s.io", "resourceslices")
        };
        let decision = node.authorize(&attributes).await;
        assert_eq!(decision.allowed(), allowed, "{verb} {fields:?}: {decision:?}");
    }
}

#[tokio::test]
async fn bindings_hold_where_they_are_made() {
    let rules = json!([{ "apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"] }]);
    let objects = [
        json!({ "kind": "ClusterRole", "metadata": { "name": "reader" }, "rules": rules }),
        json!({ "kind": "Role", "metadata": { "name": "named", "namespace": "a" }, "rules": [
            { "apiGroups": ["apps"], "resources": ["*/scale"], "resourceNames": ["web"], "verbs": ["*"] },
        ] }),
        json!({ "kind": "RoleBinding", "metadata": { "name": "b", "namespace": "a" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader" },
            "subjects": [{ "kind": "ServiceAccount", "name": "robot" }, { "kind": "Group", "name": "team" }] }),
        json!({ "kind": "RoleBinding", "metadata": { "name": "c", "namespace": "a" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "named" },
            "subjects": [{ "kind": "User", "name": "jane" }] }),
        json!({ "kind": "RoleBinding", "metadata": { "name": "gone", "namespace": "a" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "missing" },
            "subjects": [{ "kind": "User", "name": "jane" }] }),
        json!({ "kind": "Role", "metadata": "damaged" }),
    ];
    let rbac = Rbac::new();
    rbac.publish(Snapshot::new(&Objects::from_values(&objects)));
    let robot = UserInfo::new("system:serviceaccount:a:robot", [""; 0]);
    let member = UserInfo::new("joe", ["team"]);
    let jane = UserInfo::new("jane", [""; 0]);
    let cases = [
        (&robot, "get", "", "pods", "", "a", "", true),
        (&robot, "get", "", "pods", "log", "a", "", true),
        (&robot, "get", "", "pods", "exec", "a", "", false),
        (&robot, "get", "", "pods", "", "b", "", false),
        (&robot, "get", "", "pods", "", "", "", false),
        (&member, "list", "", "pods", "", "a", "", true),
        (&member, "watch", "", "pods", "", "a", "", false),
        (&jane, "update", "apps", "deployments", "scale", "a", "web", true),
        (&jane, "update", "apps", "deployments", "scale", "a", "db", false),
        (&jane, "update", "apps", "deployments", "", "a", "web", false),
    ];
    for (user, verb, group, resource, subresource, namespace, name, allowed) in cases {
        let attributes = Attributes {
            subresource,
            namespace,
            name,
            ..Attributes::for_resource(user, verb, group, resource)
        };
        let decision = rbac.authorize(&attributes).await;
        assert_eq!(decision.allowed(), allowed, "{} {verb} {resource}/{subresource} {namespace}", user.name);
    }
    let attributes = Attributes { namespace: "a", ..Attributes::for_resource(&member, "get", "", "pods") };
    assert_eq!(
        rbac.authorize(&attributes).await.reason(),
        r#"RBAC: allowed by RoleBinding "b/a" of ClusterRole "reader" to Group "team""#
    );
    assert_eq!(rbac.snapshot().rules_for(&member, "a").len(), 1);
    assert!(rbac.snapshot().rules_for(&member, "b").is_empty());
    let root = UserInfo::new("root", ["system:masters"]);
    let union = Union::new(vec![Box::new(Rbac::new())]);
    let anything = Attributes::for_resource(&root, "delete", "", "nodes");
    assert!(union.authorize(&anything).await.allowed());
    let nothing = Attributes::for_resource(&jane, "delete", "", "nodes");
    assert!(matches!(union.authorize(&nothing).await, Decision::NoOpinion(_)));
}

#[test]
fn nobody_hands_out_more_than_they_have() {
    let rule = |groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]| -> PolicyRule {
        serde_json::from_value(json!({
            "apiGroups": groups, "resources": resources, "resourceNames": names, "verbs": verbs,
        }))
        .expect("a rule")
    };
    let paths = |paths: &[&str]| -> PolicyRule {
        serde_json::from_value(json!({ "nonResourceURLs": paths, "verbs": ["get"] })).expect("a rule")
    };
    let owned = [
        rule(&[""], &["pods"], &[], &["get", "list"]),
        rule(&[""], &["secrets"], &["one", "two"], &["get"]),
        rule(&["apps"], &["*"], &[], &["*"]),
        paths(&["/metrics/*"]),
    ];
    let cases = [
        (rule(&[""], &["pods"], &[], &["get"]), 0),
        (rule(&[""], &["pods"], &["x"], &["get"]), 0),
        (rule(&[""], &["pods", "nodes"], &[], &["get", "delete"]), 3),
        (rule(&[""], &["secrets"], &["one"], &["get"]), 0),
        (rule(&[""], &["secrets"], &["one", "three"], &["get"]), 1),
        (rule(&[""], &["secrets"], &[], &["get"]), 1),
        (rule(&["apps"], &["deployments/scale"], &[], &["patch"]), 0),
        (rule(&["*"], &["*"], &[], &["*"]), 1),
        (paths(&["/metrics/a"]), 0),
        (paths(&["/logs"]), 1),
    ];
    for (wanted, missing) in cases {
        let wanted = [wanted];
        assert_eq!(missing_rules(&owned, &wanted).len(), missing, "{wanted:?}");
    }
}
