//! Tables of faulty workloads: what a client is told of each, new, changed, and reported.

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::{changed, object, refused, reported, row_of, template, warned};

fn with(fields: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template()});
    if let Value::Object(fields) = fields {
        fields.into_iter().for_each(|(field, value)| spec[field] = value);
    }
    json!({"spec": spec})
}

const NO_MATCH: &str = "`selector` does not match template `labels`";

#[test]
fn selectors_and_templates() {
    let no_match = format!("spec.template.metadata.labels: Invalid value: {{\"app\":\"a\"}}: {NO_MATCH}");
    for kind in ["Deployment", "ReplicaSet", "StatefulSet"] {
        let nothing = json!({"spec": {"template": template()}});
        refused(kind, nothing, &["spec.selector: Required value", &no_match]);
        refused(kind, with(json!({"selector": {"matchLabels": {"app": "b"}}})), &[&no_match]);
        refused(
            kind,
            json!({"spec": {"selector": {"matchLabels": {"app": "a"}}}}),
            &[
                &format!("spec.template.metadata.labels: Invalid value: null: {NO_MATCH}"),
                "spec.template.spec.containers: Required value",
            ],
        );
    }
    refused("DaemonSet", json!({"spec": {"template": template()}}), &[&no_match]);
    refused(
        "DaemonSet",
        with(json!({"selector": {}})),
        &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
    );
    refused(
        "ReplicationController",
        json!({"spec": {}}),
        &["spec.selector: Required value", "spec.template: Required value"],
    );
    let mut ending = template();
    ending.set(&["spec", "activeDeadlineSeconds"], 5);
    let want = "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported";
    for kind in ["Deployment", "ReplicaSet"] {
        refused(kind, with(json!({"template": ending})), &[want]);
    }
    let want = want.replace("ReplicaSet", "StatefulSet");
    refused("StatefulSet", with(json!({"template": ending})), &[&want]);
}

#[test]
fn deployments() {
    refused(
        "Deployment",
        with(json!({"strategy": {"type": "X"}})),
        &[
            "spec.strategy: Unsupported value: {\"type\":\"X\"}: supported values: \"Recreate\", \"RollingUpdate\"",
        ],
    );
    refused(
        "Deployment",
        with(json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5, "revisionHistoryLimit": -1,
            "strategy": {"rollingUpdate": {"maxUnavailable": "101%", "maxSurge": "x"}}})),
        &[
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
            "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
        ],
    );
    reported(
        "Deployment",
        &with(json!({}))["spec"],
        &json!({"collisionCount": 3}),
        &json!({"replicas": 1, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 2,
            "terminatingReplicas": -1, "collisionCount": 2}),
        &[
            "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0",
            "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
            "status.collisionCount: Invalid value: 2: cannot be decremented",
        ],
    );
}

