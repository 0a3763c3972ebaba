//! Every kind of the conformance list that is held by nothing but the API, lived through.

use serde_json::{Value, json};

use super::lifecycle::{Case, case, live};
use super::{Cluster, condition, name, pod_spec, template};

/// Lives through kinds one after the other.
async fn all(cases: impl IntoIterator<Item = Case>) {
    let cluster = Cluster::api().await;
    cluster.namespace("lives").await;
    for case in cases {
        live(&cluster, &case).await;
    }
}

/// A condition of a controller's status.
fn told(kind: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"}]})
}

/// The same for kinds whose conditions have no `lastUpdateTime`.
fn condition_of(kind: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

fn workload(app: &str) -> Value {
    json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"app": app}}, "template": template(app)}})
}

/// Holds AM-01, AM-02.
#[tokio::test(flavor = "multi_thread")]
async fn flow_control() {
    const VERSION: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let schema = json!({"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"}}});
    let level = json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2,
        "limitResponse": {"type": "Reject"}}}});
    all([
        case(VERSION, "flowschemas", schema)
            .cluster()
            .change(json!({"spec": {"matchingPrecedence": 9999}}))
            .status(condition_of("E2E")),
        case(VERSION, "prioritylevelconfigurations", level)
            .cluster()
            .change(json!({"spec": {"limited": {"nominalConcurrencyShares": 4}}}))
            .status(condition_of("E2E")),
    ])
    .await;
}

/// Holds AM-67, AM-68, AM-70, AM-71, AM-07, AM-08.
#[tokio::test(flavor = "multi_thread")]
async fn admission() {
    const VERSION: &str = "/apis/admissionregistration.k8s.io/v1";
    // Nothing that these kinds match is written here.
    let rules = json!([{"apiGroups": ["nowhere"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["none"]}]);
    let constraints = json!({"resourceRules": rules});
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: 'add', path: '/metadata/labels', value: Object.metadata.labels{}}]"}});
    let hook = json!({"name": "h.example.com", "clientConfig": {"url": "https://127.0.0.1:1"}, "rules": rules,
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "none", "expression": "object.metadata.name != 'skip-me'"}]});
    let conditions = json!({"webhooks": [{"name": "h.example.com", "clientConfig": {"url": "https://127.0.0.1:1"},
        "rules": rules, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "other", "expression": "object.metadata.name == 'x'"}]}]});
    let binding = |more: Value| {
        let mut spec = json!({"policyName": "nothing"});
        spec.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
        json!({"spec": spec})
    };
    all([
        case(
            VERSION,
            "mutatingadmissionpolicies",
            json!({"spec": {"matchConstraints": constraints,
            "reinvocationPolicy": "Never", "mutations": [mutation]}}),
        )
        .cluster()
        .change(json!({"spec": {"failurePolicy": "Ignore"}})),
        case(VERSION, "mutatingadmissionpolicybindings", binding(json!({}))).cluster(),
        case(
            VERSION,
            "validatingadmissionpolicies",
            json!({"spec": {"matchConstraints": constraints,
            "validations": [{"expression": "true"}]}}),
        )
        .cluster()
        .change(json!({"spec": {"failurePolicy": "Ignore"}}))
        .status(condition_of("E2E")),
        case(VERSION, "validatingadmissionpolicybindings", binding(json!({"validationActions": ["Deny"]})))
            .cluster(),
        case(VERSION, "mutatingwebhookconfigurations", json!({"webhooks": [hook]}))
            .cluster()
            .change(conditions.clone()),
        case(VERSION, "validatingwebhookconfigurations", json!({"webhooks": [hook]}))
            .cluster()
            .change(conditions),
    ])
    .await;
}

