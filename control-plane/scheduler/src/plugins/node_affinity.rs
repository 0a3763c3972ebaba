//! What a pod says of its node's labels: `nodeSelector`, and required and preferred node affinity.

use k8s_openapi::api::core::v1::NodeAffinity as Affinity;

use crate::affinity::{selects, term_selects};
use crate::cluster::Cluster;
use crate::framework::{Check, Normalize, Plugin, Rate};
use crate::pod_info::PodInfo;

pub(crate) struct NodeAffinity;

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn check<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        let labels = pod.pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        let required =
            affinity(pod).and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
        if labels.is_none() && required.is_none() {
            return None;
        }
        Some(Box::new(move |node| {
            let has_labels = labels.into_iter().flatten().all(|(key, value)| node.label(key) == Some(value));
            if has_labels && required.is_none_or(|selector| selects(selector, node)) {
                Vec::new()
            } else {
                vec!["node(s) didn't match Pod's node affinity/selector".into()]
            }
        }))
    }

    fn rate<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Rate<'a>> {
        let preferred = affinity(pod)?.preferred_during_scheduling_ignored_during_execution.as_ref()?;
        Some(Box::new(move |node| {
            let matching = preferred.iter().filter(|term| term_selects(&term.preference, node));
            matching.map(|term| i64::from(term.weight)).sum()
        }))
    }

    fn normalize(&self) -> Normalize {
        Normalize::Highest
    }

    fn weight(&self) -> i64 {
        2
    }
}
