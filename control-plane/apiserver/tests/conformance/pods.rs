//! Pods as the API sees them: defaults, refusals, status, generation, limits, accounts.

use serde_json::{Value, json};

use super::{Cluster, condition, name, pod_spec};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": pod_spec(&["run"])})
}

/// Holds NO-57, NO-58, NO-61.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_seen_from_its_making_to_its_end() {
    let cluster = Cluster::whole(1).await;
    let version =
        cluster.get(PODS).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch =
        cluster.watch(&format!("{PODS}?labelSelector=time%3Dnow&resourceVersion={version}")).await;
    let mut made = pod("p");
    made["metadata"]["labels"]["time"] = json!("now");
    cluster.create(PODS, made).await;
    watch.see("ADDED", |pod| name(pod) == "p").await;
    let running = watch.see("MODIFIED", |pod| pod["status"]["phase"] == "Running").await;
    assert_eq!(running["status"]["hostIP"], "192.0.2.9");
    let path = format!("{PODS}/p");
    cluster.update(&path, |pod| pod["metadata"]["labels"]["more"] = json!("yes")).await;
    assert_eq!(cluster.items(&format!("{PODS}?labelSelector=more%3Dyes")).await.len(), 1);
    cluster.ok("DELETE", &format!("{path}?gracePeriodSeconds=30"), None).await;
    watch
        .see("MODIFIED", |pod| {
            pod["metadata"].get("deletionTimestamp").is_some()
                && pod["metadata"]["deletionGracePeriodSeconds"] == 30
        })
        .await;
    watch.see("DELETED", |pod| name(pod) == "p").await;
    assert!(cluster.items(PODS).await.is_empty());
}

/// Holds NO-60, NO-62, NO-63.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_pod_is_written_apart() {
    let cluster = Cluster::api().await;
    let version =
        cluster.get(PODS).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = cluster
        .watch(&format!("{PODS}?labelSelector=test-pod-static%3Dtrue&resourceVersion={version}"))
        .await;
    let mut made = pod("p");
    made["metadata"]["labels"]["test-pod-static"] = json!("true");
    cluster.create(PODS, made.clone()).await;
    watch.see("ADDED", |pod| pod["status"]["phase"] == "Pending").await;
    let path = format!("{PODS}/p");
    let patch = json!({"metadata": {"labels": {"test-pod": "patched"}}, "spec": {"terminationGracePeriodSeconds": 0}});
    cluster.patch(&path, patch).await;
    watch.see("MODIFIED", |pod| pod["metadata"]["labels"]["test-pod"] == "patched").await;
    let status = format!("{path}/status");
    let written = cluster
        .update(&status, |pod| pod["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]))
        .await;
    assert_eq!(condition(&written, "Ready"), "False");
    watch.see("MODIFIED", |pod| condition(pod, "Ready") == "False").await;
    let patched =
        cluster.patch(&status, json!({"status": {"message": "Patched by e2e test", "reason": "E2E"}})).await;
    assert_eq!(
        (&patched["status"]["message"], &patched["status"]["reason"]),
        (&json!("Patched by e2e test"), &json!("E2E"))
    );
    assert_eq!(cluster.get(&status).await["status"]["reason"], "E2E");
    for number in 0..2 {
        made["metadata"]["name"] = json!(format!("q{number}"));
        cluster.create(PODS, made.clone()).await;
    }
    cluster.create(PODS, pod("other")).await;
    cluster
        .ok(
            "DELETE",
            &format!("{PODS}?labelSelector=test-pod-static%3Dtrue"),
            Some(json!({"gracePeriodSeconds": 0})),
        )
        .await;
    for _ in 0..3 {
        watch.see("DELETED", |_| true).await;
    }
    assert_eq!(cluster.items(PODS).await.iter().map(name).collect::<Vec<_>>(), ["other"]);
}

/// Holds NO-52.
#[tokio::test(flavor = "multi_thread")]
async fn the_generation_of_a_pod_counts_its_spec() {
    let cluster = Cluster::api().await;
    let mut made = pod("p");
    made["metadata"]["generation"] = json!(100);
    made["spec"]["nodeName"] = json!("nowhere");
    made["spec"]["terminationGracePeriodSeconds"] = json!(30);
    let made = cluster.create(PODS, made).await;
    assert_eq!(made["metadata"]["generation"], 1, "what a client says does not count");
    let path = format!("{PODS}/p");
    let labelled = cluster.patch(&path, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled["metadata"]["generation"], 1);
    let changed = cluster.patch(&path, json!({"spec": {"activeDeadlineSeconds": 500}})).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    let told = cluster.patch(&format!("{path}/status"), json!({"status": {"reason": "r"}})).await;
    assert_eq!(told["metadata"]["generation"], 2);
    let going = cluster.delete(&path).await;
    assert_eq!(going["metadata"]["generation"], 3, "{going}");
}

/// Holds NO-48.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_resized_by_put() {
    let cluster = Cluster::api().await;
    let mut made = pod("p");
    let amounts = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "64Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}});
    made["spec"]["containers"][0]["resources"] = amounts("100m");
    cluster.create(PODS, made).await;
    let path = format!("{PODS}/p");
    let resize = format!("{path}/resize");
    assert_eq!(cluster.get(&resize).await, cluster.get(&path).await);
    let resized =
        cluster.update(&resize, |pod| pod["spec"]["containers"][0]["resources"] = amounts("200m")).await;
    assert_eq!(resized["spec"]["containers"][0]["resources"], amounts("200m"));
    assert_eq!(cluster.get(&resize).await, cluster.get(&path).await);
}

