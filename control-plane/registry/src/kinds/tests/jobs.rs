//! A table of faulty Jobs with everything a client is told of each.

use serde_json::{Value, json};

use super::super::job::ROW;

/// A job with these fields more.
fn job(fields: &Value) -> Value {
    let mut object = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}}}});
    for (field, value) in fields.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    ROW.default(&mut object);
    ROW.prepare_create(&mut object);
    object
}

#[test]
fn jobs_in_detail() {
    let cases: [(Value, &[&str]); 10] = [
        (json!({}), &[]),
        (
            json!({"parallelism": -1, "backoffLimit": -1}),
            &[
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "parallelism": 1}),
            &["spec.completions: Required value: when completion mode is Indexed"],
        ),
        (
            json!({"completionMode": "X"}),
            &["spec.completionMode: Unsupported value: \"X\": supported values: \"Indexed\", \"NonIndexed\""],
        ),
        (
            json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 1}),
            &[
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "completions": 2, "maxFailedIndexes": 3}),
            &[
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
            ],
        ),
        (
            json!({"podFailurePolicy": {"rules": [
                {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [0, 3, 2], "containerName": "gone"}},
                {"action": "Ignore"}]}}),
            &[
                "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"gone\": must be one of the container or initContainer names in the pod template",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,3,2]: must be ordered",
                "spec.podFailurePolicy.rules[1]: Invalid value: {\"action\":\"Ignore\"}: specifying one of OnExitCodes and OnPodConditions is required",
            ],
        ),
        (
            json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [
                {"succeededIndexes": "0-2,4", "succeededCount": 5}, {}, {"succeededIndexes": "3,1"}]}}),
            &[
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 5: must be less than or equal to 4 (the number of indexes in the specified succeededIndexes field)",
                "spec.successPolicy.rules[1]: Required value: at least one of succeededCount or succeededIndexes must be specified",
                "spec.successPolicy.rules[2].succeededIndexes: Invalid value: \"3,1\": error parsing succeededIndexes: non-increasing order, previous: 3, current: 1",
            ],
        ),
        (
            json!({"managedBy": "me"}),
            &[
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ],
        ),
        (
            json!({"template": {"spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}]}}}),
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        ),
    ];
    for (fields, want) in cases {
        assert_eq!(ROW.validate_create(&job(&fields)).lines(), want, "{fields}");
    }
}