#[test]
fn stateful_sets() {
    refused(
        "StatefulSet",
        with(json!({"podManagementPolicy": "X", "serviceName": "A", "revisionHistoryLimit": -1,
            "ordinals": {"start": -1}, "updateStrategy": {"type": "X"},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "X"},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]})),
        &[
            "spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'",
            "spec.updateStrategy: Invalid value: {\"type\":\"X\"}: must be 'RollingUpdate' or 'OnDelete'",
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"X\": supported values: \"Retain\", \"Delete\"",
            "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
            "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
            "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            "spec.serviceName: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    for (most, detail) in [(json!(0), "cannot be 0"), (json!("101%"), "must not be greater than 100%")] {
        refused(
            "StatefulSet",
            with(
                json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": most}}}),
            ),
            &[&format!("spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: {most}: {detail}")],
        );
    }
    // Names of pods come from it.
    let mut named = object("StatefulSet", with(json!({})));
    named.set_name("a.b");
    assert!(
        row_of("StatefulSet").validate_create(&named).lines()[0]
            .starts_with("metadata.name: Invalid value: \"a.b\": must not contain dots")
    );
    // The controller gives the pods their names, whatever the template says.
    let mut odd = template();
    odd.set(&["spec", "hostname"], "A_B");
    odd.set(&["spec", "subdomain"], "C_D");
    refused("StatefulSet", with(json!({"template": odd})), &[]);
    changed(
        "StatefulSet",
        with(json!({"serviceName": "a"})),
        with(json!({"serviceName": "b", "replicas": 3})),
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
    reported(
        "StatefulSet",
        &with(json!({}))["spec"],
        &json!({"collisionCount": 1}),
        &json!({"replicas": 1, "readyReplicas": 1, "currentReplicas": 2, "availableReplicas": 2}),
        &[
            "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
            "status.collisionCount: Invalid value: 0: cannot be decremented",
        ],
    );
    warned(
        "StatefulSet",
        with(json!({"revisionHistoryLimit": -1, "volumeClaimTemplates": [{"metadata": {"name": "d"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1500m"}}}}]})),
        &[
            "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        ],
    );
}

#[test]
fn daemon_sets() {
    let rolling = |unavailable: Value, surge: Value| {
        with(json!({"updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}}))
    };
    refused("DaemonSet", rolling(json!(0), json!("10%")), &[]);
    refused(
        "DaemonSet",
        rolling(json!(1), json!(1)),
        &[
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ],
    );
    refused(
        "DaemonSet",
        rolling(json!(0), json!("0%")),
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
    );
    refused(
        "DaemonSet",
        with(json!({"updateStrategy": {"type": "X"}})),
        &[
            "spec.updateStrategy: Unsupported value: {\"type\":\"X\"}: supported values: \"RollingUpdate\", \"OnDelete\"",
        ],
    );
}

#[test]
fn a_daemon_set_counts_the_changes_of_its_template() {
    const KEY: &str = "deprecated.daemonset.template.generation";
    let row = row_of("DaemonSet");
    let mut first = object("DaemonSet", with(json!({})));
    row.prepare_create(&mut first);
    assert_eq!((first.annotation(KEY), first.generation()), (Some("1"), 1));
    let mut same = first.clone();
    same.set_annotation(KEY, "7");
    same.set(&["spec", "minReadySeconds"], 3);
    row.prepare_update(&mut same, &first);
    assert_eq!((same.annotation(KEY), same.generation()), (Some("1"), 2));
    let mut next = same.clone();
    next["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:2");
    row.prepare_update(&mut next, &same);
    assert_eq!((next.annotation(KEY), next.generation()), (Some("2"), 3));
    let mut reported = next.clone();
    reported.set_annotation(KEY, "9");
    row.prepare_status_update(&mut reported, &next);
    assert_eq!(reported.annotation(KEY), Some("2"));
}

#[test]
fn templates_are_warned_of_when_they_change() {
    let mut fields = with(json!({"replicas": 1}));
    fields["spec"]["template"]["spec"]["nodeSelector"] = json!({"node-role.kubernetes.io/master": ""});
    let row = row_of("Deployment");
    let mut old = object("Deployment", fields.clone());
    old.set_name("a.b");
    row.prepare_create(&mut old);
    let told = row.strategy.warnings(&old, None);
    assert!(told[0].starts_with("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"), "{told:?}");
    let label = "spec.template.spec.nodeSelector[node-role.kubernetes.io/master]: use \"node-role.kubernetes.io/control-plane\" instead";
    assert_eq!(told[1..], [label]);
    let mut new = old.clone();
    new.set_label("x", "y");
    row.prepare_update(&mut new, &old);
    assert_eq!(row.strategy.warnings(&new, Some(&old)), Vec::<String>::new());
    new.set(&["spec", "replicas"], 2);
    row.prepare_update(&mut new, &old);
    assert_eq!(row.strategy.warnings(&new, Some(&old)), [label]);
}

#[test]
fn revisions() {
    for (data, detail) in [
        (json!({}), ""),
        (json!({"revision": 1, "data": null}), "data is mandatory"),
        (json!({"revision": 1, "data": [1]}), "data must be a valid JSON object"),
    ] {
        let want =
            format!("data: Required value: {}", if detail.is_empty() { "data is mandatory" } else { detail });
        refused("ControllerRevision", data, &[&want]);
    }
    changed(
        "ControllerRevision",
        json!({"revision": 1, "data": {"a": 1}}),
        json!({"revision": -1, "data": {"a": 2}}),
        &[
            "revision: Invalid value: -1: must be greater than or equal to 0",
            "data: Invalid value: {\"a\":2}: field is immutable",
        ],
    );
}
