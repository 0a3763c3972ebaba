//! From a Service and its slices to the tables that should exist for it. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{FrontendKey, frontend};

use crate::endpoints::endpoints_of;
use crate::names::{BackendName, Scope, ServiceName, SetName};
use crate::objects::{Port, Served, ServiceView, SliceView};
use crate::select::select;

/// What must be known of the own node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeView {
    /// Its zone, from the topology label.
    pub zone: Option<String>,
    /// Where node ports are served; loopback included.
    pub node_port_addresses: Vec<IpAddr>,
    /// Whether what comes from outside falls on backends by its hash, so that every node chooses alike.
    pub by_hash: bool,
}

/// A set that should exist.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DesiredSet {
    /// Who serves.
    pub backends: BTreeSet<BackendName>,
    /// All endpoints of the port, also those that do not serve (any more): their connections may live on.
    pub known: BTreeSet<BackendName>,
    /// How long a client keeps its backend; 0 is no affinity.
    pub affinity_seconds: u32,
    /// When empty, drop instead of refusing.
    pub drop_when_empty: bool,
    /// Packets from outside fall on backends by their hash.
    pub by_hash: bool,
}

/// A frontend that should exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredFrontend {
    /// The set for traffic from outside.
    pub external: SetName,
    /// The set for the node's own traffic.
    pub internal: SetName,
    /// The map's flags.
    pub flags: u32,
}

/// Everything that should exist for one service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceTables {
    /// Its frontends.
    pub frontends: BTreeMap<FrontendKey, DesiredFrontend>,
    /// Its sets.
    pub sets: BTreeMap<SetName, DesiredSet>,
    /// Allowed sources of a set.
    pub ranges: BTreeSet<(SetName, IpNet)>,
    /// What a load balancer in front asks for.
    pub health: Option<HealthCheck>,
}

/// A service's health check: balancers in front send only to nodes that have endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// The port on the node.
    pub port: u16,
    /// How many endpoints of this node are ready.
    pub local_endpoints: usize,
}

/// The tables of a service; empty for one that is not ours or has no address.
pub fn service_tables(service: &ServiceView, slices: &[Arc<SliceView>], node: &NodeView) -> ServiceTables {
    let mut tables = ServiceTables::default();
    let Some(served) = service.served.as_deref() else { return tables };
    tables.health = served.health_port.map(|port| HealthCheck { port, local_endpoints: ready_here(slices) });
    let frontends = frontends(served, node);
    for port in &served.ports {
        for v6 in [false, true] {
            let of_family: Vec<&Frontend> =
                frontends.iter().filter(|frontend| frontend.address.is_ipv6() == v6).collect();
            if !of_family.is_empty() {
                PortTables { served, slices, node, name: &service.name, port, v6 }
                    .fill(&of_family, &mut tables);
            }
        }
    }
    tables
}

/// How many endpoints of this node are ready: those that end must fail a health check while they still serve, so that
/// balancers turn away in time.
fn ready_here(slices: &[Arc<SliceView>]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.local && endpoint.ready);
    ready.map(|endpoint| endpoint.addr).collect::<BTreeSet<Addr>>().len()
}

/// An address a service is dialled at.
struct Frontend {
    address: IpAddr,
    kind: u32,
}

fn frontends(served: &Served, node: &NodeView) -> Vec<Frontend> {
    let own = served.addresses.iter().map(|(address, kind)| Frontend { address: *address, kind: *kind });
    let of_node = node
        .node_port_addresses
        .iter()
        .filter(|address| served.families[usize::from(address.is_ipv6())])
        .map(|address| Frontend { address: *address, kind: frontend::NODE_PORT });
    own.chain(of_node).collect()
}

struct PortTables<'a> {
    served: &'a Served,
    slices: &'a [Arc<SliceView>],
    node: &'a NodeView,
    name: &'a ServiceName,
    port: &'a Port,
    v6: bool,
}

impl PortTables<'_> {
    fn fill(&self, frontends: &[&Frontend], tables: &mut ServiceTables) {
        let (internal_scope, external_scope) = (self.served.internal, self.served.external);
        for frontend in frontends {
            let is_node_port = frontend.kind == frontend::NODE_PORT;
            let number = if is_node_port { self.port.node_port } else { self.port.number };
            if number == 0 {
                continue;
            }
            let key = FrontendKey::new(Addr::from(frontend.address), number.to_be(), self.port.protocol);
            let mut flags = frontend.kind;
            let (external, internal) = if frontend.kind == frontend::CLUSTER_IP {
                (internal_scope, internal_scope)
            } else {
                // The node's own traffic to an outside address is treated as if it had gone out and come back.
                (external_scope, Scope::Cluster)
            };
            if frontend.kind != frontend::CLUSTER_IP && external == Scope::Local {
                flags |= frontend::EXTERNAL_LOCAL;
            }
            // What keeps to the node's own endpoints has nothing to agree on with other nodes.
            let by_hash =
                self.node.by_hash && frontend.kind != frontend::CLUSTER_IP && external == Scope::Cluster;
            let external = self.set(external, tables);
            let internal = self.set(internal, tables);
            if by_hash && let Some(set) = tables.sets.get_mut(&external) {
                set.by_hash = true;
            }
            if frontend.kind == frontend::LOAD_BALANCER && self.add_ranges(&external, tables) {
                flags |= frontend::SOURCE_RANGES;
            }
            tables.frontends.insert(key, DesiredFrontend { external, internal, flags });
        }
    }

    /// Makes the set unless another frontend has; its name.
    fn set(&self, scope: Scope, tables: &mut ServiceTables) -> SetName {
        let name = SetName {
            service: self.name.clone(),
            port: self.port.name.to_string(),
            protocol: self.port.protocol,
            v6: self.v6,
            scope,
        };
        if tables.sets.contains_key(&name) {
            return name;
        }
        let endpoints = endpoints_of(self.slices, &name.port, name.protocol, self.v6);
        let selected = select(&endpoints, scope, self.node.zone.as_deref());
        let set = DesiredSet {
            backends: selected.backends,
            known: endpoints.iter().map(|endpoint| endpoint.backend).collect(),
            affinity_seconds: self.served.affinity_seconds,
            drop_when_empty: selected.only_elsewhere,
            by_hash: false,
        };
        tables.sets.insert(name.clone(), set);
        name
    }

    /// Adds the ranges of this family; whether there are any of either.
    fn add_ranges(&self, set: &SetName, tables: &mut ServiceTables) -> bool {
        let Some(ranges) = &self.served.ranges else { return false };
        for range in ranges.iter().filter(|range| matches!(range, IpNet::V6(_)) == self.v6) {
            tables.ranges.insert((set.clone(), *range));
        }
        true
    }
}