/// Holds NO-93.
#[tokio::test(flavor = "multi_thread")]
async fn sysctls_have_names() {
    let cluster = Cluster::api().await;
    let mut made = pod("p");
    let names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."];
    made["spec"]["securityContext"]["sysctls"] =
        names.iter().map(|name| json!({"name": name, "value": "bar"})).collect();
    let refused = cluster.refused("POST", PODS, Some(made), 422).await;
    let message = refused["message"].as_str().expect("a message");
    for (index, valid) in [false, true, true, false].into_iter().enumerate() {
        let told = message.contains(&format!("spec.securityContext.sysctls[{index}].name: Invalid value"));
        assert_eq!(told, !valid, "{}: {message}", names[index]);
    }
}

/// Holds ST-02.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_have_a_volume_of_a_driver_inline() {
    let cluster = Cluster::api().await;
    let mut made = pod("p");
    made["spec"]["volumes"] =
        json!([{"name": "v", "csi": {"driver": "e2e.example", "volumeAttributes": {"a": "b"}}}]);
    made["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/mnt"}]);
    cluster.create(PODS, made).await;
    let path = format!("{PODS}/p");
    let found = cluster.get(&path).await;
    let volume =
        found["spec"]["volumes"].as_array().into_iter().flatten().find(|v| v["name"] == "v").cloned();
    assert_eq!(
        volume.expect("the volume")["csi"],
        json!({"driver": "e2e.example", "volumeAttributes": {"a": "b"}})
    );
    let patched = cluster.patch(&path, json!({"metadata": {"labels": {"patched": "yes"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    assert_eq!(cluster.items(&format!("{PODS}?labelSelector=patched%3Dyes")).await.len(), 1);
    cluster.ok("DELETE", &path, Some(json!({"gracePeriodSeconds": 0}))).await;
    cluster.refused("GET", &path, None, 404).await;
}

/// Holds NO-77, NO-78, NO-81.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_class_must_be_there() {
    const CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
    let cluster = Cluster::api().await;
    let mut made = pod("p");
    made["spec"]["runtimeClassName"] = json!("c");
    let refused = cluster.refused("POST", PODS, Some(made.clone()), 403).await;
    assert!(
        refused["message"].as_str().is_some_and(|m| m.contains("RuntimeClass \"c\" not found")),
        "{refused}"
    );
    cluster.create(CLASSES, json!({"metadata": {"name": "c"}, "handler": "h"})).await;
    cluster.create(PODS, made.clone()).await;
    cluster.delete(&format!("{CLASSES}/c")).await;
    made["metadata"]["name"] = json!("q");
    cluster.refused("POST", PODS, Some(made), 403).await;
}

/// Holds SC-01, SC-02.
#[tokio::test(flavor = "multi_thread")]
async fn limit_ranges_fill_in_and_refuse() {
    const RANGES: &str = "/api/v1/namespaces/default/limitranges";
    let cluster = Cluster::api().await;
    let amounts = |cpu: &str, memory: &str, disk: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": disk});
    let limit = json!({"type": "Container", "min": amounts("50m", "100Mi", "100Gi"), "max": amounts("500m", "500Mi", "500Gi"),
        "default": amounts("500m", "500Mi", "500Gi"), "defaultRequest": amounts("100m", "200Mi", "200Gi")});
    let made = cluster
        .create(
            RANGES,
            json!({"metadata": {"name": "l", "labels": {"e2e": "l"}}, "spec": {"limits": [limit]}}),
        )
        .await;
    assert_eq!(made["spec"]["limits"][0], limit);
    let resources = |pod: &Value| pod["spec"]["containers"][0]["resources"].clone();
    let plain = cluster.create(PODS, pod("plain")).await;
    assert_eq!(
        resources(&plain),
        json!({"requests": amounts("100m", "200Mi", "200Gi"), "limits": amounts("500m", "500Mi", "500Gi")})
    );
    let mut partial = pod("partial");
    partial["spec"]["containers"][0]["resources"] =
        json!({"requests": {"memory": "150Mi"}, "limits": {"cpu": "300m"}});
    let partial = cluster.create(PODS, partial).await;
    assert_eq!(
        resources(&partial),
        json!({"requests": amounts("300m", "150Mi", "200Gi"), "limits": amounts("300m", "500Mi", "500Gi")})
    );
    for (name, cpu) in [("small", "10m"), ("large", "600m")] {
        let mut wrong = pod(name);
        wrong["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        cluster.refused("POST", PODS, Some(wrong), 403).await;
    }
    cluster
        .update(&format!("{RANGES}/l"), |range| range["spec"]["limits"][0]["min"]["cpu"] = json!("5m"))
        .await;
    let mut small = pod("small");
    small["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "10m"}});
    cluster.create(PODS, small).await;
    cluster.namespace("other").await;
    let others = "/api/v1/namespaces/other/limitranges";
    cluster
        .create(
            others,
            json!({"metadata": {"name": "l", "labels": {"e2e": "l"}}, "spec": {"limits": [limit]}}),
        )
        .await;
    let everywhere = "/api/v1/limitranges?labelSelector=e2e%3Dl";
    assert_eq!(cluster.items(everywhere).await.len(), 2);
    let mut changed = limit.clone();
    changed["min"]["cpu"] = json!("25m");
    let patched = cluster
        .patch(
            &format!("{RANGES}/l"),
            json!({"metadata": {"labels": {"p": "yes"}}, "spec": {"limits": [changed]}}),
        )
        .await;
    assert_eq!(patched["spec"]["limits"][0]["min"]["cpu"], "25m");
    cluster.ok("DELETE", &format!("{RANGES}?labelSelector=p%3Dyes"), None).await;
    let left = cluster.items(everywhere).await;
    assert_eq!(left.iter().map(|l| l["metadata"]["namespace"].clone()).collect::<Vec<_>>(), [json!("other")]);
    cluster.create(PODS, pod("free")).await;
}

/// The pod's word counts before that of its account.
///
/// Holds AU-03.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_do_without_a_token() {
    let cluster = Cluster::api().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for (account, says) in
        [("default-account", Value::Null), ("mount", json!(true)), ("nomount", json!(false))]
    {
        cluster
            .create(accounts, json!({"metadata": {"name": account}, "automountServiceAccountToken": says}))
            .await;
        for (word, pods) in [("default", Value::Null), ("mount", json!(true)), ("nomount", json!(false))] {
            let mut made = pod(&format!("pod-{account}-{word}"));
            made["spec"]["serviceAccountName"] = json!(account);
            made["spec"]["automountServiceAccountToken"] = pods.clone();
            let made = cluster.create(PODS, made).await;
            let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
            let mounted =
                mounts.filter(|m| m["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount").count()
                    == 1;
            let wanted = pods.as_bool().or(says.as_bool()).unwrap_or(true);
            assert_eq!(mounted, wanted, "{account} {word}: {made}");
        }
    }
}

/// Holds NO-50.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_replaced() {
    let cluster = Cluster::api().await;
    let all = "/api/v1/namespaces/default/podtemplates";
    cluster.create(all, json!({"metadata": {"name": "t"}, "template": super::template("t")})).await;
    let replaced = cluster
        .update(&format!("{all}/t"), |template| {
            template["metadata"]["annotations"] = json!({"updated": "true"});
        })
        .await;
    assert_eq!(replaced["metadata"]["annotations"]["updated"], "true");
}

/// Holds NO-55.
#[tokio::test(flavor = "multi_thread")]
async fn the_quality_of_a_pod_is_told() {
    let cluster = Cluster::api().await;
    let amounts = json!({"cpu": "100m", "memory": "100Mi"});
    for (name, resources, class) in [
        ("guaranteed", json!({"requests": amounts, "limits": amounts}), "Guaranteed"),
        ("burstable", json!({"requests": amounts}), "Burstable"),
        ("best", json!({}), "BestEffort"),
    ] {
        let mut made = pod(name);
        made["spec"]["containers"][0]["resources"] = resources;
        assert_eq!(cluster.create(PODS, made).await["status"]["qosClass"], class);
    }
}

/// Pods are evicted from a node with a taint when the time they tolerate it is over, or not at all.
///
/// Holds NO-40, NO-41.
#[tokio::test(flavor = "multi_thread")]
async fn taints_evict_in_their_time() {
    const NODE: &str = "/api/v1/nodes/node-0";
    let cluster = Cluster::whole(1).await;
    let tolerating = |name: &str, seconds: Value| {
        let mut made = pod(name);
        let mut all = json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}]);
        if !seconds.is_null() {
            all[0]["tolerationSeconds"] = seconds;
        }
        made["spec"]["tolerations"] = all;
        made
    };
    cluster.create(PODS, pod("none")).await;
    cluster.create(PODS, tolerating("soon", json!(1))).await;
    // The shorter of two.
    let mut both = tolerating("both", json!(500));
    let shorter = json!({"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2});
    both["spec"]["tolerations"].as_array_mut().expect("a list").push(shorter);
    cluster.create(PODS, both).await;
    cluster.create(PODS, tolerating("later", json!(4))).await;
    cluster.create(PODS, tolerating("always", Value::Null)).await;
    for pod in ["none", "soon", "both", "later", "always"] {
        cluster.until(&format!("{PODS}/{pod}"), super::is_ready).await;
    }
    cluster
        .patch(NODE, json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}}))
        .await;
    let began = tokio::time::Instant::now();
    for (pod, seconds) in [("none", 0), ("soon", 1), ("both", 2)] {
        cluster.gone(&format!("{PODS}/{pod}")).await;
        assert!(began.elapsed().as_secs() >= seconds, "{pod} went too early");
    }
    // In time for the next one.
    cluster.patch(NODE, json!({"spec": {"taints": null}})).await;
    assert!(began.elapsed().as_secs() < 4, "this machine is too slow to tell");
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    for pod in ["later", "always"] {
        assert!(
            cluster.get(&format!("{PODS}/{pod}")).await["metadata"].get("deletionTimestamp").is_none(),
            "{pod}"
        );
    }
}
