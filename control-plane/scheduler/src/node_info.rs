//! A node with what runs on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;

/// Sums are kept, not computed: placing or removing a pod costs its own size.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    pub(crate) node: Arc<Node>,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) score_requested: Resources,
    pub(crate) pods: Vec<Arc<PodInfo>>,
    pub(crate) image_sizes: HashMap<String, i64>,
}

impl NodeInfo {
    /// A node with nothing on it.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let mut info = Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            node: Arc::clone(&node),
            allocatable: Resources::default(),
            requested: Resources::default(),
            score_requested: Resources::default(),
            pods: Vec::new(),
            image_sizes: HashMap::new(),
        };
        info.set_node(node);
        info
    }

    /// The node object changed.
    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resources::from_list(status.and_then(|status| status.allocatable.as_ref()));
        self.image_sizes = status
            .into_iter()
            .flat_map(|status| status.images.iter().flatten())
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.node = node;
    }

    pub(crate) fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.node.metadata.labels.as_ref()
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key).map(String::as_str)
    }

    pub(crate) fn taints(&self) -> impl Iterator<Item = &Taint> {
        self.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
    }

    pub(crate) fn unschedulable(&self) -> bool {
        self.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
    }

    pub(crate) fn host_ports(&self) -> impl Iterator<Item = &HostPort> {
        self.pods.iter().flat_map(|pod| &pod.host_ports)
    }

    /// Places a pod.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.score_requested.add(&pod.score_requests);
        self.pods.push(pod);
    }

    /// Removes the pod of this uid, if it is here.
    pub(crate) fn remove(&mut self, uid: &str) {
        if let Some(at) = self.pods.iter().position(|pod| pod.uid == uid) {
            let pod = self.pods.swap_remove(at);
            self.requested.subtract(&pod.requests);
            self.score_requested.subtract(&pod.score_requests);
        }
    }
}
