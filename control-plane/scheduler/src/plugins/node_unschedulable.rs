//! Cordoned nodes take no pods, but those that tolerate it.

use crate::cluster::Cluster;
use crate::framework::{Check, Plugin};
use crate::pod_info::PodInfo;

pub(crate) struct NodeUnschedulable;

/// What the node controller taints cordoned nodes with.
const TAINT: &str = "node.kubernetes.io/unschedulable";

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn check<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        let tolerations = pod.pod.spec.as_ref()?.tolerations.as_deref().unwrap_or_default();
        let tolerated = tolerations.iter().any(|toleration| {
            toleration.operator.as_deref() == Some("Exists")
                && toleration.key.as_deref().is_none_or(|key| key.is_empty() || key == TAINT)
                && toleration
                    .effect
                    .as_deref()
                    .is_none_or(|effect| effect.is_empty() || effect == "NoSchedule")
        });
        if tolerated {
            return None;
        }
        Some(Box::new(|node| {
            if node.unschedulable() { vec!["node(s) were unschedulable".into()] } else { Vec::new() }
        }))
    }
}
