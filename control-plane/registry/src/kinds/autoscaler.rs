//! HorizontalPodAutoscaler: v2 stores; v1 is a view that knows CPU alone and keeps the rest in an annotation.

mod rules;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Storage, Strategy, default_to};

const GROUP: &str = "autoscaling";
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// Where a current metric of v2 has a percentage.
const PERCENT: [&str; 3] = ["resource", "current", "averageUtilization"];

/// The row that stores.
pub(super) static V2: KindRow = KindRow {
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[status(GROUP, "v2", "HorizontalPodAutoscaler")],
    ..namespaced(
        GROUP,
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        &Autoscaler { v1: false },
    )
};

/// The older view.
pub(super) static V1: KindRow = KindRow {
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[status(GROUP, "v1", "HorizontalPodAutoscaler")],
    storage: Storage::Alias {
        group: GROUP,
        version: "v2",
        plural: "horizontalpodautoscalers",
        from: v2_to_v1,
        to: v1_to_v2,
    },
    ..namespaced(GROUP, "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", &Autoscaler { v1: true })
};

struct Autoscaler {
    v1: bool,
}

fn is_cpu(metric: &Value) -> bool {
    metric.text(&["resource", "name"]) == "cpu"
        && metric.at(&["resource", "target", "averageUtilization"]).is_some()
}

fn v2_to_v1(mut object: Value) -> Value {
    object.set(&["apiVersion"], "autoscaling/v1");
    if let Some(Value::Array(mut metrics)) = object.unset(&["spec", "metrics"]) {
        if let Some(index) = metrics.iter().position(is_cpu) {
            let cpu = metrics.remove(index);
            let target = cpu["resource"]["target"]["averageUtilization"].clone();
            object.set(&["spec", "targetCPUUtilizationPercentage"], target);
        }
        if !metrics.is_empty() {
            object.set_annotation(METRICS, &Value::Array(metrics).to_string());
        }
    }
    if let Some(behavior) = object.unset(&["spec", "behavior"]) {
        object.set_annotation(BEHAVIOR, &behavior.to_string());
    }
    if let Some(Value::Array(mut metrics)) = object.unset(&["status", "currentMetrics"]) {
        let cpu = |m: &Value| m.text(&["resource", "name"]) == "cpu" && m.at(&PERCENT).is_some();
        if let Some(index) = metrics.iter().position(cpu) {
            let percent = metrics.remove(index).int(&PERCENT).unwrap_or_default();
            object.set(&["status", "currentCPUUtilizationPercentage"], percent);
        }
        if !metrics.is_empty() {
            object.set_annotation(CURRENT, &Value::Array(metrics).to_string());
        }
    }
    if let Some(conditions) = object.unset(&["status", "conditions"]) {
        object.set_annotation(CONDITIONS, &conditions.to_string());
    }
    object
}

