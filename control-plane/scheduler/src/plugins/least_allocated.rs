//! Prefers nodes with more left: pods spread.

use crate::cluster::Cluster;
use crate::framework::{MAX_SCORE, Plugin, Rate};
use crate::pod_info::PodInfo;

pub(crate) struct LeastAllocated;

/// The free part of a resource after placing, 0..=100.
fn free(used: i64, wanted: i64, all: i64) -> i64 {
    let after = used.saturating_add(wanted);
    if all <= 0 || after > all { 0 } else { (all - after) * MAX_SCORE / all }
}

impl Plugin for LeastAllocated {
    fn name(&self) -> &'static str {
        "NodeResourcesLeastAllocated"
    }

    fn rate<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Rate<'a>> {
        Some(Box::new(|node| {
            let (wanted, used, all) = (&pod.score_requests, &node.score_requested, &node.allocatable);
            let cpu = free(used.milli_cpu, wanted.milli_cpu, all.milli_cpu);
            let memory = free(used.memory, wanted.memory, all.memory);
            i64::midpoint(cpu, memory)
        }))
    }
}
