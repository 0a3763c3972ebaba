//! A pod, with everything the plug-ins ask of it worked out once.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use skep_api::selector::LabelSelector;

use crate::resources::{self, Resources};

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PodKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A port on the node's own addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    pub(crate) ip: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

impl HostPort {
    /// Two ports conflict when number and protocol are the same and one address covers the other.
    pub(crate) fn conflicts(&self, with: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == with.port
            && self.protocol == with.protocol
            && (self.ip == with.ip || any(&self.ip) || any(&with.ip))
    }
}

/// Which pods a term is about, and over which part of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    selector: LabelSelector,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    pub(crate) topology_key: String,
}

/// The labels of every namespace.
pub(crate) type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

impl Term {
    fn new(term: &PodAffinityTerm, pod: &Pod) -> Self {
        let own_namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let namespaces = term.namespaces.clone().unwrap_or_default();
        // Neither list nor selector: the pod's own namespace.
        let namespaces = if namespaces.is_empty() && term.namespace_selector.is_none() {
            vec![own_namespace]
        } else {
            namespaces
        };
        // A selector that validation would have refused selects nothing.
        let selector =
            |selector| LabelSelector::from_typed(selector).unwrap_or_else(|_| LabelSelector::nothing());
        Self {
            selector: selector(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|own| selector(Some(own))),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Is the term about this pod?
    pub(crate) fn matches(&self, pod: &PodInfo, namespaces: &NamespaceLabels) -> bool {
        let own = &pod.key.namespace;
        let in_namespace = self.namespaces.contains(own)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.matches_map(namespaces.get(own)));
        in_namespace && self.selector.matches_map(pod.pod.metadata.labels.as_ref())
    }
}

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub(crate) struct PodInfo {
    pub(crate) pod: Arc<Pod>,
    pub(crate) key: PodKey,
    pub(crate) uid: String,
    pub(crate) priority: i32,
    pub(crate) requests: Resources,
    pub(crate) score_requests: Resources,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) affinity: Vec<Term>,
    pub(crate) anti_affinity: Vec<Term>,
    pub(crate) preferred: Vec<(i64, Term)>,
}

impl PodInfo {
    /// Works a pod out.
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let affinity = spec.affinity.clone().unwrap_or_default();
        let (with, without) =
            (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
        let terms = |terms: Option<Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.iter().flatten().map(|term| Term::new(term, &pod)).collect()
        };
        let liked = with.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let disliked = without.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
        let preferred = liked
            .iter()
            .map(|term| (i64::from(term.weight), Term::new(&term.pod_affinity_term, &pod)))
            .chain(
                disliked
                    .iter()
                    .map(|term| (-i64::from(term.weight), Term::new(&term.pod_affinity_term, &pod))),
            )
            .collect();
        let host_ports = spec
            .containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| {
                Some(HostPort {
                    ip: port.host_ip.clone().unwrap_or_default(),
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    port: port.host_port.filter(|number| *number > 0)?,
                })
            })
            .collect();
        Self {
            key: PodKey {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                name: pod.metadata.name.clone().unwrap_or_default(),
            },
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            requests: resources::of_pod(&spec),
            score_requests: resources::of_pod_for_scores(&spec),
            host_ports,
            affinity: terms(with.required_during_scheduling_ignored_during_execution),
            anti_affinity: terms(without.required_during_scheduling_ignored_during_execution),
            preferred,
            pod,
        }
    }
}