fn v1_to_v2(mut object: Value) -> Value {
    object.set(&["apiVersion"], "autoscaling/v2");
    let mut metrics = Vec::new();
    if let Some(percent) = object.unset(&["spec", "targetCPUUtilizationPercentage"]).filter(|p| !p.is_null())
    {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": percent}}}));
    }
    // A client may have written anything into these annotations: what is no JSON is dropped.
    let stored = |object: &mut Value, key: &str| {
        let text = object.unset(&["metadata", "annotations", key]);
        text.as_ref().and_then(Value::as_str).and_then(|t| serde_json::from_str::<Value>(t).ok())
    };
    if let Some(Value::Array(rest)) = stored(&mut object, METRICS) {
        metrics.extend(rest);
    }
    if let Some(behavior) = stored(&mut object, BEHAVIOR) {
        object.set(&["spec", "behavior"], behavior);
    }
    if !metrics.is_empty() {
        object.set(&["spec", "metrics"], metrics);
    }
    let mut current = Vec::new();
    if let Some(percent) = object.unset(&["status", "currentCPUUtilizationPercentage"]) {
        current.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": percent}}}));
    }
    if let Some(Value::Array(rest)) = stored(&mut object, CURRENT) {
        current.extend(rest);
    }
    if !current.is_empty() {
        object.set(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = stored(&mut object, CONDITIONS) {
        object.set(&["status", "conditions"], conditions);
    }
    if object.annotations().is_some_and(serde_json::Map::is_empty) {
        object.unset(&["metadata", "annotations"]);
    }
    object
}

fn source(metric: &Value) -> (&'static str, &Value) {
    for (kind, field) in [
        ("Resource", "resource"),
        ("ContainerResource", "containerResource"),
        ("Pods", "pods"),
        ("Object", "object"),
        ("External", "external"),
    ] {
        if metric.text(&["type"]) == kind {
            return (field, &metric[field]);
        }
    }
    ("", &Value::Null)
}

fn targets(object: &Value) -> String {
    let metrics = object.items(&["spec", "metrics"]);
    let current = object.items(&["status", "currentMetrics"]);
    let show = |(index, metric): (usize, &Value)| {
        let (field, spec) = source(metric);
        if field.is_empty() {
            return "<unknown type>".to_owned();
        }
        let now = current.get(index).and_then(|c| c.at(&[field, "current"]));
        let target = &spec["target"];
        let text = |value: Option<&Value>, name: &str| match value.and_then(|v| v.at(&[name])) {
            Some(Value::Number(n)) => format!("{n}%"),
            Some(Value::String(s)) => s.clone(),
            _ => "<unknown>".to_owned(),
        };
        let kind =
            ["averageUtilization", "averageValue", "value"].into_iter().find(|k| target.at(&[k]).is_some());
        let pair = match kind {
            Some(kind) => {
                let average = if kind == "averageValue" && field == "external" { " (avg)" } else { "" };
                format!("{}/{}{average}", text(now, kind), text(Some(target), kind))
            }
            None => "<unknown>/<auto>".to_owned(),
        };
        match field {
            "resource" => format!("{}: {pair}", spec.text(&["name"])),
            "containerResource" => {
                format!("{}/{}: {pair}", spec.text(&["container"]), spec.text(&["name"]))
            }
            _ => pair,
        }
    };
    let list: Vec<String> = metrics.iter().enumerate().map(show).collect();
    match list.len() {
        0 => "<none>".to_owned(),
        1 | 2 => list.join(", "),
        n => format!("{} + {} more...", list[..2].join(", "), n - 2),
    }
}

/// How fast scaling goes when `behavior` does not say.
fn default_behavior(object: &mut Value) {
    if object.at(&["spec", "behavior"]).is_none() {
        return;
    }
    let double = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let four = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    default_to(object, &["spec", "behavior", "scaleUp", "stabilizationWindowSeconds"], 0);
    for (rules, policies) in [("scaleUp", json!([four, double])), ("scaleDown", json!([double]))] {
        default_to(object, &["spec", "behavior", rules, "selectPolicy"], "Max");
        default_to(object, &["spec", "behavior", rules, "policies"], policies);
    }
}

impl Strategy for Autoscaler {
    fn default(&self, object: &mut Value) {
        default_to(object, &["spec", "minReplicas"], 1);
        if !self.v1 && object.items(&["spec", "metrics"]).is_empty() {
            let cpu = json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]);
            object.set(&["spec", "metrics"], cpu);
        }
        if !self.v1 {
            default_behavior(object);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        let read = self.v1.then(|| v1_to_v2(object.clone()));
        check(read.as_ref().unwrap_or(object), |root| rules::spec(&root.child("spec")))
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            for field in ["currentReplicas", "desiredReplicas"] {
                root.child("status").child(field).non_negative();
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Reference"),
            printer::text("Targets"),
            printer::text("MinPods"),
            printer::text("MaxPods"),
            printer::text("Replicas"),
            printer::AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let full = if self.v1 { v1_to_v2(object.clone()) } else { object.clone() };
        let target = |field: &str| full.text(&["spec", "scaleTargetRef", field]);
        let least = full.int(&["spec", "minReplicas"]).map(|n| n.to_string()).unwrap_or_default();
        vec![
            full.name().into(),
            format!("{}/{}", target("kind"), target("name")).into(),
            targets(&full).into(),
            or(&least, "<unset>").into(),
            printer::count(&full, &["spec", "maxReplicas"]),
            printer::count(&full, &["status", "currentReplicas"]),
            printer::age(&full, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_views_convert_both_ways() {
        let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "minReplicas": 1,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "targetCPUUtilizationPercentage": 50}});
        let v2 = v1_to_v2(v1.clone());
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(targets(&v2), "cpu: <unknown>/50%");
        assert_eq!(v2_to_v1(v2), v1);
        let full = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h"},
            "spec": {"maxReplicas": 5, "metrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}}}],
                "behavior": {"scaleUp": {"selectPolicy": "Max"}}},
            "status": {"conditions": [{"type": "AbleToScale"}], "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}},
                {"type": "Pods", "pods": {"metric": {"name": "m"}}}]}});
        assert_eq!(v1_to_v2(v2_to_v1(full.clone())), full, "nothing is lost in the older view");
    }
}
