//! Tables of faulty Events in both groups, and of subjects, finalizers and annotations of old.

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::{TABLE, changed, object, refused, warned};
use crate::strategy::KindRow;

fn newer() -> &'static KindRow {
    TABLE.iter().find(|row| row.group == "events.k8s.io").copied().unwrap()
}

fn event(fields: &Value) -> Value {
    let mut event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "namespace": "n"},
        "regarding": {"namespace": "n"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
        "reason": "r", "action": "a", "reportingController": "example.com/c", "reportingInstance": "i"});
    for (field, value) in fields.as_object().into_iter().flatten() {
        event[field] = value.clone();
    }
    event
}

#[test]
fn events() {
    let long = "x".repeat(129);
    let cases: [(Value, &[&str]); 6] = [
        (json!({}), &[]),
        (
            json!({"eventTime": null, "type": "X"}),
            &["eventTime: Required value", "type: Invalid value: \"\": has invalid value: X"],
        ),
        (
            json!({"reportingController": "", "reportingInstance": "", "action": long, "reason": ""}),
            &[
                "reportingController: Required value",
                "reportingController: Invalid value: \"\": name part must be non-empty",
                "reportingController: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                "reportingInstance: Required value",
                "action: Invalid value: \"\": can have at most 128 characters",
                "reason: Required value",
            ],
        ),
        (
            json!({"regarding": {}, "note": "x".repeat(1025)}),
            &[
                "involvedObject.namespace: Invalid value: \"\": does not match event.namespace",
                "message: Invalid value: \"\": can have at most 1024 characters",
            ],
        ),
        (
            json!({"series": {"count": 1}}),
            &[
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
            ],
        ),
        (
            json!({"deprecatedCount": 1, "deprecatedSource": {"host": "h"}, "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z"}),
            &[
                "firstTimestamp: Invalid value: \"\": needs to be unset",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ],
        ),
    ];
    for (fields, want) in cases {
        assert_eq!(newer().validate_create(&event(&fields)).lines(), want, "{fields}");
    }
    // In the older group an event without a time needs to be where its object is, and nothing more.
    refused("Event", json!({"involvedObject": {"namespace": "n"}}), &[]);
    refused(
        "Event",
        json!({"involvedObject": {}}),
        &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
    );
}

#[test]
fn a_newer_event_only_counts_on() {
    let old = event(&json!({}));
    let mut new = event(&json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}));
    new["eventTime"] = json!("2026-01-01T00:00:00.000000400Z");
    assert_eq!(newer().validate_update(&new, &old).lines(), Vec::<String>::new());
    new = event(&json!({"regarding": {"namespace": "n", "name": "x"}, "reason": "s", "series": {"count": 1},
        "eventTime": "2026-01-01T00:00:01.000000Z", "reportingController": "other"}));
    assert_eq!(
        newer().validate_update(&new, &old).lines(),
        [
            "series.count: Invalid value: \"\": should be at least 2",
            "series.lastObservedTime: Required value",
            "involvedObject: Invalid value: {\"name\":\"x\",\"namespace\":\"n\"}: field is immutable",
            "reason: Invalid value: \"s\": field is immutable",
            "eventTime: Invalid value: \"2026-01-01T00:00:01.000000Z\": field is immutable",
            "reportingController: Invalid value: \"other\": field is immutable",
        ]
    );
}

#[test]
fn bindings() {
    refused(
        "RoleBinding",
        json!({"roleRef": {"apiGroup": "x", "kind": "X", "name": "a/b"},
            "subjects": [{"kind": "X", "name": "a"}, {"kind": "User", "name": "", "apiGroup": "y"},
                {"kind": "ServiceAccount", "name": "A", "apiGroup": "z"}]}),
        &[
            "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
            "roleRef.kind: Unsupported value: \"X\": supported values: \"Role\", \"ClusterRole\"",
            "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
            "subjects[0].kind: Unsupported value: \"X\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            "subjects[1].name: Required value",
            "subjects[1].apiGroup: Unsupported value: \"y\": supported values: \"rbac.authorization.k8s.io\"",
            "subjects[2].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "subjects[2].apiGroup: Unsupported value: \"z\": supported values: \"\"",
        ],
    );
    changed(
        "ClusterRoleBinding",
        json!({"roleRef": {"kind": "ClusterRole", "name": "a"}}),
        json!({"roleRef": {"kind": "ClusterRole", "name": "b"}}),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"b\"}: cannot change roleRef",
        ],
    );
}

#[test]
fn finalizers_of_namespaces() {
    let row = super::row_of("Namespace");
    refused(
        "Namespace",
        json!({"spec": {"finalizers": ["kubernetes", "x", "a.b/c", "a b/c"]}}),
        &[
            "spec.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
            "spec.finalizers: Invalid value: \"a b/c\": prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    let old = object("Namespace", json!({}));
    let mut new = old.clone();
    new.set(&["spec", "finalizers"], json!(["x"]));
    assert_eq!(
        row.validate_subresource("finalize", &new, &old).lines(),
        [
            "spec.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified"
        ]
    );
    new.set(&["status", "phase"], "Terminating");
    assert_eq!(
        row.validate_status_update(&new, &old).lines(),
        [
            "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
        ]
    );
}

#[test]
fn annotations_of_old() {
    warned(
        "ServiceAccount",
        json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}}),
        &[
            "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
        ],
    );
    warned(
        "PersistentVolumeClaim",
        json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "a"}},
            "spec": {"resources": {"requests": {"storage": "1500m"}}}}),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
        ],
    );
    warned(
        "PersistentVolume",
        json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/mount-options": "a"}},
            "spec": {"cephfs": {}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "Exists"}]}]}}}}),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.cephfs: deprecated in v1.28, non-functional in v1.31+",
        ],
    );
    warned(
        "StorageClass",
        json!({"provisioner": "p", "allowedTopologies": [{"matchLabelExpressions": [{"key": "beta.kubernetes.io/os"}]}]}),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        ],
    );
    warned(
        "CSIDriver",
        json!({"spec": {"tokenRequests": [{"audience": "a"}]}}),
        &[
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes",
        ],
    );
    warned("ValidatingWebhookConfiguration", json!({"webhooks": []}), &[]);
}
