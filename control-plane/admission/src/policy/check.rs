//! What is wrong with the expressions of a policy or of a webhook's match conditions, when they are
//! written. Pure.

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_cel::admission::Setting;

use super::expression::{Expression, Variables, Wanted};

/// No policy has more audit annotations.
const ANNOTATIONS: usize = 20;
/// No expression of an audit annotation is longer, in bytes.
const ANNOTATION: usize = 5 * 1024;
/// No webhook or policy has more match conditions.
const CONDITIONS: usize = 64;

fn compiled(errors: &mut ErrorList, path: &Path, expression: &Expression) {
    if let Err(error) = &expression.program {
        errors.push(Error::invalid(path, expression.text.as_str(), error.as_str()));
    }
}

/// Match conditions; `params` is whether their expressions may use `params`.
pub fn check_match_conditions(conditions: &[Value], path: &Path, params: bool) -> ErrorList {
    let setting = Setting { has_params: params, has_authorizer: true, ..Setting::default() };
    let env = setting.env();
    let mut errors = ErrorList::new();
    if conditions.len() > CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), CONDITIONS));
    }
    let mut taken: Vec<&str> = Vec::new();
    for (index, condition) in conditions.iter().enumerate().take(CONDITIONS) {
        let path = path.index(index);
        let text = condition.text(&["expression"]).trim();
        if text.is_empty() {
            errors.push(Error::required(&path.child("expression"), ""));
        } else {
            let expression = Expression::compile(&env, text, Wanted::Bool);
            compiled(&mut errors, &path.child("expression"), &expression);
        }
        let (name, path) = (condition.text(&["name"]), path.child("name"));
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        for complaint in names::qualified_name(name).into_iter().filter(|_| !name.is_empty()) {
            errors.push(Error::invalid(&path, name, complaint));
        }
        if !name.is_empty() && taken.contains(&name) {
            errors.push(Error::duplicate(&path, name));
        }
        taken.push(name);
    }
    errors
}

/// The expressions of a ValidatingAdmissionPolicy or MutatingAdmissionPolicy, and the texts that go with
/// them.
pub fn check_policy(policy: &Value) -> ErrorList {
    let nothing = Value::Null;
    let spec = policy.at(&["spec"]).unwrap_or(&nothing);
    let path = Path::new("spec");
    let has_params = spec.at(&["paramKind"]).is_some();
    let setting = Setting { has_params, has_authorizer: true, ..Setting::default() };
    let conditions = spec.items(&["matchConditions"]);
    let mut errors = check_match_conditions(conditions, &path.child("matchConditions"), has_params);
    let variables = check_variables(spec, &path, &setting, &mut errors);
    let env = variables.env(&setting);
    let messages = variables.env(&Setting { has_authorizer: false, ..setting.clone() });
    for (index, validation) in spec.items(&["validations"]).iter().enumerate() {
        let path = path.child("validations").index(index);
        let text = |field: &str| validation.text(&[field]);
        if text("expression").trim().is_empty() {
            errors.push(Error::required(&path.child("expression"), "expression is not specified"));
        } else {
            let expression = Expression::compile(&env, text("expression"), Wanted::Bool);
            compiled(&mut errors, &path.child("expression"), &expression);
        }
        let (message, path_to) = (text("messageExpression"), path.child("messageExpression"));
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(Error::invalid(&path_to, message, "must be non-empty if specified"));
        } else if !message.is_empty() {
            compiled(&mut errors, &path_to, &Expression::compile(&messages, message, Wanted::Text));
        }
        let (message, path_to) = (text("message"), path.child("message"));
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(Error::invalid(&path_to, message, "message must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(Error::invalid(&path_to, message, "message must not contain line breaks"));
        }
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        let reason = text("reason");
        if !reason.is_empty() && !reasons.contains(&reason) {
            errors.push(Error::not_supported(&path.child("reason"), reason, &reasons));
        }
    }
    check_annotations(policy, spec, &path, &env, &mut errors);
    let patches = variables.env(&Setting { has_patches: true, ..setting });
    for (index, mutation) in spec.items(&["mutations"]).iter().enumerate() {
        check_mutation(mutation, &path.child("mutations").index(index), &patches, &mut errors);
    }
    errors
}

fn check_variables(spec: &Value, path: &Path, setting: &Setting, errors: &mut ErrorList) -> Variables {
    let variables = Variables::compile(spec, setting);
    for (index, (name, expression)) in variables.list.iter().enumerate() {
        let path = path.child("variables").index(index);
        let letters = |c: char| c == '_' || c.is_ascii_alphanumeric();
        if name.trim().is_empty() {
            errors.push(Error::required(&path.child("name"), "name is not specified"));
        } else if !name.chars().all(letters)
            || name.starts_with(|c: char| c.is_ascii_digit())
            || skep_cel::is_reserved(name)
        {
            let complaint = "name is not a valid CEL identifier";
            errors.push(Error::invalid(&path.child("name"), name.as_str(), complaint));
        }
        if expression.text.trim().is_empty() {
            errors.push(Error::required(&path.child("expression"), "expression is not specified"));
        } else {
            compiled(errors, &path.child("expression"), expression);
        }
    }
    variables
}

