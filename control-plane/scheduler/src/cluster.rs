//! The nodes and what is placed on them: what a scheduling cycle decides by.
//!
//! Invariant: a placed pod is on exactly one node, which `placed` names; a pod whose node is not known
//! (yet) is kept with a node of nothing, so that it counts when the node appears.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::node_info::NodeInfo;
use crate::pod_info::{NamespaceLabels, PodInfo, PodKey};

/// A pod that waits for room on a node.
#[derive(Clone, Debug)]
pub(crate) struct Nomination {
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) node: String,
    /// The uids of the pods that were told to go.
    pub(crate) victims: Vec<String>,
}

/// The state of the cluster. Owned by one task; copies answer what-ifs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    /// In the order of their names: cycles are deterministic.
    nodes: Vec<NodeInfo>,
    index: HashMap<String, usize>,
    /// Pods whose node has no object.
    homeless: HashMap<String, Vec<Arc<PodInfo>>>,
    placed: HashMap<PodKey, (String, String)>,
    pub(crate) namespaces: NamespaceLabels,
    with_affinity: usize,
    nominations: BTreeMap<PodKey, Nomination>,
}

impl Cluster {
    pub(crate) fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub(crate) fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index.get(name).map(|&at| &self.nodes[at])
    }

    /// Keeps room on a node for a pod.
    pub(crate) fn nominate(&mut self, nomination: Nomination) {
        self.nominations.insert(nomination.pod.key.clone(), nomination);
    }

    pub(crate) fn nomination(&self, key: &PodKey) -> Option<&Nomination> {
        self.nominations.get(key)
    }

    /// Returns whether the pod was nominated.
    pub(crate) fn withdraw(&mut self, key: &PodKey) -> bool {
        self.nominations.remove(key).is_some()
    }

    /// The pods nominated for a node that are less important than this priority.
    pub(crate) fn nominated_below(&self, node: &str, priority: i32) -> Vec<Arc<PodInfo>> {
        let lesser = self.nominations.values().filter(|n| n.node == node && n.pod.priority < priority);
        lesser.map(|n| Arc::clone(&n.pod)).collect()
    }

    /// Is room on this node kept for a pod that goes before this one?
    pub(crate) fn is_kept(&self, node: &str, pod: &PodInfo) -> bool {
        self.nominations.values().any(|n| n.node == node && goes_before(n, pod))
    }

    /// The cluster as it will be when the nominated pods that go before this one are placed; `None` when
    /// that is as it is now.
    pub(crate) fn with_nominated(&self, pod: &PodInfo) -> Option<Self> {
        let mut others = self
            .nominations
            .values()
            .filter(|n| goes_before(n, pod) && self.index.contains_key(&n.node))
            .peekable();
        others.peek()?;
        let mut later = self.clone();
        for nomination in others {
            later.place(Arc::clone(&nomination.pod), &nomination.node);
        }
        Some(later)
    }

    /// Does any placed pod keep others away or want them near? If not, affinity costs nothing.
    pub(crate) fn any_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// A node appeared or changed.
    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let Some(name) = node.metadata.name.clone() else { return };
        if let Some(&at) = self.index.get(&name) {
            self.nodes[at].set_node(node);
            return;
        }
        let mut info = NodeInfo::new(node);
        for pod in self.homeless.remove(&name).into_iter().flatten() {
            info.add(pod);
        }
        let at = self.nodes.partition_point(|other| other.name < name);
        self.nodes.insert(at, info);
        self.reindex();
    }

    /// A node is gone; its pods are still there until they are deleted.
    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        let info = self.nodes.remove(at);
        if !info.pods.is_empty() {
            self.homeless.insert(name.to_owned(), info.pods);
        }
        self.reindex();
    }

    fn reindex(&mut self) {
        self.index = self.nodes.iter().enumerate().map(|(at, node)| (node.name.clone(), at)).collect();
    }

    /// Where a pod is placed.
    pub(crate) fn node_of(&self, key: &PodKey) -> Option<&str> {
        self.placed.get(key).map(|(node, _)| node.as_str())
    }

    /// Places a pod, or moves it, or takes its new form.
    pub(crate) fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.displace(&pod.key);
        self.placed.insert(pod.key.clone(), (node.to_owned(), pod.uid.clone()));
        self.with_affinity += usize::from(has_affinity(&pod));
        match self.index.get(node) {
            Some(&at) => self.nodes[at].add(pod),
            None => self.homeless.entry(node.to_owned()).or_default().push(pod),
        }
    }

    /// Removes a pod. Returns whether it was there.
    pub(crate) fn displace(&mut self, key: &PodKey) -> bool {
        let Some((node, uid)) = self.placed.remove(key) else { return false };
        let homes = match self.index.get(&node) {
            Some(&at) => &self.nodes[at].pods,
            None => self.homeless.entry(node.clone()).or_default(),
        };
        if homes.iter().any(|pod| pod.uid == uid && has_affinity(pod)) {
            self.with_affinity -= 1;
        }
        match self.index.get(&node) {
            Some(&at) => self.nodes[at].remove(&uid),
            None => self.homeless.entry(node).or_default().retain(|pod| pod.uid != uid),
        }
        true
    }
}

fn goes_before(nomination: &Nomination, pod: &PodInfo) -> bool {
    nomination.pod.key != pod.key && nomination.pod.priority >= pod.priority
}

fn has_affinity(pod: &PodInfo) -> bool {
    !(pod.affinity.is_empty() && pod.anti_affinity.is_empty() && pod.preferred.is_empty())
}
