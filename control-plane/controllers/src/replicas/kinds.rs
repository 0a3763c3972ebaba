//! ReplicaSet and ReplicationController as the core sees them.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use skep_api::selector::LabelSelector;
use skep_client::Kind;

use super::{Observed, Wanted};
use crate::owners::controller_ref;

/// A kind that the core can keep.
pub(crate) trait Replicated: Kind {
    /// What is asked; `None` when the object makes no sense (the server would not have let it in).
    fn wanted(&self) -> Option<Wanted>;

    /// Whether its status counts the pods that are leaving.
    const COUNTS_TERMINATING: bool;

    /// Its conditions as JSON.
    fn conditions(&self) -> Value;

    /// The status to write: counts, and `ReplicaFailure` beside the conditions of others.
    fn status(&self, observed: &Observed) -> Value {
        let old = self.conditions();
        let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut conditions: Vec<Value> =
            old.iter().filter(|c| c["type"] != "ReplicaFailure").cloned().collect();
        if let Some((reason, message)) = &observed.failure {
            let before = old.iter().find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True");
            let since = before.map(|c| c["lastTransitionTime"].clone());
            conditions.push(json!({
                "type": "ReplicaFailure",
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| json!(Time(Timestamp::now()))),
            }));
        }
        let mut status = json!({
            "replicas": observed.replicas,
            "fullyLabeledReplicas": observed.fully_labeled,
            "readyReplicas": observed.ready,
            "availableReplicas": observed.available,
            "observedGeneration": observed.generation,
            "conditions": if conditions.is_empty() { Value::Null } else { conditions.into() },
        });
        if Self::COUNTS_TERMINATING {
            status["terminatingReplicas"] = observed.terminating.into();
        }
        status
    }
}

impl Replicated for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.as_ref()?;
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure");
        Some(Wanted {
            namespace: self.metadata.namespace.clone()?,
            owner: controller_ref(self),
            deleting: self.metadata.deletion_timestamp.is_some(),
            selector: LabelSelector::from_typed(Some(&spec.selector)).ok()?,
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            template: spec.template.clone().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or(0),
            status: Observed {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                terminating: status.terminating_replicas.unwrap_or(0),
                generation: status.observed_generation.unwrap_or(0),
                failure: failure
                    .map(|c| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())),
            },
        })
    }

    fn conditions(&self) -> Value {
        json!(self.status.as_ref().and_then(|s| s.conditions.as_ref()))
    }
}

impl Replicated for ReplicationController {
    const COUNTS_TERMINATING: bool = false;

    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.as_ref()?;
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure");
        // Empty would select everything: nothing is the safe reading.
        let selector = spec.selector.as_ref().filter(|s| !s.is_empty())?;
        let selector: Map<String, Value> =
            selector.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        Some(Wanted {
            namespace: self.metadata.namespace.clone()?,
            owner: controller_ref(self),
            deleting: self.metadata.deletion_timestamp.is_some(),
            selector: LabelSelector::from_map(&selector),
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or(0),
            template: spec.template.clone().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or(0),
            status: Observed {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                // The kind has no such field: nothing to compare.
                terminating: 0,
                generation: status.observed_generation.unwrap_or(0),
                failure: failure
                    .map(|c| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())),
            },
        })
    }

    fn conditions(&self) -> Value {
        json!(self.status.as_ref().and_then(|s| s.conditions.as_ref()))
    }
}
