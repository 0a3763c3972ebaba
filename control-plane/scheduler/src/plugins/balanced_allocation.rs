//! Prefers nodes where CPU and memory are used to the same degree: neither is left stranded.

use crate::cluster::Cluster;
use crate::framework::{MAX_SCORE, Plugin, Rate};
use crate::pod_info::PodInfo;

pub(crate) struct BalancedAllocation;

/// The used part of a resource after placing, in thousandths.
fn used_part(used: i64, wanted: i64, all: i64) -> i64 {
    if all <= 0 { 1000 } else { (used.saturating_add(wanted).saturating_mul(1000) / all).min(1000) }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn rate<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Rate<'a>> {
        Some(Box::new(|node| {
            let (wanted, used, all) = (&pod.requests, &node.requested, &node.allocatable);
            let cpu = used_part(used.milli_cpu, wanted.milli_cpu, all.milli_cpu);
            let memory = used_part(used.memory, wanted.memory, all.memory);
            // Of two values the standard deviation is half their distance.
            MAX_SCORE - (cpu - memory).abs() / 2 * MAX_SCORE / 1000
        }))
    }
}
