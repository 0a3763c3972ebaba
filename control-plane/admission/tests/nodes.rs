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
    let mut owned = node("one", &json!({}));
    owned.set(&["metadata", "ownerReferences"], json!([{ "kind": "ConfigMap", "name": "gone" }]));
    assert!(message(register(owned.clone()).await).contains("is not allowed to modify ownerReferences"));
    let mut update = cluster_scoped(by_node(Operation::Update, "nodes", owned));
    update.old_object = Some(node("one", &json!({})));
    assert!(message(Cluster::new().run(update).await).contains("is not allowed to modify ownerReferences"));
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
    let owned = |reference: Value| {
        let mut mirror = mirror.clone();
        mirror.set(&["metadata", "ownerReferences"], json!([reference]));
        let mut itself = node("one", &json!({}));
        itself.set_uid("u1");
        Cluster::new().with("nodes", itself).run(by_node(Operation::Create, "pods", mirror))
    };
    let reference =
        json!({ "apiVersion": "v1", "kind": "Node", "name": "one", "uid": "u1", "controller": true });
    owned(reference.clone()).await.expect("is admitted");
    for (field, value, why) in [
        ("name", json!("two"), "an owner reference set to itself"),
        ("kind", json!("Pod"), "an owner reference set to itself"),
        ("controller", json!(false), "a controller owner reference set to itself"),
        ("blockOwnerDeletion", json!(true), "must not set blockOwnerDeletion"),
        ("uid", json!("u2"), "UID mismatch: expected u1 got u2"),
    ] {
        let mut other = reference.clone();
        other[field] = value;
        let refused = message(owned(other).await);
        assert!(refused.contains(why), "{refused}");
    }
    let mut labelled = status("one");
    labelled.object.as_mut().expect("a pod").set(&["metadata", "labels"], json!({ "app": "other" }));
    assert!(message(Cluster::new().run(labelled).await).contains("cannot update labels through pod status"));
    let mut claimed = status("one");
    let statuses = json!([{ "name": "c", "resourceClaimName": "x" }]);
    claimed.object.as_mut().expect("a pod").set(&["status", "resourceClaimStatuses"], statuses);
    assert!(message(Cluster::new().run(claimed).await).contains("cannot update resource claim statuses"));
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
        let source = json!({ "serviceAccountToken": { "path": "token" } });
        pod.set(&["spec", "volumes"], json!([{ "name": "t", "projected": { "sources": [source] } }]));
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
async fn a_node_asks_for_audiences_that_its_pods_name() {
    let volumes = json!([
        { "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "t", "audience": "vault" } }] } },
        { "name": "inline", "csi": { "driver": "inline.example.com" } },
        { "name": "claimed", "persistentVolumeClaim": { "claimName": "data" } },
    ]);
    let driver = |name: &str, audience: &str| json!({ "metadata": { "name": name }, "spec": { "tokenRequests": [{ "audience": audience }] } });
    let cluster = || {
        let mut pod = pod();
        pod.set_uid("u1");
        pod.set(&["spec", "nodeName"], "one");
        pod.set(&["spec", "serviceAccountName"], "robot");
        pod.set(&["spec", "volumes"], volumes.clone());
        Cluster::new()
            .with("pods", pod)
            .with("csidrivers", driver("inline.example.com", "inline"))
            .with("csidrivers", driver("claimed.example.com", "claimed"))
            .with("persistentvolumeclaims", json!({ "metadata": { "name": "data", "namespace": "team" }, "spec": { "volumeName": "pv" } }))
            .with("persistentvolumes", json!({ "metadata": { "name": "pv" }, "spec": { "csi": { "driver": "claimed.example.com" } } }))
    };
    let ask = |audiences: Value| {
        let bound = json!({ "kind": "Pod", "name": "web", "uid": "u1" });
        let request = json!({ "spec": { "boundObjectRef": bound, "audiences": audiences } });
        let mut attributes = by_node(Operation::Create, "serviceaccounts", request);
        attributes.subresource = "token".into();
        attributes.name = "robot".into();
        cluster().run(attributes)
    };
    for known in ["vault", "inline", "claimed"] {
        ask(json!([known])).await.expect(known);
    }
    for (unknown, why) in [
        (
            json!(["other"]),
            "audience \"other\" not found in pod spec volume, system:node:one is not authorized",
        ),
        (json!([]), "audience \"\" not found in pod spec volume"),
        (json!(["vault", "inline"]), "node may only request 0 or 1 audiences"),
    ] {
        let refused = message(ask(unknown).await);
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn a_node_offers_its_own_devices() {
    let slice = |operation, node: &str, before: Option<&str>| {
        let object = |node: &str| json!({ "metadata": { "name": "s" }, "spec": { "nodeName": node } });
        let mut attributes = cluster_scoped(by_node(operation, "resourceslices", object(node)));
        attributes.gvr = GroupVersionResource::new("resource.k8s.io", "v1", "resourceslices");
        attributes.old_object = before.map(object);
        Cluster::new().run(attributes)
    };
    slice(Operation::Create, "one", None).await.expect("is admitted");
    slice(Operation::Update, "one", Some("one")).await.expect("is admitted");
    message(slice(Operation::Create, "two", None).await);
    message(slice(Operation::Update, "one", Some("two")).await);
    message(slice(Operation::Update, "two", Some("one")).await);
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
