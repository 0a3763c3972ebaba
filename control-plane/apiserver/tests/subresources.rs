//! What lies below objects, over HTTP: scale, ephemeral containers, resize, eviction, and who owns what after.

use serde_json::{Value, json};

use crate::support::Server;

const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i",
            "resources": {"requests": {"cpu": "100m"}}}]}})
}

async fn apply(server: &Server, path: &str, manager: &str, body: &Value, more: &str) -> (u16, Value) {
    let path = format!("{path}?fieldManager={manager}{more}");
    let (status, answer) = server.send_as("PATCH", &path, APPLY, body.to_string()).await;
    (status.as_u16(), answer)
}

fn entry<'a>(object: &'a Value, manager: &str, subresource: &str) -> Option<&'a Value> {
    object["metadata"]["managedFields"].as_array()?.iter().find(|entry| {
        entry["manager"] == manager && entry["subresource"].as_str().unwrap_or_default() == subresource
    })
}

/// Holds AP-14, CL-16.
#[tokio::test]
async fn a_scale_is_applied_with_owners() {
    let server = Server::start().await;
    assert_eq!(apply(&server, &format!("{DEPLOYMENTS}/web"), "owner", &deployment(), "").await.0, 201);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": 5}});
    let path = format!("{DEPLOYMENTS}/web/scale");
    let (status, conflict) = apply(&server, &path, "scaler", &scale, "").await;
    assert_eq!(status, 409, "{conflict}");
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"owner\": .spec.replicas");
    let (status, scaled) = apply(&server, &path, "scaler", &scale, "&force=true").await;
    assert_eq!((status, &scaled["kind"], &scaled["spec"]["replicas"]), (200, &json!("Scale"), &json!(5)));
    let (_, object) = server.send("GET", &format!("{DEPLOYMENTS}/web"), None).await;
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(object["metadata"]["generation"], 2);
    let scaler = entry(&object, "scaler", "scale").expect("an entry");
    assert_eq!(scaler["operation"], "Apply");
    assert_eq!(scaler["apiVersion"], "apps/v1");
    assert_eq!(scaler["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(entry(&object, "owner", "").expect("an entry")["fieldsV1"]["f:spec"].get("f:replicas"), None);
    // The same again changes nothing.
    let (status, again) = apply(&server, &path, "scaler", &scale, "").await;
    assert_eq!(
        (status, &again["metadata"]["resourceVersion"]),
        (200, &object["metadata"]["resourceVersion"])
    );
    // An update through the scale is an update of the subresource.
    let (status, _) = server.send("PATCH", &path, Some(json!({"spec": {"replicas": 3}}))).await;
    assert_eq!(status, 200);
    let (_, object) = server.send("GET", &format!("{DEPLOYMENTS}/web"), None).await;
    assert!(entry(&object, "scaler", "scale").is_none(), "{object}");
    let (status, wrong) =
        apply(&server, &path, "scaler", &json!({"apiVersion": "apps/v1", "kind": "Deployment"}), "").await;
    assert_eq!(status, 400, "{wrong}");
    let (status, bad) = server.send("PATCH", &path, Some(json!({"spec": {"replicas": -1}}))).await;
    assert_eq!(status, 422);
    assert_eq!(
        bad["message"],
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[tokio::test]
async fn ephemeral_containers_and_resizes_are_applied() {
    let server = Server::start().await;
    let (status, made) = server.send("POST", PODS, Some(pod("p"))).await;
    assert_eq!(status, 201, "{made}");
    let debug = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"ignored": "1"}},
        "spec": {"ephemeralContainers": [{"name": "d", "image": "busybox"}]}});
    let path = format!("{PODS}/p/ephemeralcontainers");
    let (status, got) = apply(&server, &path, "debugger", &debug, "").await;
    assert_eq!(status, 200, "{got}");
    assert_eq!(got["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"], "File");
    assert_eq!(got["metadata"]["labels"], json!({"app": "x"}));
    let owned = entry(&got, "debugger", "ephemeralcontainers").unwrap_or_else(|| panic!("{got}"));
    assert_eq!(owned["operation"], "Apply");
    assert!(owned["fieldsV1"]["f:spec"]["f:ephemeralContainers"]["k:{\"name\":\"d\"}"].is_object());
    assert!(owned["fieldsV1"].get("f:metadata").is_none(), "{owned}");
    let (status, gone) = apply(
        &server,
        &path,
        "debugger",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}),
        "",
    )
    .await;
    assert_eq!(status, 422, "{gone}");
    let more = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "200m"}}}]}});
    let (status, resized) = apply(&server, &format!("{PODS}/p/resize"), "vpa", &more, "&force=true").await;
    assert_eq!(status, 200, "{resized}");
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "200m");
    assert_eq!(resized["metadata"]["generation"], 3);
    let owned = entry(&resized, "vpa", "resize").expect("an entry");
    let container = &owned["fieldsV1"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(container["f:resources"], json!({"f:requests": {"f:cpu": {}}}));
}

fn budget() -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}})
}

