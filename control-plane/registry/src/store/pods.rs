//! What the registry does to pods only: binding and eviction.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::selector::LabelSelector;

use super::update::{Part, Proposal};
use super::{DeleteOptions, Preconditions, Propagation, Registry, Target, WriteOptions, Written, meta};
use crate::cache::Filter;

/// Evictions that no controller has confirmed yet, at most.
const MOST_DISRUPTED: usize = 2000;

impl Registry {
    /// `pods/binding`: puts a pod on a node.
    pub async fn bind(
        &self,
        target: &Target,
        binding: &Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        let node = binding.pointer("/target/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = binding.pointer("/target/kind").and_then(Value::as_str).unwrap_or("Node");
        if node.is_empty() || !(kind.is_empty() || kind == "Node") {
            return Err(ApiError::bad_request("a binding must name a Node as its target"));
        }
        let resource = self.resource(&target.resource)?;
        let binding = &self.admit_below(target, binding.clone(), options).await?;
        let pod = target.clone().below("");
        let conflict = |text: String| ApiError::conflict(resource.gvr(), &target.name, &text);
        let uid = meta::text(binding, "uid").to_owned();
        let revision = meta::sent_revision(binding)?;
        let annotations = binding.annotations().cloned();
        let labels = binding.labels().cloned();
        self.change(&pod, options, Part::Own, &mut |old, _| {
            let mut object = Value::clone(&old.value);
            if !uid.is_empty() && uid != meta::text(&object, "uid") {
                return Err(conflict("the pod of the binding is another one by now".to_owned()));
            }
            if meta::is_deleting(&object) {
                return Err(conflict(format!(
                    "pod {} is being deleted, cannot be assigned to a host",
                    target.name
                )));
            }
            let assigned = object.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
            if !assigned.is_empty() {
                return Err(conflict(format!(
                    "pod {} is already assigned to node {assigned:?}",
                    target.name
                )));
            }
            let gates = object.pointer("/spec/schedulingGates").and_then(Value::as_array);
            if gates.is_some_and(|gates| !gates.is_empty()) {
                return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", target.name)));
            }
            object["spec"]["nodeName"] = json!(node);
            for (name, value) in annotations.iter().flatten() {
                object["metadata"]["annotations"][name] = value.clone();
            }
            // The node's topology; what the pod says itself stays.
            for (name, value) in labels.iter().flatten() {
                if object.label(name).is_none() {
                    object["metadata"]["labels"][name] = value.clone();
                }
            }
            set_condition(&mut object, "PodScheduled", "True");
            Ok(Proposal { object, revision, applied: false, warnings: Vec::new() })
        })
        .await?;
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    }

    /// `pods/eviction`: deletes a pod if the disruption budgets allow it.
    pub async fn evict(
        &self,
        target: &Target,
        eviction: &Value,
        how: DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        let name = meta::text(eviction, "name");
        if !name.is_empty() && name != target.name {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        self.admit_below(target, eviction.clone(), options).await?;
        let target = target.clone().below("");
        let pod = self.get(&target, None).await?;
        let phase = pod.value.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
        if !meta::is_deleting(&pod.value) && !matches!(phase, "Pending" | "Succeeded" | "Failed") {
            self.spend_budget(&target, &pod.value, options).await?;
        }
        if !meta::is_deleting(&pod.value) {
            self.mark_disrupted(&target, options).await?;
        }
        let preconditions = Preconditions {
            uid: how.preconditions.uid.or_else(|| Some(meta::text(&pod.value, "uid").to_owned())),
            ..how.preconditions
        };
        let propagation = how.propagation.or(Some(Propagation::Background));
        let how = DeleteOptions { preconditions, propagation, ..how };
        self.delete_unasked(&target, &how, options).await?;
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    }

    /// Notes on the pod that it goes because somebody evicted it, which job controllers want to know.
    async fn mark_disrupted(&self, target: &Target, options: &WriteOptions) -> Result<(), ApiError> {
        let status = target.clone().below("status");
        self.change(&status, options, Part::Own, &mut |old, _| {
            let mut object = Value::clone(&old.value);
            set_condition(&mut object, "DisruptionTarget", "True");
            let conditions = object["status"]["conditions"].as_array_mut();
            if let Some(condition) = conditions.and_then(|conditions| conditions.last_mut()) {
                condition["reason"] = json!("EvictionByEvictionAPI");
                condition["message"] = json!("Eviction API: evicting");
            }
            Ok(Proposal { object, revision: 0, applied: false, warnings: Vec::new() })
        })
        .await
        .map(|_: Written| ())
    }

    /// Takes one disruption out of the budget that covers the pod.
    async fn spend_budget(
        &self,
        target: &Target,
        pod: &Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        let budgets = GroupVersionResource::new("policy", "v1", "poddisruptionbudgets");
        let filter = Filter { namespace: Some(target.namespace.clone()), ..Filter::default() };
        let everything = self.resource(&budgets)?.cache().snapshot(&filter);
        let mut covering = Vec::new();
        for budget in everything {
            let selector = budget.value.pointer("/spec/selector");
            let selector = LabelSelector::from_object(selector)
                .map_err(|error| ApiError::internal(format!("a disruption budget is invalid: {error}")))?;
            if selector.matches(pod.labels()) {
                covering.push(budget);
            }
        }
        let budget = match covering.as_slice() {
            [] => return Ok(()),
            [one] => one,
            _ => {
                let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                            does not support.";
                return Err(ApiError::internal(text));
            }
        };
        if !is_ready(pod) && spares_unready(&budget.value) {
            return Ok(());
        }
        let name = budget.name.clone();
        let named = budgets.clone();
        let status = Target::new(budgets, target.namespace.clone(), name.clone()).below("status");
        self.change(&status, options, Part::Own, &mut |old, _| {
            let mut object = Value::clone(&old.value);
            let number = |field: &str| object.pointer(field).and_then(Value::as_i64).unwrap_or_default();
            if number("/status/observedGeneration") < number("/metadata/generation") {
                let text = format!(
                    "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget \
                     {name} is still being processed by the server."
                );
                return Err(ApiError::too_many_requests(10, text));
            }
            let allowed = number("/status/disruptionsAllowed");
            if allowed <= 0 {
                let text = "Cannot evict pod as it would violate the pod's disruption budget.";
                let message = format!(
                    "The disruption budget {name} needs {} healthy pods and has {} currently",
                    number("/status/desiredHealthy"),
                    number("/status/currentHealthy")
                );
                let cause = StatusCause {
                    reason: Some("DisruptionBudget".to_owned()),
                    message: Some(message),
                    field: None,
                };
                let details = StatusDetails { causes: Some(vec![cause]), ..StatusDetails::default() };
                return Err(ApiError::too_many_requests(0, text).with_details(details));
            }
            let pending = object.pointer("/status/disruptedPods").and_then(Value::as_object);
            if pending.is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
                let text = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
                return Err(ApiError::forbidden(&named, &name, text));
            }
            object["status"]["disruptionsAllowed"] = json!(allowed - 1);
            object["status"]["disruptedPods"][&target.name] = json!(meta::now());
            Ok(Proposal { object, revision: old.revision, applied: false, warnings: Vec::new() })
        })
        .await
        .map(|_: Written| ())
    }
}

/// Is the pod ready?
fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A pod that is not ready costs a budget nothing if it says so, or if the others are enough.
fn spares_unready(budget: &Value) -> bool {
    let number = |field: &str| budget.pointer(field).and_then(Value::as_i64).unwrap_or_default();
    let always = budget.pointer("/spec/unhealthyPodEvictionPolicy").is_some_and(|p| p == "AlwaysAllow");
    let (healthy, desired) = (number("/status/currentHealthy"), number("/status/desiredHealthy"));
    always || (desired > 0 && healthy >= desired)
}

/// Sets a condition of a pod.
fn set_condition(pod: &mut Value, kind: &str, status: &str) {
    let condition = json!({
        "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": meta::now(),
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != kind);
        conditions.push(condition);
    }
}
