//! Tables of what bounds a namespace, names a priority or a runtime, and holds back evictions.

use serde_json::{Value, json};

use super::{changed, refused, reported, warned};

#[test]
fn quotas() {
    let quota = |spec: Value| json!({"spec": spec});
    refused(
        "ResourceQuota",
        quota(
            json!({"hard": {"pods": "1500m", "cpu": "-1", "gpu": "1", "example.com/gpu": "1500m", "count/x.y": "1"}}),
        ),
        &[
            "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.hard[example.com/gpu]: Invalid value: \"1500m\": must be an integer",
            "spec.hard[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "spec.hard[gpu]: Invalid value: \"gpu\": must be a standard resource for quota",
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
        ],
    );
    refused(
        "ResourceQuota",
        quota(json!({"hard": {"pods": "1", "cpu": "1"}, "scopes": ["BestEffort", "NotBestEffort", "X"]})),
        &[
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"X\"]: unsupported scope applied to resource",
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"X\"]: unsupported scope",
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"X\"]: conflicting scopes",
        ],
    );
    refused(
        "ResourceQuota",
        quota(json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "Terminating", "operator": "In"},
            {"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]},
            {"scopeName": "PriorityClass", "operator": "Near"}]}})),
        &[
            "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            "spec.scopeSelector.matchExpressions.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Near\": not a valid selector operator",
        ],
    );
    let scoped = |scopes: Value| quota(json!({"hard": {"pods": "1"}, "scopes": scopes}));
    changed(
        "ResourceQuota",
        scoped(json!(["Terminating", "NotBestEffort"])),
        scoped(json!(["NotBestEffort", "Terminating"])),
        &[],
    );
    changed(
        "ResourceQuota",
        scoped(json!(["Terminating"])),
        scoped(json!(["BestEffort"])),
        &["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"],
    );
    warned(
        "ResourceQuota",
        quota(
            json!({"hard": {"cpu": "2", "limits.cpu": "1", "requests.memory": "1Gi", "limits.memory": "2Gi"}}),
        ),
        &["ResourceQuota cpu (2) should be less than limits.cpu (1)"],
    );
}

#[test]
fn limit_ranges() {
    let range = |limit: Value| json!({"spec": {"limits": [limit]}});
    refused(
        "LimitRange",
        range(json!({"type": "Pod", "default": {"cpu": "1"}, "max": {"gpu": "1"}})),
        &[
            "spec.limits[0].max[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "spec.limits[0].max[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ],
    );
    refused(
        "LimitRange",
        range(
            json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "500m"}}),
        ),
        &[
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
        ],
    );
    refused(
        "LimitRange",
        range(
            json!({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}),
        ),
        &[
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
        ],
    );
    refused(
        "LimitRange",
        range(
            json!({"type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"}}),
        ),
        &[
            "spec.limits[0].defaultRequest[example.com/gpu]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in example.com/gpu",
        ],
    );
    refused(
        "LimitRange",
        range(json!({"type": "PersistentVolumeClaim"})),
        &[
            "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ],
    );
    refused(
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Node"}, {"type": "example.com/x"}, {"type": "example.com/x"}]}}),
        &[
            "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
            "spec.limits[2].type: Duplicate value: \"example.com/x\"",
        ],
    );
}

#[test]
fn budgets() {
    let budget = |spec: Value| json!({"spec": spec});
    refused(
        "PodDisruptionBudget",
        budget(json!({"minAvailable": "101%", "unhealthyPodEvictionPolicy": "X"})),
        &[
            "spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%",
            "spec.unhealthyPodEvictionPolicy: Unsupported value: \"X\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
        ],
    );
    refused(
        "PodDisruptionBudget",
        budget(json!({"minAvailable": 1, "maxUnavailable": -1})),
        &[
            "spec: Invalid value: {\"maxUnavailable\":-1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            "spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
    reported(
        "PodDisruptionBudget",
        &json!({"minAvailable": 1}),
        &json!({}),
        &json!({"disruptionsAllowed": -1, "conditions": [{"type": "A b", "status": "X"}]}),
        &[
            "status.conditions[0].type: Invalid value: \"A b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "status.conditions[0].status: Unsupported value: \"X\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value: must be set",
            "status.conditions[0].reason: Required value: must be set",
            "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
}

#[test]
fn priorities_and_runtimes() {
    let mut class = super::object("PriorityClass", json!({"value": 1, "globalDefault": true}));
    for (name, value, detail) in [
        ("system-x", 1, "system-x is not a known system priority class"),
        ("system-node-critical", 1, "value of system-node-critical PriorityClass must be 2000001000"),
        (
            "system-node-critical",
            2_000_001_000,
            "globalDefault of system-node-critical PriorityClass must be false",
        ),
    ] {
        class["metadata"]["name"] = json!(name);
        class["value"] = json!(value);
        let want = format!(
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: {detail}"
        );
        assert_eq!(super::row_of("PriorityClass").validate_create(&class).lines(), [want]);
    }
    refused(
        "PriorityClass",
        json!({"value": 1_000_000_001}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    changed(
        "PriorityClass",
        json!({"value": 1}),
        json!({"value": 2, "preemptionPolicy": "Never"}),
        &[
            "value: Forbidden: may not be changed in an update.",
            "preemptionPolicy: Invalid value: \"Never\": field is immutable",
        ],
    );
    refused("RuntimeClass", json!({}), &["handler: Required value"]);
    let toleration = json!({"key": "a", "operator": "Exists", "tolerationSeconds": 5, "effect": "NoExecute"});
    refused(
        "RuntimeClass",
        json!({"handler": "h", "overhead": {"podFixed": {"gpu": "1", "memory": "-1"}},
            "scheduling": {"nodeSelector": {"-": ""}, "tolerations": [toleration, toleration]}}),
        &[
            "overhead.limits: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "overhead.limits: Invalid value: \"gpu\": must be a standard resource for containers",
            "overhead.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "scheduling.nodeSelector: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "scheduling.tolerations[1]: Duplicate value: {\"effect\":\"NoExecute\",\"key\":\"a\",\"operator\":\"Exists\",\"tolerationSeconds\":5}",
        ],
    );
    warned(
        "RuntimeClass",
        json!({"handler": "h", "scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}}),
        &["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"],
    );
}

#[test]
fn leases() {
    refused(
        "Lease",
        json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1, "strategy": "X", "holderIdentity": ""}}),
        &[
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            "spec.strategy.strategy: Unsupported value: \"X\": supported values: \"OldestEmulationVersion\"",
        ],
    );
    refused(
        "Lease",
        json!({"spec": {"preferredHolder": "a"}}),
        &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
    );
}
