//! A node must have what the pod requests, beyond what is promised already.

use crate::cluster::Cluster;
use crate::framework::{Check, Plugin};
use crate::pod_info::PodInfo;

pub(crate) struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn check<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        Some(Box::new(|node| {
            let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
            let mut reasons = Vec::new();
            if used.pods + 1 > all.pods {
                reasons.push("Too many pods".into());
            }
            for (name, wanted, used, all) in [
                ("cpu", wanted.milli_cpu, used.milli_cpu, all.milli_cpu),
                ("memory", wanted.memory, used.memory, all.memory),
                (
                    "ephemeral-storage",
                    wanted.ephemeral_storage,
                    used.ephemeral_storage,
                    all.ephemeral_storage,
                ),
            ] {
                // What is not requested is not refused, however full the node is.
                if wanted > 0 && wanted > all.saturating_sub(used) {
                    reasons.push(format!("Insufficient {name}").into());
                }
            }
            for (name, wanted) in &wanted.other {
                let free = all.other.get(name).unwrap_or(&0) - used.other.get(name).unwrap_or(&0);
                if *wanted > 0 && *wanted > free {
                    reasons.push(format!("Insufficient {name}").into());
                }
            }
            reasons
        }))
    }
}
