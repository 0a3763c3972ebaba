//! What every pod gets, and where nothing may be made.

use serde_json::{Value, json};
use skep_admission::Operation;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use crate::{Cluster, create, message, pod, request};

#[tokio::test]
async fn a_plain_pod_gets_account_token_tolerations_and_priority() {
    let cluster = Cluster::new();
    let pod = cluster.run(create("pods", pod())).await.expect("is admitted");
    assert_eq!(pod.text(&["spec", "serviceAccountName"]), "default");
    let volume = &pod.items(&["spec", "volumes"])[0];
    assert!(volume.text(&["name"]).starts_with("kube-api-access-"));
    assert_eq!(volume.items(&["projected", "sources"]).len(), 3);
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], volume["name"]);
    assert_eq!(pod.items(&["spec", "tolerations"]).len(), 2);
    assert_eq!(pod.int(&["spec", "priority"]), Some(0));
    assert_eq!(pod.text(&["spec", "preemptionPolicy"]), "PreemptLowerPriority");
}

#[tokio::test]
async fn a_pod_that_mounts_or_refuses_its_token_is_left_alone() {
    let mut own = pod();
    own.set(&["spec", "automountServiceAccountToken"], false);
    let admitted = Cluster::new().run(create("pods", own)).await.expect("is admitted");
    assert!(admitted.items(&["spec", "volumes"]).is_empty());
    let account = json!({ "metadata": { "name": "quiet", "namespace": "team" },
        "automountServiceAccountToken": false, "imagePullSecrets": [{ "name": "pull" }] });
    let mut quiet = pod();
    quiet.set(&["spec", "serviceAccountName"], "quiet");
    let cluster = Cluster::new().with("serviceaccounts", account);
    let admitted = cluster.run(create("pods", quiet)).await.expect("is admitted");
    assert!(admitted.items(&["spec", "volumes"]).is_empty());
    assert_eq!(admitted["spec"]["imagePullSecrets"], json!([{ "name": "pull" }]));
    let mut tolerant = pod();
    tolerant.set(&["spec", "tolerations"], json!([{ "operator": "Exists" }]));
    let admitted = Cluster::new().run(create("pods", tolerant)).await.expect("is admitted");
    assert_eq!(admitted.items(&["spec", "tolerations"]).len(), 1);
}

#[tokio::test]
async fn a_missing_account_is_named() {
    let mut other = pod();
    other.set(&["spec", "serviceAccountName"], "nobody");
    assert_eq!(
        message(Cluster::new().run(create("pods", other)).await),
        r#"pods "web" is forbidden: error looking up service account team/nobody: serviceaccount "nobody" not found"#
    );
}

#[tokio::test]
async fn classes_become_numbers() {
    let class = |name: &str, value: i64, default: bool| json!({ "metadata": { "name": name }, "value": value, "globalDefault": default });
    let cluster = || {
        Cluster::new()
            .with("priorityclasses", class("high", 1000, false))
            .with("priorityclasses", class("usual", 10, true))
    };
    let named = |name: &str| {
        let mut pod = pod();
        pod.set(&["spec", "priorityClassName"], name);
        pod
    };
    let admitted = cluster().run(create("pods", named("high"))).await.expect("is admitted");
    assert_eq!(admitted.int(&["spec", "priority"]), Some(1000));
    let admitted = cluster().run(create("pods", pod())).await.expect("is admitted");
    assert_eq!(admitted.int(&["spec", "priority"]), Some(10));
    assert_eq!(admitted.text(&["spec", "priorityClassName"]), "usual");
    let admitted = cluster().run(create("pods", named("system-node-critical"))).await.expect("is admitted");
    assert_eq!(admitted.int(&["spec", "priority"]), Some(2_000_001_000));
    let refused = message(cluster().run(create("pods", named("unknown"))).await);
    assert!(refused.ends_with("no PriorityClass with name unknown was found"), "{refused}");
    let mut liar = named("high");
    liar.set(&["spec", "priority"], 5);
    assert!(message(cluster().run(create("pods", liar)).await).contains("must not be provided in pod spec"));
    let mut second = create("priorityclasses", class("second", 1, true));
    second.gvr = GroupVersionResource::new("scheduling.k8s.io", "v1", "priorityclasses");
    second.namespace = String::new();
    assert!(
        message(cluster().run(second).await).contains("PriorityClass usual is already marked as default")
    );
}

#[tokio::test]
async fn namespaces_guard_their_content() {
    let mut ending = create("configmaps", json!({ "metadata": { "name": "x", "namespace": "ending" } }));
    ending.namespace = "ending".into();
    let error = Cluster::new().run(ending).await.expect_err("is refused");
    assert_eq!(
        error.message,
        r#"configmaps "x" is forbidden: unable to create new content in namespace ending because it is being terminated"#
    );
    let causes = error.details.and_then(|details| details.causes).unwrap_or_default();
    assert_eq!(causes[0].reason.as_deref(), Some("NamespaceTerminating"));
    let mut missing = create("configmaps", json!({ "metadata": { "name": "x", "namespace": "none" } }));
    missing.namespace = "none".into();
    assert_eq!(Cluster::new().run(missing).await.map_err(|e| e.code).err(), Some(404));
    let remove = |name: &str| {
        let mut attributes =
            request(Operation::Delete, "namespaces", json!({ "metadata": { "name": name } }));
        attributes.object = None;
        attributes.namespace = String::new();
        attributes
    };
    let refused = message(Cluster::new().run(remove("kube-system")).await);
    assert!(refused.ends_with("this namespace may not be deleted"), "{refused}");
    assert_eq!(Cluster::new().run(remove("team")).await.ok(), Some(Value::Null));
}