fn check_annotations(policy: &Value, spec: &Value, path: &Path, env: &skep_cel::Env, errors: &mut ErrorList) {
    let path = path.child("auditAnnotations");
    let annotations = spec.items(&["auditAnnotations"]);
    if annotations.len() > ANNOTATIONS {
        let complaint = format!("must not have more than {ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(&path, annotations.to_vec(), complaint));
    }
    let mut taken: Vec<&str> = Vec::new();
    for (index, annotation) in annotations.iter().enumerate().take(ANNOTATIONS) {
        let path = path.index(index);
        let (key, path_to) = (annotation.text(&["key"]), path.child("key"));
        let name = policy.name();
        if name.is_empty() {
            errors.push(Error::invalid(&path_to, key, "requires metadata.name be non-empty"));
        } else {
            let whole = format!("{name}/{key}");
            for complaint in names::qualified_name(&whole) {
                errors.push(Error::invalid(&path_to, whole.as_str(), complaint));
            }
        }
        let (text, path_to) = (annotation.text(&["valueExpression"]), path.child("valueExpression"));
        if text.trim().is_empty() {
            errors.push(Error::required(&path_to, "valueExpression is not specified"));
        } else if text.trim().len() > ANNOTATION {
            let complaint = format!("must not exceed {ANNOTATION} bytes in length");
            errors.push(Error::required(&path_to, complaint));
        } else {
            let expression = Expression::compile(env, text.trim(), Wanted::TextOrNull);
            compiled(errors, &path_to, &expression);
        }
        if taken.contains(&key) {
            errors.push(Error::duplicate(&path.child("key"), key));
        }
        taken.push(key);
    }
}

fn check_mutation(mutation: &Value, path: &Path, env: &skep_cel::Env, errors: &mut ErrorList) {
    let types = ["ApplyConfiguration", "JSONPatch"];
    let kind = mutation.text(&["patchType"]);
    let (field, other, wanted) = match kind {
        "" => return errors.push(Error::required(&path.child("patchType"), "")),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Wanted::Object),
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Wanted::Patch),
        unknown => {
            return errors.push(Error::not_supported(&path.child("patchType"), unknown, &types));
        }
    };
    if mutation.at(&[other]).is_some() {
        let complaint = format!("must not be specified when patchType is {kind}");
        errors.push(Error::invalid(&path.child(other), "{}", complaint));
    }
    if mutation.at(&[field]).is_none() {
        let complaint = format!("must be specified when patchType is {kind}");
        errors.push(Error::required(&path.child(field), complaint));
        return;
    }
    let (text, path) = (mutation.text(&[field, "expression"]), path.child(field).child("expression"));
    if text.trim().is_empty() {
        errors.push(Error::required(&path, "expression is not specified"));
    } else {
        compiled(errors, &path, &Expression::compile(env, text, wanted));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_are_compiled_when_they_are_written() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "a", "expression": "request.operation == 'CREATE' && params.x == 1"},
                {"name": "a", "expression": "object.x +"}, {"expression": "variables.n > 1"}],
            "variables": [{"name": "n", "expression": "object.spec.n + 1"}, {"name": "m", "expression": "variables.n * 2"},
                {"name": "bad-name", "expression": "1"}, {"name": "z", "expression": "variables.later"}],
            "validations": [{"expression": "variables.m > 1 && authorizer.path('/x').check('get').allowed()"},
                {"expression": "object.spec.n", "message": "a\nb", "reason": "Because"},
                {"expression": "has(object.x)", "messageExpression": "authorizer.group('')"},
                {"expression": "request.nope == ''", "messageExpression": "'a' + variables.n"},
                {"expression": " "}],
            "auditAnnotations": [{"key": "k", "valueExpression": "string(object.x)"}, {"key": "k", "valueExpression": "1"}],
        }});
        let lines: Vec<String> =
            check_policy(&policy).lines().into_iter().map(|line| line.replace('\n', " ")).collect();
        let starts = [
            "spec.matchConditions[1].expression: Invalid value: \"object.x +\": compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>'",
            "spec.matchConditions[1].name: Duplicate value: \"a\"",
            "spec.matchConditions[2].expression: Invalid value: \"variables.n > 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'variables' (in container '')",
            "spec.matchConditions[2].name: Required value",
            "spec.variables[2].name: Invalid value: \"bad-name\": name is not a valid CEL identifier",
            "spec.variables[3].expression: Invalid value: \"variables.later\": compilation failed: ERROR: <input>:1:10: undefined field 'later'",
            "spec.validations[1].expression: Invalid value: \"object.spec.n\": must evaluate to bool but got dyn",
            "spec.validations[1].message: Invalid value: \"a\\nb\": message must not contain line breaks",
            "spec.validations[1].reason: Unsupported value: \"Because\"",
            "spec.validations[2].messageExpression: Invalid value: \"authorizer.group('')\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer'",
            "spec.validations[3].expression: Invalid value: \"request.nope == ''\": compilation failed: ERROR: <input>:1:8: undefined field 'nope'",
            "spec.validations[3].messageExpression: Invalid value: \"'a' + variables.n\": compilation failed: ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'",
            "spec.validations[4].expression: Required value: expression is not specified",
            "spec.auditAnnotations[1].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
            "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
        ];
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "want {start}\n got {line}");
        }
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    }

    #[test]
    fn mutations() {
        let policy = json!({"metadata": {"name": "p"}, "spec": {"mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{n: 1}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "Object{}"}},
            {"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}},
            {"patchType": "Other"}, {}]}});
        assert_eq!(
            check_policy(&policy).lines(),
            [
                "spec.mutations[2].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object",
                "spec.mutations[3].applyConfiguration: Invalid value: \"{}\": must not be specified when patchType is JSONPatch",
                "spec.mutations[3].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[4].patchType: Unsupported value: \"Other\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
                "spec.mutations[5].patchType: Required value",
            ]
        );
    }
}