/// Holds AP-23.
#[tokio::test]
async fn evictions_ask_the_budget() {
    let server = Server::start().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let running = |ready: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    for name in ["p", "q"] {
        server.send("POST", PODS, Some(pod(name))).await;
        let (status, _) = server.send("PATCH", &format!("{PODS}/{name}/status"), Some(running("True"))).await;
        assert_eq!(status, 200);
    }
    let (status, made) = server.send("POST", budgets, Some(budget())).await;
    assert_eq!(status, 201, "{made}");
    let eviction =
        |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let evict = async |name: &str, query: &str| {
        let path = format!("{PODS}/{name}/eviction{query}");
        server.send("POST", &path, Some(eviction(name))).await
    };
    let (status, early) = evict("p", "").await;
    assert_eq!(status, 429);
    assert!(
        early["message"]
            .as_str()
            .is_some_and(|text| text.contains("is still being processed by the server."))
    );
    let counts = |allowed: i64| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 2,
            "desiredHealthy": 2, "expectedPods": 2}})
    };
    server.send("PATCH", &format!("{budgets}/b/status"), Some(counts(0))).await;
    let (status, refused) = evict("p", "").await;
    assert_eq!((status.as_u16(), &refused["reason"]), (429, &json!("TooManyRequests")));
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "The disruption budget b needs 2 healthy pods and has 2 currently"
    );
    server.send("PATCH", &format!("{budgets}/b/status"), Some(counts(1))).await;
    let (status, _) = evict("p", "?dryRun=All").await;
    assert_eq!(status, 201);
    let (_, stored) = server.send("GET", &format!("{budgets}/b"), None).await;
    assert_eq!(stored["status"]["disruptionsAllowed"], 1);
    assert_eq!(evict("p", "").await.0, 201);
    let (_, stored) = server.send("GET", &format!("{budgets}/b"), None).await;
    assert_eq!(stored["status"]["disruptionsAllowed"], 0);
    let (_, evicted) = server.send("GET", &format!("{PODS}/p"), None).await;
    assert!(evicted["metadata"]["deletionTimestamp"].is_string(), "{evicted}");
    let conditions = evicted["status"]["conditions"].as_array().expect("conditions");
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("a condition");
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    // A pod that is not ready disturbs nobody while the others are enough.
    server.send("PATCH", &format!("{PODS}/q/status"), Some(running("False"))).await;
    assert_eq!(evict("q", "").await.0, 201);
    let (status, _) = server.send("DELETE", &format!("{budgets}/b"), None).await;
    assert_eq!(status, 200);
    server.send("POST", PODS, Some(pod("r"))).await;
    server.send("PATCH", &format!("{PODS}/r/status"), Some(running("True"))).await;
    for name in ["b1", "b2"] {
        let mut more = budget();
        more["metadata"]["name"] = json!(name);
        server.send("POST", budgets, Some(more)).await;
    }
    let (status, two) = evict("r", "").await;
    assert_eq!(status, 500);
    assert!(two["message"].as_str().is_some_and(|text| text.contains("more than one PodDisruptionBudget")));
}

/// Some kinds answer a deletion with the object, the others with a status.
#[tokio::test]
async fn deletions_answer_as_upstream() {
    let server = Server::start().await;
    let mut unbound = pod("p");
    unbound["spec"].as_object_mut().expect("a spec").remove("nodeName");
    server.send("POST", PODS, Some(unbound)).await;
    let (status, gone) = server.send("DELETE", &format!("{PODS}/p"), None).await;
    assert_eq!((status.as_u16(), &gone["kind"]), (200, &json!("Pod")));
    let maps = "/api/v1/namespaces/default/configmaps";
    server.send("POST", maps, Some(json!({"metadata": {"name": "c"}}))).await;
    let (_, gone) = server.send("DELETE", &format!("{maps}/c"), None).await;
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    let (status, components) = server.send("GET", "/api/v1/componentstatuses", None).await;
    assert_eq!((status.as_u16(), &components["items"][0]["metadata"]["name"]), (200, &json!("etcd-0")));
}

/// What is applied through one version of a kind is known to who writes through another.
#[tokio::test]
async fn ownership_crosses_versions() {
    let server = Server::start().await;
    let path =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h");
    let scaler = |version: &str, more: Value| {
        let mut spec = json!({"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec})
    };
    let (status, made) =
        apply(&server, &path("v1"), "a", &scaler("v1", json!({"targetCPUUtilizationPercentage": 50})), "")
            .await;
    assert_eq!(status, 201, "{made}");
    // The percentage is in the list of metrics of v2, which is one value there.
    let (status, mut seen) = server.send("GET", &path("v2"), None).await;
    assert_eq!(status, 200);
    seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = json!(70);
    let (status, updated) = server.send("PUT", &format!("{}?fieldManager=b", path("v2")), Some(seen)).await;
    assert_eq!(status, 200, "{updated}");
    let fields = &entry(&updated, "a", "").expect("a still owns the rest")["fieldsV1"]["f:spec"];
    assert!(
        fields.get("f:targetCPUUtilizationPercentage").is_none() && fields.get("f:maxReplicas").is_some(),
        "{fields}"
    );
    let (status, conflict) =
        apply(&server, &path("v1"), "a", &scaler("v1", json!({"targetCPUUtilizationPercentage": 50})), "")
            .await;
    assert_eq!(status, 409, "{conflict}");
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.metrics", "{conflict}");
    let (status, forced) = apply(
        &server,
        &path("v1"),
        "a",
        &scaler("v1", json!({"targetCPUUtilizationPercentage": 50})),
        "&force=true",
    )
    .await;
    assert_eq!((status, &forced["spec"]["targetCPUUtilizationPercentage"]), (200, &json!(50)), "{forced}");
    assert!(entry(&forced, "b", "").is_none(), "{forced}");
    // Applied through the other version from now on: what is left out there goes.
    let (status, moved) = apply(&server, &path("v2"), "a", &scaler("v2", json!({})), "").await;
    assert_eq!(status, 200, "{moved}");
    assert_eq!(
        moved["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80,
        "the default again: {moved}"
    );
    assert_eq!(entry(&moved, "a", "").expect("one entry")["apiVersion"], "autoscaling/v2");
}
