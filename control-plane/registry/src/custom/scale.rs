//! The scale subresource of custom resources: three simple paths.

use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;

/// Where the numbers are.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

fn steps(path: &str) -> Vec<String> {
    path.trim_start_matches('.').split('.').map(str::to_owned).collect()
}

fn at<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, step| value.get(step)).filter(|value| !value.is_null())
}

impl Scale {
    /// Reads `subresources.scale`.
    pub(crate) fn parse(scale: &Value) -> Self {
        let selector = scale.text(&["labelSelectorPath"]);
        Self {
            spec: steps(scale.text(&["specReplicasPath"])),
            status: steps(scale.text(&["statusReplicasPath"])),
            selector: (!selector.is_empty()).then(|| steps(selector)),
        }
    }

    /// The `autoscaling/v1 Scale` of an object.
    pub(crate) fn read(&self, object: &Value) -> Value {
        let mut metadata = json!({});
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object.at(&["metadata", field]) {
                metadata.set(&[field], value.clone());
            }
        }
        let number = |path: &[String]| at(object, path).and_then(Value::as_i64).unwrap_or_default();
        let mut status = json!({"replicas": number(&self.status)});
        let selector = self.selector.as_deref().and_then(|path| at(object, path)).and_then(Value::as_str);
        if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
            status.set(&["selector"], selector);
        }
        json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": metadata,
            "spec": {"replicas": number(&self.spec)},
            "status": status,
        })
    }

    /// Writes the wanted number into an object.
    pub(crate) fn write(&self, object: &mut Value, scale: &Value) {
        let path: Vec<&str> = self.spec.iter().map(String::as_str).collect();
        object.set(&path, scale.int(&["spec", "replicas"]).unwrap_or_default());
    }

    /// What is wrong with the numbers in the spec.
    pub(crate) fn validate_spec(&self, object: &Value, errors: &mut ErrorList) {
        count(object, &self.spec, errors);
    }

    /// What is wrong with the numbers and the selector in the status.
    pub(crate) fn validate_status(&self, object: &Value, errors: &mut ErrorList) {
        count(object, &self.status, errors);
        let Some(path) = &self.selector else { return };
        if let Some(value) = at(object, path).filter(|value| !value.is_string()) {
            let dotted = format!(".{}", path.join("."));
            let detail =
                format!("{dotted} accessor error: {value} is of the type {}, expected string", go(value));
            errors.push(Error::invalid(&Path::new(&dotted), "", detail));
        }
    }
}

/// A replica count: a number that fits 32 bits and is not negative.
fn count(object: &Value, path: &[String], errors: &mut ErrorList) {
    let dotted = format!(".{}", path.join("."));
    let here = Path::new(&dotted);
    let Some(value) = at(object, path) else { return };
    let Some(number) = value.as_i64() else {
        let detail = format!("{dotted} accessor error: {value} is of the type {}, expected int64", go(value));
        return errors.push(Error::invalid(&here, 0, detail));
    };
    if number < 0 {
        errors.push(Error::invalid(&here, number, "should be a non-negative integer"));
    } else if number > i64::from(i32::MAX) {
        let detail = format!("should be less than or equal to {}", i32::MAX);
        errors.push(Error::invalid(&here, number, detail));
    }
}

/// What Go calls the type of a value.
fn go(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
