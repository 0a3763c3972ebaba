//! Type checking of a ValidatingAdmissionPolicy against the kinds it is for: what `status.typeChecking` says.
//! It warns only; when a policy runs, objects are of no known type. Pure.

use std::sync::Arc;

use serde_json::{Value, json};
use skep_api::field::Path;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_cel::Schema;
use skep_cel::admission::Setting;

use super::expression::Variables;

/// No rule is checked against more kinds.
pub const MOST_KINDS: usize = 10;

/// A kind with its schema.
#[derive(Clone, Debug)]
pub struct TypedKind {
    /// Which kind.
    pub gvk: GroupVersionKind,
    /// What its objects are like.
    pub schema: Arc<Schema>,
}

/// The resources that each rule of a policy names in full; wildcards and subresources are left out, and a
/// rule with a wildcard for groups or versions names none.
pub fn named_resources(policy: &Value) -> Vec<Vec<GroupVersionResource>> {
    let rules = policy.items(&["spec", "matchConstraints", "resourceRules"]).iter();
    rules
        .map(|rule| {
            let texts = |field: &str| -> Vec<&str> {
                let mut list: Vec<&str> = rule.items(&[field]).iter().filter_map(Value::as_str).collect();
                list.sort_unstable();
                list
            };
            let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
            if groups.iter().chain(&versions).any(|text| text.contains('*')) {
                return Vec::new();
            }
            let resources = texts("resources");
            let resources = || resources.iter().filter(|resource| !resource.contains(['*', '/']));
            let mut found = Vec::new();
            for group in &groups {
                for version in &versions {
                    found.extend(
                        resources().map(|plural| GroupVersionResource::new(*group, *version, *plural)),
                    );
                }
            }
            found
        })
        .collect()
}

/// The kind of a policy's parameters.
pub fn parameter_kind(policy: &Value) -> Option<GroupVersionKind> {
    let reference = policy.at(&["spec", "paramKind"])?;
    let api_version = reference.text(&["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Some(GroupVersionKind::new(group, version, reference.text(&["kind"])))
}

/// What is wrong with the expressions for some of these kinds, as `expressionWarnings`. `params` is the
/// schema of the parameters, where it is known.
pub fn type_warnings(policy: &Value, kinds: &[TypedKind], params: Option<&Arc<Schema>>) -> Vec<Value> {
    let spec = policy.at(&["spec"]).unwrap_or(&Value::Null);
    let envs: Vec<_> = kinds
        .iter()
        .map(|kind| {
            let setting = Setting {
                object: Some(Arc::clone(&kind.schema)),
                has_params: parameter_kind(policy).is_some(),
                params: params.cloned(),
                has_authorizer: true,
                has_patches: false,
            };
            (&kind.gvk, Variables::compile(spec, &setting).env(&setting))
        })
        .collect();
    let path = Path::new("spec").child("validations");
    let mut warnings = Vec::new();
    for (index, validation) in spec.items(&["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.text(&[field]);
            // Only the message's may be left out.
            if text.is_empty() && field == "messageExpression" {
                continue;
            }
            let wrong: Vec<String> = envs
                .iter()
                .filter_map(|(gvk, env)| {
                    env.compile(text).err().map(|errors| format!("{}: {errors}\n", show(gvk)))
                })
                .collect();
            if !wrong.is_empty() {
                let reference = path.index(index).child(field);
                warnings.push(json!({"fieldRef": reference.as_str(), "warning": wrong.join("\n")}));
            }
        }
    }
    warnings
}

/// As upstream prints a kind: also the core group has its slash.
fn show(gvk: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", gvk.group, gvk.version, gvk.kind)
}

#[cfg(test)]
mod tests {
    use skep_cel::SchemaOptions;

    use super::*;

    fn kind(group: &str, kind: &str, spec: &Value) -> TypedKind {
        let structural = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": spec},
        }});
        let options = SchemaOptions { resource: true, open: true };
        let schema = Schema::from_structural(&structural, kind, options).expect("a schema");
        TypedKind { gvk: GroupVersionKind::new(group, "v1", kind), schema: Arc::new(schema) }
    }

    #[test]
    fn resources_are_named_in_full_and_sorted() {
        let rule = |groups: Value, versions: Value, resources: Value| json!({"apiGroups": groups, "apiVersions": versions, "resources": resources});
        let policy = json!({"spec": {"matchConstraints": {"resourceRules": [
            rule(json!(["b", "a"]), json!(["v1"]), json!(["y", "x", "x/status", "*"])),
            rule(json!(["*"]), json!(["v1"]), json!(["x"])),
            rule(json!([""]), json!(["v1", "*"]), json!(["x"])),
        ]}}});
        let found = named_resources(&policy);
        let names: Vec<String> =
            found[0].iter().map(|gvr| format!("{} {}", gvr.group, gvr.resource)).collect();
        assert_eq!(names, ["a x", "a y", "b x", "b y"]);
        assert!(found[1].is_empty() && found[2].is_empty());
    }

    #[test]
    fn each_kind_is_checked_and_variables_have_types() {
        let policy = json!({"spec": {
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "object.spec.replicas > 1 && variables.n < 5 && params.data.x == 'y'"},
                {"expression": "object.spec.replicas > '1'", "messageExpression": "'has ' + variables.n"},
                {"expression": "has(object.metadata.name) && authorizer.path('/x').check('get').allowed()"},
            ],
        }});
        let kinds = [
            kind("apps", "Deployment", &json!({"replicas": {"type": "integer"}})),
            kind("", "Pod", &json!({"nodeName": {"type": "string"}})),
        ];
        let params = kind("", "ConfigMap", &json!({})).schema;
        let warnings = type_warnings(&policy, &kinds, Some(&params));
        let found: Vec<(&str, &str)> =
            warnings.iter().map(|one| (one.text(&["fieldRef"]), one.text(&["warning"]))).collect();
        assert_eq!(
            found,
            [
                (
                    "spec.validations[0].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:54: undefined field 'data'\n \
                     | object.spec.replicas > 1 && variables.n < 5 && params.data.x == 'y'\n \
                     | .....................................................^\n\n\
                     /v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n \
                     | object.spec.replicas > 1 && variables.n < 5 && params.data.x == 'y'\n \
                     | ...........^\n\
                     ERROR: <input>:1:54: undefined field 'data'\n \
                     | object.spec.replicas > 1 && variables.n < 5 && params.data.x == 'y'\n \
                     | .....................................................^\n"
                ),
                (
                    "spec.validations[1].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
                     | object.spec.replicas > '1'\n \
                     | .....................^\n\n\
                     /v1, Kind=Pod: ERROR: <input>:1:12: undefined field 'replicas'\n \
                     | object.spec.replicas > '1'\n \
                     | ...........^\n"
                ),
                (
                    "spec.validations[1].messageExpression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:8: found no matching overload for '_+_' applied to '(string, int)'\n \
                     | 'has ' + variables.n\n \
                     | .......^\n"
                ),
            ]
        );
        assert!(type_warnings(&policy, &[], None).is_empty());
    }
}