/// Holds AP-07, AP-13, AP-21, AP-44, AP-46, AP-57, AP-60.
#[tokio::test(flavor = "multi_thread")]
async fn apps() {
    const VERSION: &str = "/apis/apps/v1";
    let daemons = json!({"spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template("d")}});
    let mut stateful = workload("s");
    stateful["spec"]["serviceName"] = json!("s");
    let image = json!({"spec": {"template": {"metadata": {"annotations": {"again": "yes"}}}}});
    all([
        case(VERSION, "daemonsets", daemons).change(image.clone()).status(condition_of("StatusUpdate")),
        case(VERSION, "deployments", workload("a"))
            .change(json!({"spec": {"replicas": 2}}))
            .status(told("StatusUpdate")),
        case(VERSION, "replicasets", workload("r"))
            .change(json!({"spec": {"replicas": 3}}))
            .status(condition_of("StatusUpdate")),
        case(VERSION, "statefulsets", stateful)
            .change(json!({"spec": {"replicas": 2}}))
            .status(condition_of("StatusUpdate")),
        case(VERSION, "controllerrevisions", json!({"revision": 1, "data": {"spec": {}}}))
            .change(json!({"revision": 2})),
    ])
    .await;
}

/// Holds AP-06, AP-30.
#[tokio::test(flavor = "multi_thread")]
async fn batch() {
    const VERSION: &str = "/apis/batch/v1";
    let mut spec = pod_spec(&["run"]);
    spec["restartPolicy"] = json!("Never");
    let job = json!({"suspend": true, "template": {"spec": spec}});
    let cron = json!({"spec": {"schedule": "* */1 * * ?", "jobTemplate": {"spec": job}}});
    all([
        case(VERSION, "cronjobs", cron)
            .change(json!({"spec": {"suspend": true}}))
            .status(json!({"lastScheduleTime": "2026-01-01T00:00:00Z"})),
        case(VERSION, "jobs", json!({"spec": job}))
            .change(json!({"spec": {"parallelism": 2}}))
            .status(condition_of("E2E")),
    ])
    .await;
}

/// Holds AP-22, AP-24, AP-26.
#[tokio::test(flavor = "multi_thread")]
async fn disruption_budgets() {
    let budget = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    all([case("/apis/policy/v1", "poddisruptionbudgets", budget)
        .change(json!({"spec": {"minAvailable": 2}}))
        .status(
            json!({"observedGeneration": 5, "disruptionsAllowed": 3, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1, "disruptedPods": {"pod": "2026-01-01T00:00:00Z"}}),
        )])
    .await;
}

/// Holds NO-05, NO-86, NO-49, NO-51, NO-39, NO-81.
#[tokio::test(flavor = "multi_thread")]
async fn core_and_nodes() {
    all([
        case("/api/v1", "configmaps", json!({"data": {"a": "1"}})).change(json!({"data": {"a": "2"}})),
        case("/api/v1", "secrets", json!({"data": {"a": "MQ=="}, "type": "Opaque"})).change(json!({"data": {"a": "Mg=="}})),
        case("/api/v1", "podtemplates", json!({"template": template("p")}))
            .change(json!({"template": {"metadata": {"annotations": {"again": "yes"}}}})),
        case("/apis/coordination.k8s.io/v1", "leases", json!({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 30,
            "leaseTransitions": 0, "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:05.000000Z"}}))
            .change(json!({"spec": {"holderIdentity": "i", "leaseTransitions": 1}})),
        case("/apis/node.k8s.io/v1", "runtimeclasses", json!({"handler": "h"})).cluster(),
        case("/api/v1", "replicationcontrollers", json!({"spec": {"replicas": 1, "selector": {"app": "r"}, "template": template("r")}}))
            .change(json!({"spec": {"replicas": 2}}))
            .status(condition_of("StatusUpdate")),
        case("/api/v1", "serviceaccounts", json!({})).change(json!({"automountServiceAccountToken": false})),
        case("/api/v1", "limitranges", json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]}}))
            .change(json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "2"}}]}})),
        case("/api/v1", "resourcequotas", json!({"spec": {"hard": {"pods": "5"}}}))
            .change(json!({"spec": {"hard": {"pods": "6"}}}))
            .status(json!({"hard": {"pods": "6"}, "used": {"pods": "1"}})),
    ])
    .await;
}

