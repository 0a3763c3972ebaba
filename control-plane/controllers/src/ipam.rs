//! Gives each node its range of pod addresses, one per address family of the cluster.
//!
//! The nodes themselves are the record of what is taken: nothing is kept between two looks but what was
//! given out and does not show in the store yet.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_self};

/// A range of the cluster and the size of a node's part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange {
    /// The range of the cluster.
    pub cluster: IpNet,
    /// Prefix length of a node's part.
    pub node_prefix: u8,
}

/// The controller.
pub(crate) struct Ipam {
    client: Client,
    events: Recorder,
    ranges: Vec<PodRange>,
    nodes: Store<Node>,
    given: Mutex<HashMap<String, Vec<IpNet>>>,
    queue: WorkQueue<Key>,
}

impl Ipam {
    pub(crate) fn new(
        client: &Client,
        events: &Recorder,
        ranges: &[PodRange],
        sources: &mut Sources,
    ) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.nodes, &queue);
        Self {
            client: client.clone(),
            events: events.clone(),
            ranges: ranges.to_vec(),
            nodes: sources.nodes.store(),
            given: Mutex::default(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        // One worker: two would give the same range to two nodes.
        skep_client::reconcile::run("nodeipam", &self.queue, 1, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.get("", &key.name) else {
            self.forget(&key.name);
            return Ok(Next::Wait);
        };
        if self.ranges.is_empty() || !ranges_of(&node).is_empty() {
            self.forget(&key.name);
            return Ok(Next::Wait);
        }
        let Some(cidrs) = self.choose(&key.name) else {
            let message = "no pod address range is left for the node";
            self.events.about(&*node, EventType::Warning, "CIDRNotAvailable", message);
            return Ok(Next::After(std::time::Duration::from_secs(30)));
        };
        let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        // The revision guards against a range given by somebody else meanwhile.
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": texts[0], "podCIDRs": texts},
        }));
        match self.client.all::<Node>().patch(&key.name, &patch, &PatchParams::default()).await {
            Ok(_) => Ok(Next::Wait),
            Err(e) => {
                if !e.is_outcome_unknown() {
                    self.forget(&key.name);
                }
                Err(e)
            }
        }
    }

    fn forget(&self, name: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn choose(&self, name: &str) -> Option<Vec<IpNet>> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = given.get(name) {
            return Some(known.clone());
        }
        let mut used: Vec<IpNet> = self.nodes.list().iter().flat_map(|n| ranges_of(n)).collect();
        used.extend(given.values().flatten());
        let chosen = allocate(&self.ranges, &used)?;
        given.insert(name.to_owned(), chosen.clone());
        Some(chosen)
    }
}

fn ranges_of(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    let mut ranges: Vec<IpNet> = all.filter_map(|text| text.parse().ok()).collect();
    ranges.dedup();
    ranges
}

/// The first free part of each range; `None` when one is full. Pure.
fn allocate(ranges: &[PodRange], used: &[IpNet]) -> Option<Vec<IpNet>> {
    ranges
        .iter()
        .map(|range| {
            let bits = range.node_prefix.checked_sub(range.cluster.prefix_len())?;
            let width = range.cluster.max_prefix_len() - range.node_prefix;
            // Which parts others touch; a foreign range may cover several.
            let mut taken: BTreeSet<u128> = BTreeSet::new();
            for other in used {
                if range.cluster.contains(other) || other.contains(&range.cluster) {
                    let at =
                        |ip: IpAddr| (number(ip) - number(range.cluster.network()).min(number(ip))) >> width;
                    let (first, last) = (at(other.network()), at(other.broadcast()));
                    taken.extend((first..=last).take(1 << 16));
                }
            }
            let free = (0..1_u128 << bits.min(24)).find(|i| !taken.contains(i))?;
            let address = number(range.cluster.network()) + (free << width);
            let address = match range.cluster {
                IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(address).ok()?)),
                IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(address)),
            };
            IpNet::new(address, range.node_prefix).ok()
        })
        .collect()
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(cluster: &str, node_prefix: u8) -> PodRange {
        PodRange { cluster: cluster.parse().expect("range"), node_prefix }
    }

    #[test]
    fn gives_the_first_free_of_each_family() {
        let ranges = [range("10.244.0.0/16", 24), range("fd00::/48", 64)];
        let first = allocate(&ranges, &[]).expect("free");
        assert_eq!(first.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.0.0/24", "fd00::/64"]);
        let second = allocate(&ranges, &first).expect("free");
        assert_eq!(
            second.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.244.1.0/24", "fd00:0:0:1::/64"]
        );
    }

    #[test]
    fn full_is_full() {
        let ranges = [range("10.0.0.0/23", 24)];
        let used: Vec<IpNet> =
            ["10.0.0.0/24", "10.0.1.128/25"].iter().map(|t| t.parse().expect("net")).collect();
        assert_eq!(allocate(&ranges, &used), None);
    }

    proptest! {
        #[test]
        fn never_overlaps(prefix in 16_u8..24, node in 0_u8..5, n in 1_usize..20) {
            let ranges = [range(&format!("10.0.0.0/{prefix}"), (prefix + node).min(30))];
            let mut used: Vec<IpNet> = Vec::new();
            for _ in 0..n {
                let Some(next) = allocate(&ranges, &used) else { break };
                for other in &used {
                    prop_assert!(!other.contains(&next[0]) && !next[0].contains(other));
                }
                prop_assert!(ranges[0].cluster.contains(&next[0]));
                used.extend(next);
            }
        }
    }
}
