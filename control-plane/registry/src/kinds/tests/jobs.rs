//! A table of faulty Jobs with everything a client is told of each.

use serde_json::{Value, json};

use skep_api::object::ObjectExt;

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
            &["spec.completionMode: Unsupported value: \"X\": supported values: \"NonIndexed\", \"Indexed\""],
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

/// A running job, with this status over that one.
fn told(spec: &Value, old: &Value, new: &Value) -> Vec<String> {
    let mut before = job(spec);
    before["status"] = old.clone();
    let mut after = before.clone();
    after["status"] = new.clone();
    ROW.validate_status_update(&after, &before).lines()
}

fn conditions(types: &[&str]) -> Value {
    types.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
}

#[test]
fn a_job_ends_once() {
    let (start, end) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    let done = json!({"startTime": start, "completionTime": end, "succeeded": 1,
        "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
    let indexed = json!({"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1});
    let plain = json!({});
    let cases: [(&Value, Value, Value, &[&str]); 9] = [
        (&plain, json!({"startTime": start}), done.clone(), &[]),
        (
            &plain,
            json!({"startTime": start}),
            json!({"startTime": start, "active": 1, "ready": 2, "conditions": conditions(&["Complete", "Failed"])}),
            &[
                "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
                "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.ready: Invalid value: 2: cannot set more ready pods than active",
            ],
        ),
        (
            &plain,
            json!({}),
            json!({"conditions": conditions(&["FailureTarget", "Failed"])}),
            &["status.startTime: Required value: startTime is required for finished job"],
        ),
        (
            &plain,
            json!({"startTime": end}),
            json!({"startTime": end, "completionTime": start}),
            &[
                "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when there is no Complete=True condition",
                "status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": must be equal to or after `startTime`",
            ],
        ),
        (
            &plain,
            done.clone(),
            json!({"startTime": start, "completionTime": end, "conditions": []}),
            &[
                "status.completionTime: Invalid value: \"2026-01-01T00:00:01Z\": cannot set completionTime when there is no Complete=True condition",
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        ),
        (
            &plain,
            json!({"startTime": start}),
            json!({"startTime": end, "completedIndexes": "0", "failedIndexes": "1"}),
            &[
                "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
                "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
                "status.startTime: Invalid value: \"2026-01-01T00:00:01Z\": field is immutable for unsuspended job once set",
            ],
        ),
        (
            &indexed,
            json!({}),
            json!({"completedIndexes": "0-1", "failedIndexes": "1,2"}),
            &[
                "status.failedIndexes: Invalid value: \"1,2\": failedIndexes and completedIndexes overlap at index: 1",
            ],
        ),
        (
            &indexed,
            json!({}),
            json!({"completedIndexes": "0,3", "failedIndexes": "1"}),
            &[
                "status.completedIndexes: Invalid value: \"0,3\": error parsing completedIndexes: too large index: \"3\"",
            ],
        ),
        (
            &plain,
            json!({}),
            json!({"uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
            &[
                "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
            ],
        ),
    ];
    for (spec, old, new, want) in cases {
        assert_eq!(told(spec, &old, &new), want, "{new}");
    }
}

#[test]
fn a_job_held_back_may_be_steered() {
    let change = |old: &Value, path: &[&str], value: Value| {
        let mut new = old.clone();
        new.set(path, value);
        ROW.validate_update(&new, old).lines()
    };
    let selector = ["spec", "template", "spec", "nodeSelector", "a"];
    let resources = json!([{"name": "a", "image": "i", "resources": {"requests": {"cpu": "1"}}}]);
    let held = job(&json!({"suspend": true}));
    let mut defaulted = held.clone();
    defaulted["spec"]["template"]["spec"]["containers"] = resources;
    ROW.default(&mut defaulted);
    let containers = defaulted["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(change(&held, &selector, json!("b")), Vec::<String>::new());
    assert_eq!(
        change(&held, &["spec", "template", "spec", "containers"], containers.clone()),
        Vec::<String>::new()
    );
    let image = change(&held, &["spec", "template", "spec", "priorityClassName"], json!("x"));
    assert!(
        image[0].starts_with("spec.template.spec: Invalid value: ")
            && image[0].ends_with(": field is immutable")
    );
    let mut running = job(&json!({}));
    running["status"] = json!({"startTime": "2026-01-01T00:00:00Z", "active": 1});
    let told = change(&running, &selector, json!("b"));
    assert!(
        told[0].starts_with("spec.template: Invalid value: ") && told[0].ends_with(": field is immutable")
    );
    // Indexed jobs grow and shrink in both counts.
    let indexed = job(&json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    assert_eq!(
        change(&indexed, &["spec", "completions"], json!(3)),
        ["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]
    );
    assert_eq!(
        change(&job(&json!({})), &["spec", "managedBy"], json!("a.b/c")),
        ["spec.managedBy: Invalid value: \"a.b/c\": field is immutable"]
    );
}

#[test]
fn selectors_are_made() {
    let mut taken = job(&json!({}));
    taken.set(&["spec", "template", "metadata", "labels", "controller-uid"], "x");
    taken.set(&["spec", "selector", "matchLabels"], json!({"a": "b"}));
    assert_eq!(
        ROW.validate_create(&taken).lines()[..2],
        [
            "spec.template.metadata.labels[controller-uid]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"x\",\"job-name\":\"j\"}: must be 'u'",
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated",
        ]
    );
    let mut long = job(&json!({"completionMode": "Indexed", "completions": 1000}));
    long.set_name(&"n".repeat(61));
    let told = ROW.validate_create(&long).lines();
    assert!(
        told.iter().any(|line| line.ends_with(&format!(
            "will not able to create pod with invalid DNS label: {}-999",
            "n".repeat(61)
        ))),
        "{told:?}"
    );
}

#[test]
fn cron_jobs() {
    let cron = |fields: Value| {
        let mut spec = json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}}}}});
        for (field, value) in fields.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({"spec": spec})
    };
    super::refused("CronJob", cron(json!({})), &[]);
    super::refused(
        "CronJob",
        cron(
            json!({"schedule": "TZ=UTC * * * * *", "timeZone": "", "successfulJobsHistoryLimit": -1, "concurrencyPolicy": "X"}),
        ),
        &[
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
            "spec.concurrencyPolicy: Unsupported value: \"X\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    for (zone, detail) in [
        ("Asia/../x", "unknown time zone Asia/../x"),
        ("local", "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"),
        ("Nowhere/Town", "unknown time zone Nowhere/Town"),
    ] {
        let want = format!("spec.timeZone: Invalid value: {zone:?}: {detail}");
        super::refused("CronJob", cron(json!({"timeZone": zone})), &[&want]);
    }
    let zoned = json!({"schedule": "CRON_TZ=UTC 0 * * * *"});
    super::changed("CronJob", cron(zoned.clone()), cron(zoned.clone()), &[]);
    super::changed(
        "CronJob",
        cron(zoned.clone()),
        cron(json!({"schedule": "CRON_TZ=UTC 0 * * * *", "timeZone": "UTC"})),
        &[
            "spec.schedule: Invalid value: \"CRON_TZ=UTC 0 * * * *\": cannot use both timeZone field and TZ or CRON_TZ in schedule",
        ],
    );
    super::refused(
        "CronJob",
        json!({"spec": {"schedule": "@often", "jobTemplate": {"spec": {"selector": {}, "manualSelector": true}}}}),
        &[
            "spec.schedule: Invalid value: \"@often\": unrecognized descriptor: @often",
            "spec.jobTemplate.spec.template.spec.containers: Required value",
            "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
        ],
    );
}
