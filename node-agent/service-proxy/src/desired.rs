//! From a Service and its slices to the tables that should exist for it. Pure.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{FrontendKey, frontend};

use crate::endpoints::{endpoints_of, protocol_number};
use crate::names::{BackendName, Scope, ServiceName, SetName};
use crate::select::select;

/// The label by which a service asks for another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// How long affinity lasts unless the service says otherwise.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// What must be known of the own node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// Its zone, from the topology label.
    pub zone: Option<String>,
    /// Where node ports are served; loopback included.
    pub node_port_addresses: Vec<IpAddr>,
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
pub fn service_tables(service: &Service, slices: &[Arc<EndpointSlice>], node: &NodeView) -> ServiceTables {
    let mut tables = ServiceTables::default();
    let Some(spec) = &service.spec else { return tables };
    let other_proxy = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
    let headless = spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None");
    if other_proxy || headless || spec.type_.as_deref() == Some("ExternalName") {
        return tables;
    }
    let name = ServiceName {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
    };
    tables.health = health_check(spec, slices, &node.name);
    let frontends = addresses(service, spec, node);
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = protocol_number(port.protocol.as_deref()) else { continue };
        for v6 in [false, true] {
            let of_family: Vec<&Frontend> =
                frontends.iter().filter(|frontend| frontend.address.is_ipv6() == v6).collect();
            if !of_family.is_empty() {
                PortTables { spec, slices, node, name: &name, port, protocol, v6 }
                    .fill(&of_family, &mut tables);
            }
        }
    }
    tables
}

fn health_check(spec: &ServiceSpec, slices: &[Arc<EndpointSlice>], node: &str) -> Option<HealthCheck> {
    let port =
        spec.health_check_node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    if spec.type_.as_deref() != Some("LoadBalancer")
        || spec.external_traffic_policy.as_deref() != Some("Local")
    {
        return None;
    }
    // Endpoints that end must fail the check while they still serve, so that balancers turn away in time.
    let ready: BTreeSet<&String> = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| endpoint.node_name.as_deref() == Some(node))
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
        })
        .filter_map(|endpoint| endpoint.addresses.first())
        .collect();
    Some(HealthCheck { port, local_endpoints: ready.len() })
}

/// An address a service is dialled at.
struct Frontend {
    address: IpAddr,
    kind: u32,
}

fn addresses(service: &Service, spec: &ServiceSpec, node: &NodeView) -> Vec<Frontend> {
    let mut frontends = Vec::new();
    let mut add = |text: &str, kind| {
        if let Ok(address) = text.parse() {
            frontends.push(Frontend { address, kind });
        }
    };
    match spec.cluster_ips.as_deref() {
        Some(ips) if !ips.is_empty() => ips.iter().for_each(|ip| add(ip, frontend::CLUSTER_IP)),
        _ => add(spec.cluster_ip.as_deref().unwrap_or_default(), frontend::CLUSTER_IP),
    }
    for ip in spec.external_ips.iter().flatten() {
        add(ip, frontend::EXTERNAL_IP);
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for ingress in status.and_then(|status| status.ingress.as_ref()).into_iter().flatten() {
            // With the mode "Proxy" the balancer must see the traffic itself.
            if ingress.ip_mode.as_deref() != Some("Proxy") {
                add(ingress.ip.as_deref().unwrap_or_default(), frontend::LOAD_BALANCER);
            }
        }
    }
    // A service whose family is single gets node ports of that family only.
    let families: BTreeSet<bool> = match spec.ip_families.as_deref() {
        Some(families) if !families.is_empty() => families.iter().map(|family| family == "IPv6").collect(),
        _ => frontends.iter().map(|frontend| frontend.address.is_ipv6()).collect(),
    };
    for address in node.node_port_addresses.iter().filter(|address| families.contains(&address.is_ipv6())) {
        frontends.push(Frontend { address: *address, kind: frontend::NODE_PORT });
    }
    frontends
}

struct PortTables<'a> {
    spec: &'a ServiceSpec,
    slices: &'a [Arc<EndpointSlice>],
    node: &'a NodeView,
    name: &'a ServiceName,
    port: &'a ServicePort,
    protocol: u8,
    v6: bool,
}

impl PortTables<'_> {
    fn fill(&self, frontends: &[&Frontend], tables: &mut ServiceTables) {
        let internal_scope = scope(self.spec.internal_traffic_policy.as_deref());
        let external_scope = scope(self.spec.external_traffic_policy.as_deref());
        for frontend in frontends {
            let number =
                if frontend.kind == frontend::NODE_PORT { self.port.node_port } else { Some(self.port.port) };
            let Some(number) =
                number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
            else {
                continue;
            };
            let key = FrontendKey::new(Addr::from(frontend.address), number.to_be(), self.protocol);
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
            let external = self.set(external, tables);
            let internal = self.set(internal, tables);
            if frontend.kind == frontend::LOAD_BALANCER && self.add_ranges(&external, tables) {
                flags |= frontend::SOURCE_RANGES;
            }
            tables.frontends.insert(key, DesiredFrontend { external, internal, flags });
        }
    }

    /// Makes the set unless another frontend has; its name.
    fn set(&self, scope: Scope, tables: &mut ServiceTables) -> SetName {
        let port = self.port.name.clone().unwrap_or_default();
        let name = SetName { service: self.name.clone(), port, protocol: self.protocol, v6: self.v6, scope };
        if tables.sets.contains_key(&name) {
            return name;
        }
        let endpoints = endpoints_of(self.slices, &name.port, self.protocol, self.v6, &self.node.name);
        let selected = select(&endpoints, scope, &self.node.name, self.node.zone.as_deref());
        let set = DesiredSet {
            backends: selected.backends,
            known: endpoints.iter().map(|endpoint| endpoint.backend).collect(),
            affinity_seconds: affinity_seconds(self.spec),
            drop_when_empty: selected.only_elsewhere,
        };
        tables.sets.insert(name.clone(), set);
        name
    }

    /// Whether there are ranges; one that cannot be read allows nobody, as leaving it out would allow everybody.
    fn add_ranges(&self, set: &SetName, tables: &mut ServiceTables) -> bool {
        let ranges = self.spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
        for range in ranges.iter().filter_map(|range| range.trim().parse::<IpNet>().ok()) {
            if matches!(range, IpNet::V6(_)) == self.v6 {
                tables.ranges.insert((set.clone(), range.trunc()));
            }
        }
        !ranges.is_empty()
    }
}

fn scope(policy: Option<&str>) -> Scope {
    if policy == Some("Local") { Scope::Local } else { Scope::Cluster }
}

fn affinity_seconds(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds);
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(DEFAULT_AFFINITY_SECONDS)
}
