//! What may change in a pod: gated pods, resizes, status.

use super::*;

fn changed(old: &Value, path: &[&str], value: Value) -> Value {
    let mut new = old.clone();
    new.set(path, value);
    new
}

fn terms(expressions: &Value) -> Value {
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": expressions}]}}})
}

#[test]
fn a_gated_pod_may_be_steered() {
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let disk = json!({"key": "disk", "operator": "Exists"});
    let old = pod(&json!({"containers": [{"name": "a", "image": "i"}], "schedulingGates": [{"name": "g"}],
        "nodeSelector": {"a": "b"}, "affinity": terms(&json!([zone]))}));
    let cases: [(&[&str], Value, &[&str]); 6] = [
        (&["spec", "nodeSelector"], json!({"a": "b", "c": "d"}), &[]),
        (
            &["spec", "nodeSelector"],
            json!({"c": "d"}),
            &[
                "spec.nodeSelector: Invalid value: {\"c\":\"d\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            ],
        ),
        (&["spec", "affinity"], terms(&json!([zone, disk])), &[]),
        (
            &["spec", "affinity"],
            terms(&json!([disk])),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: {\"matchExpressions\":[{\"key\":\"disk\",\"operator\":\"Exists\"}]}: only additions are allowed (no mutations or deletions)",
            ],
        ),
        (&["spec", "schedulingGates"], json!([]), &[]),
        (
            &["spec", "schedulingGates"],
            json!([{"name": "g"}, {"name": "new"}]),
            &[
                "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'new'",
            ],
        ),
    ];
    for (path, value, want) in cases {
        let new = changed(&old, path, value);
        assert_eq!(ROW.validate_update(&new, &old).lines(), want, "{new}");
    }
}

#[test]
fn a_resize_changes_cpu_and_memory() {
    let mut old = pod(&json!({"containers": [{"name": "a", "image": "i",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1"}}}]}));
    old.set(&["status", "qosClass"], "Burstable");
    let resources = |value: Value| {
        let mut new = old.clone();
        new["spec"]["containers"][0]["resources"] = value;
        new["spec"]["nodeName"] = json!("ignored");
        ROW.prepare_subresource("resize", &mut new, &old);
        assert!(new["spec"].get("nodeName").is_none());
        ROW.validate_subresource("resize", &new, &old).lines()
    };
    let none: &[&str] = &[];
    assert_eq!(
        resources(json!({"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "1"}})),
        none
    );
    assert_eq!(
        resources(json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}})),
        ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
    );
    assert_eq!(
        resources(
            json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
        ),
        [
            "spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be added unless resizePolicy is RestartContainer"
        ]
    );
    assert_eq!(
        resources(
            json!({"requests": {"cpu": "1", "memory": "64Mi", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "1"}})
        ),
        ["spec: Forbidden: only cpu and memory resources are mutable"]
    );
    assert_eq!(
        resources(
            json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}})
        ),
        [
            "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
            "spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be added unless resizePolicy is RestartContainer",
        ]
    );
}

#[test]
fn a_status_follows_rules() {
    let mut old = pod(&json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}));
    old.set(
        &["status"],
        json!({"phase": "Running", "qosClass": "BestEffort", "containerStatuses": [
        {"name": "a", "state": {"terminated": {"exitCode": 0}}}]}),
    );
    let with = |fields: Value| {
        let mut new = old.clone();
        for (field, value) in fields.as_object().into_iter().flatten() {
            new["status"][field] = value.clone();
        }
        ROW.validate_status_update(&new, &old).lines()
    };
    let cases: [(Value, &[&str]); 5] = [
        (json!({"phase": "Succeeded"}), &[]),
        (
            json!({"containerStatuses": [{"name": "a", "state": {"running": {}}}]}),
            &[
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ],
        ),
        (
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
            &[
                "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
            ],
        ),
        (json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}), &[]),
        (
            json!({"hostIP": "1.2.3.4", "hostIPs": [{"ip": "1.2.3.5"}]}),
            &["status.hostIPs[0].ip: Invalid value: \"1.2.3.5\": must be equal to `hostIP`"],
        ),
    ];
    for (fields, want) in cases {
        assert_eq!(with(fields.clone()), want, "{fields}");
    }
}
