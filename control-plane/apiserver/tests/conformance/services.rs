//! Services, and where the traffic to them goes: endpoints and slices.

use serde_json::{Value, json};

use super::{Cluster, condition, name, template};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn of(service: &str) -> String {
    format!("{SLICES}?labelSelector=kubernetes.io%2Fservice-name%3D{service}")
}

/// Holds NE-01, NE-02, NE-42.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_a_service_with_the_addresses_of_its_servers() {
    let cluster = Cluster::whole(0).await;
    let service = cluster.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(
        (&service["spec"]["ports"][0]["name"], &service["spec"]["ports"][0]["port"]),
        (&json!("https"), &json!(443))
    );
    assert!(cluster.items("/api/v1/services").await.iter().any(|s| name(s) == "kubernetes"));
    let endpoints = cluster.get(&format!("{ENDPOINTS}/kubernetes")).await;
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1", "{endpoints}");
    let slices = cluster.items(&of("kubernetes")).await;
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0]["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    assert_eq!(slices[0]["ports"][0]["port"], 6443);
    // And its range and addresses are objects.
    let range = cluster
        .until("/apis/networking.k8s.io/v1/servicecidrs/kubernetes", |range| {
            range["metadata"]["finalizers"] == json!(["networking.k8s.io/service-cidr-finalizer"])
        })
        .await;
    assert_eq!(condition(&range, "Ready"), "True");
    let address = cluster.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1").await;
    assert_eq!(address["spec"]["parentRef"]["name"], "kubernetes");
}

/// Pods of a service are in its slices and endpoints, by port; nothing is left when it goes.
///
/// Holds NE-11, NE-18.
#[tokio::test(flavor = "multi_thread")]
async fn slices_follow_pods_and_service() {
    let cluster = Cluster::whole(1).await;
    let ports = json!([{"name": "one", "port": 80, "targetPort": 3000}, {"name": "two", "port": 9090, "targetPort": "named"}]);
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}, "ports": ports}});
    cluster.create(SERVICES, service).await;
    for (pod, port) in [("a", 3001), ("b", 3002)] {
        let mut spec = template("web")["spec"].clone();
        spec["containers"][0]["ports"] = json!([{"name": "named", "containerPort": port}]);
        cluster
            .create(PODS, json!({"metadata": {"name": pod, "labels": {"app": "web"}}, "spec": spec}))
            .await;
    }
    let mut addresses = Vec::new();
    for pod in ["a", "b"] {
        let pod = cluster.until(&format!("{PODS}/{pod}"), super::is_ready).await;
        addresses.push(pod["status"]["podIP"].as_str().expect("an address").to_owned());
    }
    addresses.sort();
    let slices = cluster
        .until(&of("s"), |list| {
            let mut found: Vec<&str> = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
                .filter(|endpoint| endpoint["conditions"]["ready"] == true)
                .filter_map(|endpoint| endpoint["addresses"][0].as_str())
                .collect();
            found.sort_unstable();
            found == addresses
        })
        .await;
    for slice in slices["items"].as_array().into_iter().flatten() {
        let port = |name: &str| {
            slice["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|p| p["name"] == name)
                .map(|p| p["port"].clone())
        };
        assert_eq!(port("one"), Some(json!(3000)), "{slice}");
        let target = slice["endpoints"][0]["targetRef"]["name"].as_str().unwrap_or_default();
        assert_eq!(port("two"), Some(json!(if target == "a" { 3001 } else { 3002 })), "{slice}");
    }
    cluster
        .until(&format!("{ENDPOINTS}/s"), |endpoints| {
            let mut found: Vec<&str> = endpoints["subsets"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|subset| subset["addresses"].as_array().into_iter().flatten())
                .filter_map(|address| address["ip"].as_str())
                .collect();
            found.sort_unstable();
            found.dedup();
            found == addresses
        })
        .await;
    cluster.ok("DELETE", &format!("{PODS}/a?gracePeriodSeconds=0"), None).await;
    cluster
        .until(&of("s"), |list| {
            list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|s| s["endpoints"].as_array().map_or(0, Vec::len))
                .sum::<usize>()
                == 1
        })
        .await;
    cluster.delete(&format!("{SERVICES}/s")).await;
    cluster.count(&of("s"), 0).await;
    cluster.gone(&format!("{ENDPOINTS}/s")).await;
}

