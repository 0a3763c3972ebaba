//! What an autoscaler may say: bounds, metrics and their targets, and how fast it may scale.
//!
//! The rules are those of v2; an object of v1 is read as v2 first, and its faults are told there, as
//! upstream tells them.

use skep_api::field::Error;
use skep_api::names;

use crate::kinds::pod::resources;
use crate::strategy::check::At;

/// Longest period of a policy, in seconds.
const MAX_PERIOD: i64 = 1800;
/// Longest look back, in seconds.
const MAX_WINDOW: i64 = 3600;
/// Types of metrics, as upstream lists them.
const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
/// The types and the fields they fill, in the order upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

/// The whole spec.
pub(super) fn spec(spec: &At<'_>) {
    let least = spec.child("minReplicas");
    if least.int().is_some_and(|n| n < 1) {
        least.invalid("must be greater than or equal to 1");
    }
    let most = spec.child("maxReplicas");
    let max = most.int().unwrap_or(0);
    if max < 1 {
        most.error(Error::invalid(most.path(), max, "must be greater than 0"));
    }
    if least.int().is_some_and(|n| n > max) {
        most.error(Error::invalid(most.path(), max, "must be greater than or equal to `minReplicas`"));
    }
    reference(&spec.child("scaleTargetRef"));
    spec.child("metrics").items().iter().for_each(metric);
    for rules in ["scaleUp", "scaleDown"] {
        let rules = spec.child("behavior").child(rules);
        if rules.is_set() {
            scaling(&rules);
        }
    }
}

fn reference(reference: &At<'_>) {
    reference.child("kind").require_named(names::path_segment);
    reference.child("name").require_named(names::path_segment);
    let version = reference.child("apiVersion");
    if version.text().matches('/').count() > 1 {
        version.invalid(format!("unexpected GroupVersion string: {}", version.text()));
    }
}

fn metric(metric: &At<'_>) {
    let kind = metric.child("type");
    if kind.is_empty() {
        kind.required("must specify a metric source type");
    }
    let unknown = !TYPES.contains(&kind.text());
    let refuse = || kind.error(Error::not_supported(kind.path(), kind.text(), TYPES));
    if unknown {
        refuse();
    }
    let there: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.child(field).is_set()).collect();
    if let Some(first) = there.first() {
        source(first, &metric.child(first));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.text()).map(|(_, field)| *field);
    match expected {
        Some(field) if !there.contains(&field) => {
            metric.child(field).required("must populate information for the given metric source");
        }
        Some(_) => {}
        // Upstream says it twice.
        None => refuse(),
    }
    if there.len() != 1 {
        for field in there.into_iter().filter(|field| Some(*field) != expected) {
            metric.child(field).forbidden("must populate the given metric source only");
        }
    }
}

fn source(field: &str, source: &At<'_>) {
    let target = source.child("target");
    let of = |name: &str| target.child(name);
    match field {
        "object" => {
            reference(&source.child("describedObject"));
            identifier(&source.child("metric"));
            values(&target);
            if !of("value").is_set() && !of("averageValue").is_set() {
                of("averageValue").required("must set either a target value or averageValue");
            }
        }
        "external" => {
            identifier(&source.child("metric"));
            values(&target);
            match (of("value").is_set(), of("averageValue").is_set()) {
                (false, false) => of("averageValue")
                    .required("must set either a target value for metric or a per-pod target"),
                (true, true) => {
                    of("value").forbidden("may not set both a target value for metric and a per-pod target");
                }
                _ => {}
            }
        }
        "pods" => {
            identifier(&source.child("metric"));
            values(&target);
            if !of("averageValue").is_set() {
                of("averageValue").required("must specify a positive target averageValue");
            }
        }
        _ => {
            let name = source.child("name");
            let container = source.child("container");
            let named = name.require_with("must specify a resource name");
            if field == "containerResource" {
                if named {
                    resources::name(&name, &name, name.text());
                }
                if container.require_with("must specify a container") {
                    container.named(names::dns1123_label);
                }
            }
            values(&target);
            match (of("averageUtilization").is_set(), of("averageValue").is_set()) {
                (false, false) => of("averageUtilization")
                    .required("must set either a target raw value or a target utilization"),
                (true, true) => of("averageValue")
                    .forbidden("may not set both a target raw value and a target utilization"),
                _ => {}
            }
        }
    }
}

fn identifier(metric: &At<'_>) {
    let name = metric.child("name");
    if name.require_with("must specify a metric name") {
        name.named(names::path_segment);
    }
}

