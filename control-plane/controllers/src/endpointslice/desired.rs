//! Which endpoints a Service should have. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_client::Store;

use super::slices::Group;
use crate::pods;
use crate::work::Key;

const ZONE: &str = "topology.kubernetes.io/zone";

/// An address family of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) fn has(self, ip: &str) -> bool {
        match ip.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => self == Self::V4,
            Ok(IpAddr::V6(_)) => self == Self::V6,
            Err(_) => false,
        }
    }

    /// The families of a Service, the first one primary.
    pub(crate) fn of(service: &Service) -> Vec<Self> {
        let names = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
        let families: Vec<Self> = names
            .into_iter()
            .flatten()
            .map(|name| if name == "IPv6" { Self::V6 } else { Self::V4 })
            .collect();
        if families.is_empty() { vec![Self::V4] } else { families }
    }
}

/// Whether endpoints of the Service come from pods.
pub(super) fn has_endpoints(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName")
        && spec.selector.as_ref().is_some_and(|s| !s.is_empty())
        && service.metadata.deletion_timestamp.is_none()
}

/// Whether the selector of a Service has a pod in it.
pub(crate) fn serves(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { return false };
    let labels = pod.metadata.labels.as_ref();
    !selector.is_empty() && selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
}

/// The Services that select a pod.
pub(super) fn services_of(pod: &Pod, services: &Store<Service>) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let all = services.list_namespace(namespace);
    all.iter().filter(|s| serves(s, pod)).map(|s| Key::of(&s.metadata)).collect()
}

/// Whether a change of a pod means nothing to its Services.
pub(super) fn same_for_services(old: &Pod, new: &Pod) -> bool {
    let ips = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ips.clone());
    old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp.is_some() == new.metadata.deletion_timestamp.is_some()
        && pods::phase(old) == pods::phase(new)
        && pods::is_ready(old) == pods::is_ready(new)
        && pods::node_name(old) == pods::node_name(new)
        && ips(old) == ips(new)
}

/// The zone of a node.
pub(super) fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str)
}

/// All endpoints of a Service, grouped by family and ports (which differ between pods when a target
/// port is given by name).
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for family in Family::of(service) {
        let mut by_ports: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods.iter().filter(|p| serves(service, p) && !pods::is_finished(p)) {
            let Some(endpoint) = endpoint(service, pod, family, &node) else { continue };
            let ports = ports(service, pod);
            // The text orders the groups and tells them apart.
            let id = format!("{ports:?}");
            let group = by_ports.entry(id).or_insert_with(|| Group { family, ports, endpoints: Vec::new() });
            group.endpoints.push(endpoint);
        }
        if by_ports.is_empty() {
            // An empty slice says that the Service is known and has nobody behind it.
            groups.push(Group { family, ports: Vec::new(), endpoints: Vec::new() });
        }
        groups.extend(by_ports.into_values());
    }
    let spec = service.spec.as_ref();
    if let Some(wish) = spec.and_then(|s| s.traffic_distribution.as_deref()) {
        add_hints(&mut groups, wish);
    }
    groups
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    family: Family,
    node: &impl Fn(&str) -> Option<Arc<Node>>,
) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let address = all.chain(status.pod_ip.as_deref()).find(|ip| family.has(ip))?.to_owned();
    let spec = service.spec.as_ref()?;
    let unready_too = spec.publish_not_ready_addresses.unwrap_or(false);
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node_name = pods::node_name(pod);
    let host = pod.spec.as_ref().and_then(|s| s.hostname.clone());
    let subdomain = pod.spec.as_ref().and_then(|s| s.subdomain.as_deref());
    let named = subdomain.is_some() && subdomain == service.metadata.name.as_deref();
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(unready_too || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: host.filter(|h| named && !h.is_empty()),
        node_name: node_name.map(str::to_owned),
        zone: node_name.and_then(node).and_then(|n| zone(&n).map(str::to_owned)),
        target_ref: Some(pods::reference(pod)),
        ..Endpoint::default()
    })
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// The port of a pod that a port of a Service leads to; `None` when it has no port of that name.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let same = ports.find(|p| {
                p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            same.map(|p| p.container_port)
        }
    }
}

/// Tells proxies which endpoints to prefer. Only when every ready endpoint has what is preferred by:
/// otherwise some clients would find nobody.
fn add_hints(groups: &mut [Group], wish: &str) {
    let by_node = wish == "PreferSameNode";
    if !by_node && wish != "PreferClose" && wish != "PreferSameZone" {
        return;
    }
    let mut missing: HashMap<Family, bool> = HashMap::new();
    for group in groups.iter() {
        let without = group.endpoints.iter().any(|e| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            ready && if by_node { e.node_name.is_none() } else { e.zone.is_none() }
        });
        *missing.entry(group.family).or_default() |= without;
    }
    for group in groups {
        if missing.get(&group.family).copied().unwrap_or(false) {
            continue;
        }
        for endpoint in &mut group.endpoints {
            let zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
            let nodes = endpoint.node_name.clone().filter(|_| by_node).map(|name| vec![ForNode { name }]);
            if zones.is_some() || nodes.is_some() {
                endpoint.hints = Some(EndpointHints { for_zones: zones, for_nodes: nodes });
            }
        }
    }
}
