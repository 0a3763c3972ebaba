//! A host port is taken by one pod a node.

use crate::cluster::Cluster;
use crate::framework::{Check, Plugin};
use crate::pod_info::PodInfo;

pub(crate) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn check<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Check<'a>> {
        if pod.host_ports.is_empty() {
            return None;
        }
        Some(Box::new(|node| {
            let taken =
                node.host_ports().any(|taken| pod.host_ports.iter().any(|wanted| wanted.conflicts(taken)));
            if taken {
                vec!["node(s) didn't have free ports for the requested pod ports".into()]
            } else {
                Vec::new()
            }
        }))
    }
}