/// Holds NE-12, NE-19.
#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_matches_nothing_has_an_empty_slice() {
    let cluster = Cluster::whole(0).await;
    let service = json!({"metadata": {"name": "none"}, "spec": {"selector": {"does-not": "match-anything"}, "ports": [{"port": 80}]}});
    cluster.create(SERVICES, service).await;
    let slices = cluster.count(&of("none"), 1).await;
    assert_eq!(slices[0]["endpoints"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(slices[0]["metadata"]["ownerReferences"][0]["name"], "none");
    let endpoints = cluster.until(&format!("{ENDPOINTS}/none"), |_| true).await;
    assert_eq!(endpoints["subsets"].as_array().map_or(0, Vec::len), 0, "{endpoints}");
    cluster.delete(&format!("{SERVICES}/none")).await;
    cluster.count(&of("none"), 0).await;
    cluster.gone(&format!("{ENDPOINTS}/none")).await;
}

/// Holds NE-16.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_made_by_hand_are_mirrored() {
    let cluster = Cluster::whole(0).await;
    cluster.create(SERVICES, json!({"metadata": {"name": "hand"}, "spec": {"ports": [{"port": 80}]}})).await;
    let subset = |address: &str| json!([{"addresses": [{"ip": address}], "ports": [{"port": 80}]}]);
    cluster.create(ENDPOINTS, json!({"metadata": {"name": "hand"}, "subsets": subset("10.1.2.3")})).await;
    let shows = async |address: &str| {
        cluster
            .until(&of("hand"), |list| {
                let slices = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
                slices.len() == 1
                    && slices[0]["endpoints"]
                        .as_array()
                        .is_some_and(|e| e.len() == 1 && e[0]["addresses"] == json!([address]))
            })
            .await
    };
    let list = shows("10.1.2.3").await;
    assert_eq!(
        list["items"][0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslicemirroring-controller.k8s.io"
    );
    cluster.patch(&format!("{ENDPOINTS}/hand"), json!({"subsets": subset("10.2.3.4")})).await;
    shows("10.2.3.4").await;
    cluster.delete(&format!("{ENDPOINTS}/hand")).await;
    cluster.count(&of("hand"), 0).await;
}

/// Holds NE-40, NE-41.
#[tokio::test(flavor = "multi_thread")]
async fn services_are_told_of_and_removed_together() {
    let cluster = Cluster::api().await;
    let service = |name: &str, color: &str| {
        json!({"metadata": {"name": name, "labels": {"color": color}},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]}})
    };
    let version =
        cluster.get(SERVICES).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = cluster.watch(&format!("{SERVICES}?labelSelector=color&resourceVersion={version}")).await;
    cluster.create(SERVICES, service("a", "red")).await;
    watch.see("ADDED", |s| name(s) == "a").await;
    let status = format!("{SERVICES}/a/status");
    let balancer = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    cluster.patch(&status, balancer).await;
    watch.see("MODIFIED", |s| s["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1").await;
    assert_eq!(name(&cluster.get(&status).await), "a");
    cluster
        .update(&status, |s| {
            s["status"]["conditions"] = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        })
        .await;
    watch.see("MODIFIED", |s| condition(s, "StatusUpdate") == "True").await;
    cluster.patch(&format!("{SERVICES}/a"), json!({"metadata": {"labels": {"service": "patched"}}})).await;
    watch.see("MODIFIED", |s| s["metadata"]["labels"]["service"] == "patched").await;
    cluster.delete(&format!("{SERVICES}/a")).await;
    watch.see("DELETED", |s| name(s) == "a").await;
    for (name, color) in [("b", "red"), ("c", "red"), ("d", "blue")] {
        cluster.create(SERVICES, service(name, color)).await;
    }
    cluster.ok("DELETE", &format!("{SERVICES}?labelSelector=color%3Dred"), None).await;
    let left = cluster.items(&format!("{SERVICES}?labelSelector=color")).await;
    assert_eq!(left.iter().map(name).collect::<Vec<_>>(), ["d"]);
}