fn values(target: &At<'_>) {
    let kind = target.child("type");
    if kind.is_empty() {
        kind.required("must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        kind.error(Error::invalid(kind.path(), kind.text(), detail));
    }
    for field in ["value", "averageValue"] {
        let amount = target.child(field);
        if amount.quantity().is_some_and(|quantity| quantity.sign() <= 0) {
            amount.invalid("must be positive");
        }
    }
    let percent = target.child("averageUtilization");
    if percent.int().is_some_and(|percent| percent < 1) {
        percent.invalid("must be greater than 0");
    }
}

fn scaling(rules: &At<'_>) {
    let window = rules.child("stabilizationWindowSeconds");
    if window.int().is_some_and(|seconds| seconds < 0) {
        window.invalid("must be greater than or equal to zero");
    }
    if window.int().is_some_and(|seconds| seconds > MAX_WINDOW) {
        window.invalid(format!("must be less than or equal to {MAX_WINDOW}"));
    }
    rules.child("selectPolicy").one_of(&["Disabled", "Max", "Min"]);
    let policies = rules.child("policies");
    policies.require_with("must specify at least one Policy");
    for policy in policies.items() {
        let kind = policy.child("type");
        if !["Percent", "Pods"].contains(&kind.text()) {
            kind.error(Error::not_supported(kind.path(), kind.text(), &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            let number = policy.child(field);
            let n = number.int().unwrap_or(0);
            if n <= 0 {
                number.error(Error::invalid(number.path(), n, "must be greater than zero"));
            }
            if field == "periodSeconds" && n > MAX_PERIOD {
                number.invalid(format!("must be less than or equal to {MAX_PERIOD}"));
            }
        }
    }
    let tolerance = rules.child("tolerance");
    if tolerance.quantity().is_some_and(|quantity| quantity.sign() < 0) {
        tolerance.invalid("must be greater than or equal to 0");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use skep_api::object::ObjectExt;

    use crate::kinds::autoscaler::{V1, V2};

    fn autoscaler(mut spec: Value) -> Value {
        spec.set(&["maxReplicas"], 5);
        spec.set(&["scaleTargetRef"], json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}));
        json!({"metadata": {"name": "h", "namespace": "n"}, "spec": spec})
    }

    #[track_caller]
    fn refused(spec: Value, want: &[&str]) {
        let mut object = autoscaler(spec);
        V2.default(&mut object);
        assert_eq!(V2.validate_create(&object).lines(), want);
    }

    #[test]
    fn metrics_fill_the_field_of_their_type() {
        refused(
            json!({"metrics": [{"type": "Pods", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}]}),
            &[
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ],
        );
        refused(
            json!({"metrics": [{"type": "X"}]}),
            &[
                r#"spec.metrics[0].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
                r#"spec.metrics[0].type: Unsupported value: "X": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#,
            ],
        );
        refused(
            json!({"metrics": [{"type": "External", "pods": {"metric": {"name": "a/b"}, "target": {"type": "Value"}},
                "external": {"metric": {}, "target": {"type": "?", "value": "0", "averageValue": "1"}}}]}),
            &[
                "spec.metrics[0].external.metric.name: Required value: must specify a metric name",
                r#"spec.metrics[0].external.target.type: Invalid value: "?": must be either Utilization, Value, or AverageValue"#,
                r#"spec.metrics[0].external.target.value: Invalid value: "0": must be positive"#,
                "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target",
                "spec.metrics[0].pods: Forbidden: must populate the given metric source only",
            ],
        );
        refused(
            json!({"metrics": [{"type": "ContainerResource", "containerResource": {"name": "gold", "container": "A",
                "target": {"type": "Utilization", "averageUtilization": 0}}}]}),
            &[
                r#"spec.metrics[0].containerResource.name: Invalid value: "gold": must be a standard resource type or fully qualified"#,
                r#"spec.metrics[0].containerResource.name: Invalid value: "gold": must be a standard resource for containers"#,
                r#"spec.metrics[0].containerResource.container: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#,
                "spec.metrics[0].containerResource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ],
        );
    }

    #[test]
    fn behaviour_has_limits_and_defaults() {
        refused(
            json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "selectPolicy": "Mean",
                "policies": [{"type": "Pod", "value": 0, "periodSeconds": 1801}]}}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                r#"spec.behavior.scaleUp.selectPolicy: Unsupported value: "Mean": supported values: "Disabled", "Max", "Min""#,
                r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "Pod": supported values: "Percent", "Pods""#,
                "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        );
        let mut object = autoscaler(json!({"behavior": {"scaleDown": {"selectPolicy": "Min"}}}));
        V2.default(&mut object);
        assert_eq!(
            object["spec"]["behavior"],
            json!({
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]},
                "scaleDown": {"selectPolicy": "Min", "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 15},
                ]},
            })
        );
    }

    #[test]
    fn the_older_view_is_told_of_its_faults_as_the_newer_one() {
        let object = autoscaler(json!({"minReplicas": 6, "targetCPUUtilizationPercentage": 0}));
        assert_eq!(
            V1.validate_create(&object).lines(),
            [
                "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ]
        );
    }

    #[test]
    fn a_status_counts_no_fewer_than_none() {
        let mut new = autoscaler(json!({}));
        new.set(&["status"], json!({"currentReplicas": -1, "desiredReplicas": -2}));
        assert_eq!(
            V2.validate_status_update(&new, &new).lines(),
            [
                "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.desiredReplicas: Invalid value: -2: must be greater than or equal to 0",
            ]
        );
    }
}
