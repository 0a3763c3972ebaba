//! A pod that names its node goes nowhere else.

use crate::cluster::Cluster;
use crate::framework::{Check, Plugin};
use crate::pod_info::PodInfo;

pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn check<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        let wanted = pod.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())?;
        Some(Box::new(move |node| {
            if node.name == wanted {
                Vec::new()
            } else {
                vec!["node(s) didn't match the requested node name".into()]
            }
        }))
    }
}