/// What kind a service is decides what it is given.
async fn becomes(from: Value, to: Value) -> (Value, Value) {
    let cluster = Cluster::api().await;
    let with = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    let before = cluster.create(SERVICES, with(from)).await;
    let after = cluster
        .update(&format!("{SERVICES}/s"), |service| {
            for (field, value) in to.as_object().into_iter().flatten() {
                service["spec"][field] = value.clone();
            }
        })
        .await;
    if after["spec"].get("clusterIP").is_none() {
        let address = before["spec"]["clusterIP"].as_str().unwrap_or_default();
        let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{address}");
        cluster.refused("GET", &path, None, 404).await;
    }
    (before, after)
}

/// Addresses and ports are given and taken back with the type.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_change_its_type() {
    let ports = json!([{"port": 80}]);
    let (before, after) = becomes(
        json!({"type": "NodePort", "ports": ports}),
        json!({"type": "ExternalName", "externalName": "example.com", "clusterIP": "", "clusterIPs": []}),
    )
    .await;
    assert!(before["spec"]["ports"][0]["nodePort"].is_u64(), "{before}");
    assert!(
        after["spec"].get("clusterIP").is_none() && after["spec"]["ports"][0].get("nodePort").is_none(),
        "{after}"
    );
    let (before, after) = becomes(
        json!({"type": "ExternalName", "externalName": "example.com"}),
        json!({"type": "NodePort", "externalName": null, "ports": ports}),
    )
    .await;
    assert!(before["spec"].get("clusterIP").is_none(), "{before}");
    assert!(
        after["spec"]["clusterIP"].is_string() && after["spec"]["ports"][0]["nodePort"].is_u64(),
        "{after}"
    );
}

/// A range that is added gives addresses, is kept while they are used, and goes then.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_comes_and_goes() {
    const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let cluster = Cluster::whole(0).await;
    cluster.create(RANGES, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["192.0.2.0/28"]}})).await;
    cluster.until(&format!("{RANGES}/more"), |range| condition(range, "Ready") == "True").await;
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "192.0.2.5", "ports": [{"port": 80}]}});
    let made = async {
        loop {
            let (status, answer) = cluster.server.send("POST", SERVICES, Some(service.clone())).await;
            if status == 201 {
                return;
            }
            assert!(
                answer["message"].as_str().is_some_and(|m| m.contains("is not in the valid range")),
                "{answer}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, made).await.expect("the range serves in time");
    cluster.delete(&format!("{RANGES}/more")).await;
    let held = cluster.until(&format!("{RANGES}/more"), |range| condition(range, "Ready") == "False").await;
    assert_eq!(held["status"]["conditions"][0]["reason"], "Terminating");
    let late =
        json!({"metadata": {"name": "late"}, "spec": {"clusterIP": "192.0.2.6", "ports": [{"port": 80}]}});
    cluster.refused("POST", SERVICES, Some(late), 422).await;
    cluster.delete(&format!("{SERVICES}/s")).await;
    cluster.gone("/apis/networking.k8s.io/v1/ipaddresses/192.0.2.5").await;
    cluster.gone(&format!("{RANGES}/more")).await;
}

/// Holds AU-05.
#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_has_the_authority() {
    let cluster = Cluster::whole(0).await;
    cluster.namespace("n").await;
    let path = "/api/v1/namespaces/n/configmaps/kube-root-ca.crt";
    let made = cluster.until(path, |map| map["data"]["ca.crt"].is_string()).await;
    cluster.delete(path).await;
    cluster
        .until(path, |map| map["metadata"]["uid"] != made["metadata"]["uid"] && map["data"] == made["data"])
        .await;
    cluster.patch(path, json!({"data": {"ca.crt": ""}})).await;
    cluster.until(path, |map| map["data"] == made["data"]).await;
}
