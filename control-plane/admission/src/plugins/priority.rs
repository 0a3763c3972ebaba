//! Priority: turns a pod's priority class into a number, and keeps the default class unique.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Attributes, Operation, Plugin, Reader};

const GROUP: &str = "scheduling.k8s.io";

/// The plug-in.
pub struct Priority {
    reader: Arc<dyn Reader>,
}

impl Priority {
    /// Reads priority classes through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    async fn classes(&self) -> Result<Vec<Arc<Value>>, ApiError> {
        self.reader.list(&classes_resource(), None).await
    }

    /// The class of a pod: the one it names, or the default one.
    async fn class_of(&self, attributes: &Attributes, name: &str) -> Result<Option<Arc<Value>>, ApiError> {
        if name.is_empty() {
            let classes = self.classes().await?;
            let defaults = classes.into_iter().filter(|class| class.flag(&["globalDefault"]));
            return Ok(defaults.min_by_key(|class| class.int(&["value"]).unwrap_or_default()));
        }
        if let Some(class) = self.reader.get(&classes_resource(), None, name).await? {
            return Ok(Some(class));
        }
        // The system's own classes hold even before they are stored.
        let system = system_classes().into_iter().find(|class| class.name() == name);
        match system {
            Some(class) => Ok(Some(Arc::new(class))),
            None => Err(forbidden(attributes, format!("no PriorityClass with name {name} was found"))),
        }
    }

    async fn admit_new(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let Some(pod) = &attributes.object else { return Ok(()) };
        let name = pod.text(&["spec", "priorityClassName"]).to_owned();
        let given = (pod.int(&["spec", "priority"]), pod.text(&["spec", "preemptionPolicy"]).to_owned());
        let class = self.class_of(attributes, &name).await?;
        let value = class.as_ref().and_then(|class| class.int(&["value"])).unwrap_or_default();
        let policy = class.as_ref().map_or("", |class| class.text(&["preemptionPolicy"]));
        let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
        if given.0.is_some_and(|priority| priority != value) {
            let why = format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                given.0.unwrap_or_default()
            );
            return Err(forbidden(attributes, why));
        }
        if !given.1.is_empty() && given.1 != policy {
            let why = format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
                given.1
            );
            return Err(forbidden(attributes, why));
        }
        let class_name = class.as_ref().map(|class| class.name().to_owned());
        let policy = policy.to_owned();
        if let Some(pod) = &mut attributes.object {
            if let Some(class_name) = class_name {
                pod.set(&["spec", "priorityClassName"], class_name);
            }
            pod.set(&["spec", "priority"], value);
            pod.set(&["spec", "preemptionPolicy"], policy);
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        subresource.is_empty()
            && matches!(operation, Operation::Create | Operation::Update)
            && (gvr.group.is_empty() && gvr.resource == "pods"
                || gvr.group == GROUP && gvr.resource == "priorityclasses")
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        if attributes.operation == Operation::Create {
            return self.admit_new(attributes).await;
        }
        // An update that leaves the computed values out keeps them.
        let Some(old) = &attributes.old_object else { return Ok(()) };
        let kept = ["priority", "preemptionPolicy"].map(|field| (field, old.at(&["spec", field]).cloned()));
        if let Some(pod) = &mut attributes.object {
            for (field, value) in kept {
                if let Some(value) = value.filter(|_| pod.at(&["spec", field]).is_none_or(Value::is_null)) {
                    pod.set(&["spec", field], value);
                }
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(class) = &attributes.object else { return Ok(()) };
        if !attributes.is(GROUP, "priorityclasses") || !class.flag(&["globalDefault"]) {
            return Ok(());
        }
        let other = self
            .classes()
            .await?
            .into_iter()
            .find(|other| other.flag(&["globalDefault"]) && other.name() != class.name());
        match other {
            None => Ok(()),
            Some(other) => Err(forbidden(
                attributes,
                format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.name()
                ),
            )),
        }
    }
}

fn classes_resource() -> GroupVersionResource {
    GroupVersionResource::new(GROUP, "v1", "priorityclasses")
}

/// The two classes every cluster has.
pub fn system_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "preemptionPolicy": "PreemptLowerPriority",
            "description": description,
        })
    };
    vec![
        class("system-node-critical", 2_000_001_000, "For pods a node can't work without."),
        class("system-cluster-critical", 2_000_000_000, "For pods the cluster can't work without."),
    ]
}
