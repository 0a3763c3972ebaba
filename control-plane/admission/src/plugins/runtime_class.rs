//! RuntimeClass: a pod takes over the overhead and the scheduling of the class it runs in.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Attributes, Operation, Plugin, Reader};

/// The plug-in.
pub struct RuntimeClass {
    reader: Arc<dyn Reader>,
}

impl RuntimeClass {
    /// Reads runtime classes through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    /// The class of the pod, if it names one.
    async fn class(&self, attributes: &Attributes) -> Result<Option<Arc<Value>>, ApiError> {
        let Some(pod) = &attributes.object else { return Ok(None) };
        let name = pod.text(&["spec", "runtimeClassName"]);
        if name.is_empty() {
            return Ok(None);
        }
        let classes = GroupVersionResource::new("node.k8s.io", "v1", "runtimeclasses");
        let found = self.reader.get(&classes, None, name).await?;
        let missing = || forbidden(attributes, format!("pod rejected: RuntimeClass {name:?} not found"));
        found.map(Some).ok_or_else(missing)
    }
}

fn overhead(object: &Value, path: &[&str]) -> Map<String, Value> {
    object.map(path).cloned().unwrap_or_default()
}

/// Do two lists of amounts say the same, however they are written?
fn same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let amount = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    a.len() == b.len()
        && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| amount(value) == amount(other)))
}

/// Adds the class's node selector and tolerations.
fn schedule(pod: &mut Value, scheduling: &Value) -> Result<(), String> {
    let mut selector = pod.map(&["spec", "nodeSelector"]).cloned().unwrap_or_default();
    for (key, value) in scheduling.map(&["nodeSelector"]).into_iter().flatten() {
        match selector.get(key) {
            Some(own) if own != value => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    value.as_str().unwrap_or_default(),
                    own.as_str().unwrap_or_default()
                ));
            }
            _ => _ = selector.insert(key.clone(), value.clone()),
        }
    }
    if !selector.is_empty() {
        pod.set(&["spec", "nodeSelector"], selector);
    }
    let mut tolerations = pod.items(&["spec", "tolerations"]).to_vec();
    for toleration in scheduling.items(&["tolerations"]) {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if !tolerations.is_empty() {
        pod.set(&["spec", "tolerations"], tolerations);
    }
    Ok(())
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Create
            && gvr.group.is_empty()
            && gvr.resource == "pods"
            && subresource.is_empty()
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let Some(class) = self.class(attributes).await? else { return Ok(()) };
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        let wanted = overhead(&class, &["overhead", "podFixed"]);
        let given = overhead(pod, &["spec", "overhead"]);
        if !wanted.is_empty() {
            if !given.is_empty() && !same(&given, &wanted) {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(forbidden(attributes, why));
            }
            pod.set(&["spec", "overhead"], wanted);
        }
        if let Some(scheduling) = class.at(&["scheduling"]).filter(|value| !value.is_null())
            && let Err(why) = schedule(pod, scheduling)
        {
            return Err(forbidden(attributes, why));
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let class = self.class(attributes).await?;
        let Some(pod) = &attributes.object else { return Ok(()) };
        let given = overhead(pod, &["spec", "overhead"]);
        let wanted = class.map(|class| overhead(&class, &["overhead", "podFixed"])).unwrap_or_default();
        if same(&given, &wanted) {
            return Ok(());
        }
        let why = if wanted.is_empty() {
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        } else {
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        };
        Err(forbidden(attributes, why))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scheduling_is_joined() {
        let mut pod = json!({"spec": {"nodeSelector": {"a": "1"}, "tolerations": [{"key": "x"}]}});
        let scheduling = json!({"nodeSelector": {"b": "2"}, "tolerations": [{"key": "x"}, {"key": "y"}]});
        schedule(&mut pod, &scheduling).expect("no conflict");
        assert_eq!(pod["spec"]["nodeSelector"], json!({"a": "1", "b": "2"}));
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "x"}, {"key": "y"}]));
        let error = schedule(&mut pod, &json!({"nodeSelector": {"a": "3"}})).expect_err("a conflict");
        assert!(error.starts_with("conflict: runtimeClass.scheduling.nodeSelector[a] = 3"), "{error}");
    }

    #[test]
    fn amounts_are_compared_by_value() {
        let map = |text: &str| json!({"cpu": text}).as_object().cloned().unwrap_or_default();
        assert!(same(&map("1"), &map("1000m")));
        assert!(!same(&map("1"), &map("2")));
    }
}
