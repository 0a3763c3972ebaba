//! Tables: what is wrong with a pod, what may change, how it prints.

mod changes;
mod rules;

use super::*;

fn pod(spec: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec});
    ROW.default(&mut object);
    object
}

fn simple() -> Value {
    pod(&json!({"containers": [{"name": "a", "image": "nginx"}]}))
}

#[track_caller]
fn refused(spec: &Value, want: &[&str]) {
    assert_eq!(ROW.validate_create(&pod(spec)).lines(), want);
}

#[test]
fn a_simple_pod_is_valid() {
    assert_eq!(ROW.validate_create(&simple()).lines(), Vec::<String>::new());
}

#[test]
fn every_error_is_told() {
    refused(&json!({"containers": []}), &["spec.containers: Required value"]);
    refused(
        &json!({"restartPolicy": "X", "containers": [
            {"name": "a"},
            {"name": "a", "image": "i", "ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "tcp"}]},
        ]}),
        &[
            "spec.containers[0].image: Required value",
            "spec.containers[1].ports[0].containerPort: Required value",
            "spec.containers[1].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[1].ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[1].name: Duplicate value: \"a\"",
            "spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    refused(
        &json!({"containers": [{"name": "a", "image": "i",
            "volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "gone", "mountPath": "/x", "subPath": "/a"}],
            "resources": {"requests": {"cpu": "2", "foo": "1"}, "limits": {"cpu": "500m"}},
            "env": [{"name": "X", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}],
            "volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}, {"name": "v"}]}),
        &[
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].name: Duplicate value: \"v\"",
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].volumeMounts[1].name: Not found: \"gone\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/a\": must be a relative path",
            "spec.containers[0].resources.requests: Invalid value: \"foo\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests: Invalid value: \"foo\": must be a standard resource for containers",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 500m",
        ],
    );
    refused(
        &json!({"containers": [{"name": "a", "image": "i", "livenessProbe": {"successThreshold": 2}}],
            "tolerations": [{"operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}],
            "dnsPolicy": "None"}),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
}

#[test]
fn only_a_few_fields_change() {
    let old = simple();
    let change = |path: &[&str], value: Value| {
        let mut new = old.clone();
        new.set(path, value);
        ROW.validate_update(&new, &old).lines()
    };
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "other".into();
    assert!(ROW.validate_update(&new, &old).is_empty());
    assert!(change(&["spec", "activeDeadlineSeconds"], json!(5)).is_empty());
    assert!(change(&["spec", "tolerations"], json!([{"operator": "Exists"}])).is_empty());
    assert!(change(&["metadata", "labels"], json!({"a": "b"})).is_empty());
    let lines = change(&["spec", "nodeName"], json!("n1"));
    assert!(
        lines[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{lines:?}"
    );
    assert_eq!(
        change(&["metadata", "name"], json!("q")),
        ["metadata.name: Invalid value: \"q\": field is immutable"]
    );
}

#[test]
fn quality_of_service() {
    for (resources, want) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
    ] {
        let mut object = pod(&json!({"containers": [{"name": "a", "image": "i", "resources": resources}]}));
        ROW.prepare_create(&mut object);
        assert_eq!(object["status"]["qosClass"], want);
        assert_eq!(object.generation(), 1);
    }
}

#[test]
fn deletion() {
    let mut object = simple();
    assert_eq!(ROW.strategy.graceful_delete(&object, None), Some(0));
    object.set(&["spec", "nodeName"], "n1");
    assert_eq!(ROW.strategy.graceful_delete(&object, None), Some(30));
    assert_eq!(ROW.strategy.graceful_delete(&object, Some(0)), Some(0));
    assert_eq!(ROW.strategy.graceful_delete(&object, Some(-1)), Some(1));
    object.set(&["status", "phase"], "Succeeded");
    assert_eq!(ROW.strategy.graceful_delete(&object, Some(9)), Some(0));
}

#[test]
fn status_updates_keep_the_rest() {
    let mut old = simple();
    ROW.prepare_create(&mut old);
    let mut new = old.clone();
    new.set(&["spec", "nodeName"], "x");
    new.set(&["status"], json!({"phase": "Running"}));
    ROW.prepare_status_update(&mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["status"], json!({"phase": "Running", "qosClass": "BestEffort"}));
}

#[test]
fn rows() {
    let now: Timestamp = "2026-01-01T00:05:30Z".parse().unwrap();
    let running = json!({"ready": true, "state": {"running": {}}});
    let cases = [
        (json!({"phase": "Pending"}), "0/1 Pending 0"),
        (json!({"phase": "Running", "containerStatuses": [running]}), "1/1 Running 0"),
        (
            json!({"phase": "Running", "containerStatuses": [{"restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}}]}),
            "0/1 CrashLoopBackOff 3 (30s ago)",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [
                {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
            "0/1 Completed 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            "0/1 Init:0/0 0",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            "0/1 SchedulingGated 0",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/1 Evicted 0"),
    ];
    for (status, want) in cases {
        let mut object = simple();
        object.set(&["status"], status);
        let row = ROW.strategy.row(&object, now);
        let text: Vec<&str> = row[1..4].iter().map(|c| c.as_str().unwrap()).collect();
        assert_eq!(text.join(" "), want);
        assert_eq!(row[4], "5m30s");
        assert_eq!(row.len(), ROW.strategy.columns().len());
    }
    let mut object = simple();
    object.set_deletion("2026-01-01T00:05:00Z", 30);
    object.set(&["status"], json!({"phase": "Running", "podIP": "10.1.2.3"}));
    let row = ROW.strategy.row(&object, now);
    assert_eq!((&row[2], &row[5]), (&json!("Terminating"), &json!("10.1.2.3")));
}

#[test]
fn ephemeral_containers_are_only_added() {
    let mut old = simple();
    ROW.prepare_create(&mut old);
    let debug = json!({"name": "d", "image": "busybox"});
    let mut new = old.clone();
    new.set(&["spec", "ephemeralContainers"], json!([debug]));
    new.set(&["spec", "nodeName"], "elsewhere");
    ROW.prepare_subresource("ephemeralcontainers", &mut new, &old);
    ROW.default(&mut new);
    assert_eq!(new["spec"].get("nodeName"), None);
    assert_eq!(new.generation(), 2);
    assert_eq!(ROW.validate_subresource("ephemeralcontainers", &new, &old).lines(), Vec::<String>::new());
    let mut without = new.clone();
    without.set(&["spec", "ephemeralContainers"], json!([]));
    assert_eq!(
        ROW.validate_subresource("ephemeralcontainers", &without, &new).lines(),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
    );
    assert_eq!(
        ROW.validate_create(&new).lines(),
        ["spec.ephemeralContainers: Forbidden: cannot be set on create"]
    );
}