/// Holds NE-15, NE-21, NE-22, NE-31, NE-32, NE-17.
#[tokio::test(flavor = "multi_thread")]
async fn network() {
    const VERSION: &str = "/apis/networking.k8s.io/v1";
    let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}],
        "ports": [{"name": "p", "port": 80, "protocol": "TCP"}]});
    let ingress = json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let address = json!({"spec": {"parentRef": {"resource": "things", "name": "t", "namespace": "lives"}}});
    all([
        case("/apis/discovery.k8s.io/v1", "endpointslices", slice).change(json!({"endpoints": [{"addresses": ["10.1.2.4"]}]})),
        case("/api/v1", "endpoints", json!({"subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80, "protocol": "TCP"}]}]}))
            .change(json!({"subsets": [{"addresses": [{"ip": "10.1.2.4"}], "ports": [{"port": 80, "protocol": "TCP"}]}]})),
        case(VERSION, "ingresses", ingress)
            .change(json!({"spec": {"ingressClassName": "c"}}))
            .status(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}})),
        case(VERSION, "ingressclasses", json!({"spec": {"controller": "example.com/controller"}})).cluster(),
        case(VERSION, "ipaddresses", address).cluster().names(["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]),
        case(VERSION, "servicecidrs", json!({"spec": {"cidrs": ["198.51.100.0/24"]}}))
            .cluster()
            .change(json!({"spec": {"cidrs": ["198.51.100.0/24", "2001:db8::/64"]}}))
            .status(condition_of("E2E")),
        case(VERSION, "networkpolicies", json!({"spec": {"podSelector": {}}})).change(json!({"spec": {"policyTypes": ["Egress"]}})),
    ])
    .await;
}

/// Holds ST-01, ST-03, ST-04, ST-44, ST-45, ST-83, ST-89, ST-90, ST-91.
#[tokio::test(flavor = "multi_thread")]
async fn storage() {
    const VERSION: &str = "/apis/storage.k8s.io/v1";
    let volume = json!({"spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "slow",
        "csi": {"driver": "e2e.example", "volumeHandle": "h"}}});
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let attachment = json!({"spec": {"attacher": "e2e.example", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    all([
        case(VERSION, "csidrivers", json!({"spec": {"attachRequired": true}}))
            .cluster()
            .change(json!({"spec": {"podInfoOnMount": true}})),
        case(VERSION, "csinodes", json!({"spec": {"drivers": []}}))
            .cluster()
            .change(json!({"spec": {"drivers":
            [{"name": "e2e.example", "nodeID": "1"}]}})),
        case(VERSION, "csistoragecapacities", json!({"storageClassName": "slow", "capacity": "1Gi"}))
            .change(json!({"capacity": "2Gi"})),
        case("/api/v1", "persistentvolumes", volume)
            .cluster()
            .change(json!({"spec": {"capacity": {"storage": "3Gi"}}}))
            .status(json!({"reason": "StatusPatched", "message": "Set from e2e test"})),
        case("/api/v1", "persistentvolumeclaims", claim).status(condition_of("StatusPatched")),
        case(VERSION, "storageclasses", json!({"provisioner": "e2e.example", "reclaimPolicy": "Delete"}))
            .cluster()
            .change(json!({"allowVolumeExpansion": true})),
        case(VERSION, "volumeattachments", attachment).cluster().status(json!({"attached": true,
            "attachmentMetadata": {"k": "v"}})),
        case(
            VERSION,
            "volumeattributesclasses",
            json!({"driverName": "e2e.example", "parameters": {"a": "b"}}),
        )
        .cluster(),
    ])
    .await;
}

/// Holds NO-103, NO-104, NO-105, NO-106.
#[tokio::test(flavor = "multi_thread")]
async fn dynamic_resources() {
    const VERSION: &str = "/apis/resource.k8s.io/v1";
    let claim = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    let result = json!({"request": "r", "driver": "e2e.example", "pool": "p", "device": "d"});
    let slice = json!({"spec": {"driver": "e2e.example", "nodeName": "n", "pool": {"name": "p", "resourceSliceCount": 1},
        "devices": [{"name": "d"}]}});
    all([
        case(
            VERSION,
            "deviceclasses",
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'e'"}}]}}),
        )
        .cluster()
        .change(json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'f'"}}]}})),
        case(VERSION, "resourceclaims", json!({"spec": claim}))
            .status(json!({"allocation": {"devices": {"results": [result]}}})),
        case(VERSION, "resourceclaimtemplates", json!({"spec": {"spec": claim}})),
        case(VERSION, "resourceslices", slice).cluster().change(json!({"spec": {"pool": {"generation": 2}}})),
    ])
    .await;
}

/// Kinds without a behaviour of their own in the list.
#[tokio::test(flavor = "multi_thread")]
async fn others() {
    let rules = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let binding =
        |kind: &str| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "r"}});
    let subjects =
        json!({"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}]});
    let scaler = json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    all([
        case(rbac, "roles", rules.clone())
            .change(json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]})),
        case(rbac, "clusterroles", rules)
            .cluster()
            .change(json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]})),
        case(rbac, "rolebindings", binding("Role")).change(subjects.clone()),
        case(rbac, "clusterrolebindings", binding("ClusterRole")).cluster().change(subjects),
        case("/apis/autoscaling/v2", "horizontalpodautoscalers", scaler.clone())
            .change(json!({"spec": {"maxReplicas": 4}}))
            .status(json!({"currentReplicas": 1, "desiredReplicas": 2})),
        case("/apis/autoscaling/v1", "horizontalpodautoscalers", scaler)
            .change(json!({"spec": {"targetCPUUtilizationPercentage": 50}}))
            .status(
                json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 3}),
            ),
    ])
    .await;
}

