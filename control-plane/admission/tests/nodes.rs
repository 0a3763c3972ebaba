//! NodeRestriction.

use serde_json::{Value, json};
use skep_admission::{Attributes, Operation};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;

use crate::{Cluster, message, pod, request};

fn by_node(operation: Operation, resource: &str, object: Value) -> Attributes {
    let mut attributes = request(operation, resource, object);
    attributes.user = UserInfo::new("system:node:one", ["system:nodes"]);
    attributes
}

fn node(name: &str, labels: &Value) -> Value {
    json!({ "metadata": { "name": name, "labels": labels } })
}

fn cluster_scoped(mut attributes: Attributes) -> Attributes {
    attributes.namespace = String::new();
    attributes
}

#[tokio::test]
async fn a_node_makes_itself_with_labels_of_its_own() {
    let register = |object| Cluster::new().run(cluster_scoped(by_node(Operation::Create, "nodes", object)));
    let fine = json!({ "kubernetes.io/hostname": "one", "kubernetes.io/os": "linux", "rack": "r1" });
    register(node("one", &fine)).await.expect("is admitted");
    assert!(message(register(node("two", &json!({}))).await).contains("is not allowed to modify node"));
    let stolen = json!({ "node-restriction.kubernetes.io/pci": "yes" });
    assert!(message(register(node("one", &stolen)).await).contains("is not allowed to modify labels"));
    let role = json!({ "node-role.kubernetes.io/control-plane": "" });
    assert!(message(register(node("one", &role)).await).contains("node-role.kubernetes.io/control-plane"));
    // What somebody else has set may stay.
    let mut update = cluster_scoped(by_node(Operation::Update, "nodes", {
        node("one", &json!({ "node-role.kubernetes.io/control-plane": "", "rack": "r2" }))
    }));
    update.old_object = Some(node("one", &json!({ "node-role.kubernetes.io/control-plane": "" })));
    Cluster::new().run(update).await.expect("is admitted");
}

#[tokio::test]
async fn a_node_changes_its_own_pods_only() {
    let on = |node: &str| {
        let mut pod = pod();
        pod.set(&["spec", "nodeName"], node);
        pod
    };
    let status = |node: &str| {
        let mut attributes = by_node(Operation::Update, "pods", on(node));
        attributes.subresource = "status".into();
        attributes.old_object = Some(on(node));
        attributes
    };
    Cluster::new().run(status("one")).await.expect("is admitted");
    message(Cluster::new().run(status("two")).await);
    assert!(
        message(Cluster::new().run(by_node(Operation::Create, "pods", on("one"))).await)
            .contains("mirror pods")
    );
    let mut mirror = on("one");
    mirror.set_annotation("kubernetes.io/config.mirror", "x");
    Cluster::new().run(by_node(Operation::Create, "pods", mirror.clone())).await.expect("is admitted");
    mirror.set(&["spec", "volumes"], json!([{ "name": "s", "secret": { "secretName": "s" } }]));
    assert!(
        message(Cluster::new().run(by_node(Operation::Create, "pods", mirror)).await).contains("secrets")
    );
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_pods() {
    let cluster = |node: &str| {
        let mut pod = pod();
        pod.set_uid("u1");
        pod.set(&["spec", "nodeName"], node);
        pod.set(&["spec", "serviceAccountName"], "robot");
        Cluster::new().with("pods", pod)
    };
    let ask = |account: &str, reference: Value| {
        let mut attributes =
            by_node(Operation::Create, "serviceaccounts", json!({ "spec": { "boundObjectRef": reference } }));
        attributes.subresource = "token".into();
        attributes.name = account.into();
        attributes
    };
    let bound = json!({ "kind": "Pod", "name": "web", "uid": "u1" });
    cluster("one").run(ask("robot", bound.clone())).await.expect("is admitted");
    message(cluster("two").run(ask("robot", bound.clone())).await);
    message(cluster("one").run(ask("other", bound)).await);
    message(cluster("one").run(ask("robot", Value::Null)).await);
    message(cluster("one").run(ask("robot", json!({ "kind": "Pod", "name": "web", "uid": "u2" }))).await);
}

#[tokio::test]
async fn a_node_announces_its_own_dns() {
    let slice = |name: &str, service: &str, node: &str| {
        let mut attributes = by_node(
            Operation::Create,
            "endpointslices",
            json!({
                "metadata": { "name": name, "namespace": "kube-system", "labels": { "kubernetes.io/service-name": service } },
                "endpoints": [{ "addresses": ["10.0.0.1"], "nodeName": node }],
            }),
        );
        attributes.gvr = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
        attributes.namespace = "kube-system".into();
        attributes
    };
    let cluster = || Cluster::new().with("namespaces", json!({ "metadata": { "name": "kube-system" } }));
    cluster().run(slice("kube-dns-one-ipv4", "kube-dns", "one")).await.expect("is admitted");
    message(cluster().run(slice("kube-dns-two-ipv4", "kube-dns", "two")).await);
    message(cluster().run(slice("kube-dns-one-ipv4", "other", "one")).await);
    message(cluster().run(slice("kube-dns-one-ipv4", "kube-dns", "two")).await);
}
