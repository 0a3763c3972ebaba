//! Roles and bindings: who writes one must have every right in it, or the verb `escalate` on the role or
//! `bind` on the role that is bound.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use skep_admission::{Attributes, Operation, Plugin, Reader};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_auth::authorization;
use skep_auth::authorization::rbac::{PolicyRule, escalation, missing_rules};

use super::Gates;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The plug-in.
pub(super) struct Escalation {
    gates: Gates,
    reader: Arc<dyn Reader>,
}

impl Escalation {
    pub(super) fn new(gates: Gates, reader: Arc<dyn Reader>) -> Self {
        Self { gates, reader }
    }

    /// Is the verb allowed on a role.
    async fn may(
        &self,
        attributes: &Attributes,
        verb: &str,
        resource: &str,
        name: &str,
    ) -> Result<bool, ApiError> {
        let asked = authorization::Attributes {
            version: "v1",
            namespace: &attributes.namespace,
            name,
            ..authorization::Attributes::for_resource(&attributes.user, verb, GROUP, resource)
        };
        self.gates.may(&asked).await
    }

    fn confirm(&self, attributes: &Attributes, wanted: &[PolicyRule]) -> Result<(), ApiError> {
        let owned = self.gates.0.rbac.snapshot().rules_for(&attributes.user, &attributes.namespace);
        match escalation(&attributes.user, &owned, wanted) {
            None => Ok(()),
            Some(why) => Err(ApiError::forbidden(&attributes.gvr, &attributes.name, why)),
        }
    }

    async fn role(&self, attributes: &Attributes, object: &Value) -> Result<(), ApiError> {
        if self.may(attributes, "escalate", &attributes.gvr.resource, &attributes.name).await? {
            return Ok(());
        }
        let aggregates = |object: &Value| object.get("aggregationRule").is_some_and(Value::is_object);
        if aggregates(object) || attributes.old_object.as_ref().is_some_and(aggregates) {
            let owned = self.gates.0.rbac.snapshot().rules_for(&attributes.user, "");
            let everything = rules(&json!({"rules": [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]}))?;
            if !missing_rules(&owned, &everything).is_empty() {
                let why = "must have cluster-admin privileges to use an aggregationRule";
                return Err(ApiError::forbidden(&attributes.gvr, &attributes.name, why));
            }
        }
        self.confirm(attributes, &rules(object)?)
    }

    async fn binding(&self, attributes: &Attributes, object: &Value) -> Result<(), ApiError> {
        let name = object.text(&["roleRef", "name"]);
        let (resource, namespace) = match object.text(&["roleRef", "kind"]) {
            "ClusterRole" => ("clusterroles", None),
            _ => ("roles", Some(attributes.namespace.as_str())),
        };
        if self.may(attributes, "bind", resource, name).await? {
            return Ok(());
        }
        let gvr = GroupVersionResource::new(GROUP, "v1", resource);
        let role = self.reader.get(&gvr, namespace, name).await?;
        let role = role.ok_or_else(|| ApiError::not_found(&gvr, name))?;
        self.confirm(attributes, &rules(&role)?)
    }
}

fn rules(role: &Value) -> Result<Vec<PolicyRule>, ApiError> {
    let rules = role.get("rules").filter(|rules| !rules.is_null());
    let read = rules.map_or_else(|| Ok(Vec::new()), |rules| serde_json::from_value(rules.clone()));
    read.map_err(|error| ApiError::internal(format!("the rules of a role can't be read: {error}")))
}

/// Are the two the same but for what the garbage collector writes.
fn only_collected(new: &Value, old: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    strip(new) == strip(old)
}

#[async_trait]
impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        gvr.group == GROUP
            && subresource.is_empty()
            && matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(object) = &attributes.object else { return Ok(()) };
        if super::is_master(&attributes.user) {
            return Ok(());
        }
        if attributes.old_object.as_ref().is_some_and(|old| only_collected(object, old)) {
            return Ok(());
        }
        match attributes.gvr.resource.as_str() {
            "roles" | "clusterroles" => self.role(attributes, object).await,
            "rolebindings" | "clusterrolebindings" => self.binding(attributes, object).await,
            _ => Ok(()),
        }
    }
}