/// Holds AU-01.
#[tokio::test(flavor = "multi_thread")]
async fn certificate_requests() {
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = skep_auth::certificates::NewKey::generate().expect("a key");
    let request = key.request("system:e2e", "", &[], &[]).expect("a request");
    let spec = json!({"request": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request),
        "signerName": "example.com/e2e", "expirationSeconds": 3600, "usages": ["client auth"]});
    all([case("/apis/certificates.k8s.io/v1", "certificatesigningrequests", json!({"spec": spec}))
        .cluster()
        .status(condition_of("E2E"))])
    .await;
    let cluster = Cluster::api().await;
    cluster.create(REQUESTS, json!({"metadata": {"name": "e"}, "spec": spec})).await;
    let approval = format!("{REQUESTS}/e/approval");
    let before = cluster.get(&approval).await;
    assert_eq!(name(&before), "e");
    let verdict = |reason: &str| json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": reason, "message": "m"}]}});
    let patched = cluster.patch(&approval, verdict("ApprovedPatch")).await;
    assert_eq!(condition(&patched, "Approved"), "True", "{patched}");
    let updated = cluster
        .update(&approval, |object| {
            let more = json!({"type": "ApprovedUpdate", "status": "True", "reason": "r", "message": "m"});
            object["status"]["conditions"].as_array_mut().expect("conditions").push(more);
        })
        .await;
    assert_eq!(condition(&updated, "ApprovedUpdate"), "True", "{updated}");
    let status = format!("{REQUESTS}/e/status");
    assert_eq!(name(&cluster.get(&status).await), "e");
    let patched = cluster.patch(&status, json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": condition_of("StatusPatch")})).await;
    assert_eq!(condition(&patched, "Approved"), "True", "a verdict is not taken back by the status");
}

/// Holds SC-08.
#[tokio::test(flavor = "multi_thread")]
async fn priority_classes_keep_their_value() {
    const VERSION: &str = "/apis/scheduling.k8s.io/v1";
    all([case(VERSION, "priorityclasses", json!({"value": 1}))
        .cluster()
        .change(json!({"description": "patched"}))])
    .await;
    let cluster = Cluster::api().await;
    let classes = format!("{VERSION}/priorityclasses");
    cluster.create(&classes, json!({"metadata": {"name": "p1"}, "value": 1})).await;
    let refused = cluster.refused("PATCH", &format!("{classes}/p1"), Some(json!({"value": 2})), 422).await;
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|m| m.contains("value: Forbidden: may not be changed in an update.")),
        "{refused}"
    );
    let mut other = cluster.get(&format!("{classes}/p1")).await;
    other["value"] = json!(3);
    cluster.refused("PUT", &format!("{classes}/p1"), Some(other), 422).await;
    assert_eq!(cluster.get(&format!("{classes}/p1")).await["value"], 1);
}

/// Holds NO-42.
#[tokio::test(flavor = "multi_thread")]
async fn nodes() {
    let amounts = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    all([case(
        "/api/v1",
        "nodes",
        json!({"spec": {"unschedulable": true}, "status": {"capacity": amounts}}),
    )
    .cluster()
    .change(json!({"spec": {"providerID": "e2e://a"}}))
    .status(json!({"phase": "Running"}))])
    .await;
}

/// A map that is immutable keeps its data and the flag; its metadata may change, and it may go.
///
/// Holds ST-14, ST-82, NO-04, NO-85.
#[tokio::test(flavor = "multi_thread")]
async fn immutable_maps_and_empty_keys() {
    let cluster = Cluster::api().await;
    for plural in ["configmaps", "secrets"] {
        let all = format!("/api/v1/namespaces/default/{plural}");
        let (one, other) = if plural == "secrets" { ("MQ==", "Mg==") } else { ("1", "2") };
        cluster.create(&all, json!({"metadata": {"name": "a"}, "data": {"k": one}})).await;
        let path = format!("{all}/a");
        cluster.patch(&path, json!({"data": {"k": other}})).await;
        cluster.patch(&path, json!({"immutable": true})).await;
        for change in [
            json!({"immutable": false}),
            json!({"immutable": null}),
            json!({"data": {"k": one}}),
            json!({"data": {"l": one}}),
        ] {
            let refused = cluster.refused("PATCH", &path, Some(change), 422).await;
            let message = refused["message"].as_str().unwrap_or_default();
            assert!(message.contains("field is immutable when `immutable` is set"), "{message}");
        }
        let changed = cluster.patch(&path, json!({"metadata": {"labels": {"l": "v"}}})).await;
        assert_eq!(changed["metadata"]["labels"]["l"], "v");
        cluster.delete(&path).await;
        let empty = json!({"metadata": {"name": "e"}, "data": {"": one}});
        let refused = cluster.refused("POST", &all, Some(empty), 422).await;
        assert!(
            refused["message"].as_str().is_some_and(|m| m.contains("a valid config key must consist of")),
            "{refused}"
        );
    }
}

/// Holds AU-08, AU-09.
#[tokio::test(flavor = "multi_thread")]
async fn service_accounts() {
    let cluster = Cluster::api().await;
    let all = "/api/v1/namespaces/default/serviceaccounts";
    let version =
        cluster.get(all).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch =
        cluster.watch(&format!("{all}?labelSelector=test%3Dstatic&resourceVersion={version}")).await;
    cluster.create(all, json!({"metadata": {"name": "s", "labels": {"test": "static"}}})).await;
    watch.see("ADDED", |object| name(object) == "s").await;
    let path = format!("{all}/s");
    cluster.patch(&path, json!({"automountServiceAccountToken": false})).await;
    watch.see("MODIFIED", |object| object["automountServiceAccountToken"] == false).await;
    let updated = cluster.update(&path, |object| object["automountServiceAccountToken"] = json!(true)).await;
    assert_eq!(updated["automountServiceAccountToken"], true);
    let everywhere = cluster.items("/api/v1/serviceaccounts?labelSelector=test%3Dstatic").await;
    assert_eq!(everywhere.len(), 1);
    cluster.delete(&path).await;
    watch.see("DELETED", |object| name(object) == "s").await;
}
