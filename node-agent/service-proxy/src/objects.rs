//! What the proxy keeps of the objects it follows: read once, when they come, and no more than it needs. There may be a
//! hundred thousand of them.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use skep_client::{Identity, Kept};
use skep_ebpf_abi::service::frontend;
use skep_ebpf_abi::{Addr, SCTP, TCP, UDP};

use crate::names::{Scope, ServiceName};

/// The label by which a service asks for another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// The label that names a slice's service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// When the endpoints changed that the slice tells of.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// How long affinity lasts unless the service says otherwise.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// Its UID.
    pub uid: Box<str>,
    revision: Option<u64>,
    /// What is served; none for a service that is not ours or has no address.
    pub(crate) served: Option<Box<Served>>,
}

/// What a service has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Served {
    /// Addresses with their kinds; node ports are not among them.
    pub(crate) addresses: Box<[(IpAddr, u32)]>,
    /// Whether it has node ports in IPv4 and in IPv6.
    pub(crate) families: [bool; 2],
    pub(crate) ports: Box<[Port]>,
    pub(crate) internal: Scope,
    pub(crate) external: Scope,
    /// How long a client keeps its backend; 0 is no affinity.
    pub(crate) affinity_seconds: u32,
    /// Who may come to a load balancer's address, if not everybody.
    pub(crate) ranges: Option<Box<[IpNet]>>,
    /// The port of its health check.
    pub(crate) health_port: Option<u16>,
}

/// One port of a service, or of a slice's endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Port {
    pub(crate) name: Box<str>,
    pub(crate) protocol: u8,
    /// 0 is none.
    pub(crate) number: u16,
    pub(crate) node_port: u16,
}

/// An EndpointSlice, seen from one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceView {
    namespace: Box<str>,
    name: Box<str>,
    uid: u64,
    revision: Option<u64>,
    service: Option<Box<str>>,
    /// When its endpoints changed.
    pub(crate) trigger: Option<jiff::Timestamp>,
    pub(crate) v6: bool,
    pub(crate) ports: Box<[Port]>,
    pub(crate) endpoints: Box<[EndpointView]>,
}

/// One endpoint of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EndpointView {
    pub(crate) addr: Addr,
    /// The zones it is hinted at.
    pub(crate) zones: Option<Box<[Box<str>]>>,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// It is on this node.
    pub(crate) local: bool,
    /// It is hinted at nodes, and at this one.
    pub(crate) node_hint: Option<bool>,
}

/// The number of a protocol's name; the default is TCP.
pub(crate) fn protocol_number(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("TCP") => Some(TCP),
        Some("UDP") => Some(UDP),
        Some("SCTP") => Some(SCTP),
        Some(_) => None,
    }
}

fn port_number(number: Option<i32>) -> u16 {
    number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

impl Kept for ServiceView {
    fn identity(&self) -> Identity<'_> {
        let Self { name, uid, revision, .. } = self;
        Identity {
            namespace: &name.namespace,
            name: &name.name,
            uid: Identity::digest(uid),
            revision: *revision,
        }
    }
}

impl ServiceView {
    /// Reads a Service.
    pub fn of(service: &Service) -> Self {
        let identity = Identity::of(&service.metadata);
        let labels = service.metadata.labels.as_ref();
        let is_others = labels.is_some_and(|labels| labels.contains_key(OTHER_PROXY));
        Self {
            name: ServiceName { namespace: identity.namespace.to_owned(), name: identity.name.to_owned() },
            uid: service.metadata.uid.as_deref().unwrap_or_default().into(),
            revision: identity.revision,
            served: service.spec.as_ref().filter(|_| !is_others).and_then(|spec| served(service, spec)),
        }
    }
}

fn served(service: &Service, spec: &ServiceSpec) -> Option<Box<Served>> {
    let headless = spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None");
    if headless || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let addresses = addresses(service, spec);
    // A service whose family is single gets node ports of that family only.
    let has_family = |v6: bool| match spec.ip_families.as_deref() {
        Some(families) if !families.is_empty() => {
            families.iter().any(|family| family == if v6 { "IPv6" } else { "IPv4" })
        }
        _ => addresses.iter().any(|(address, _)| address.is_ipv6() == v6),
    };
    Some(Box::new(Served {
        families: [has_family(false), has_family(true)],
        addresses: addresses.into(),
        ports: spec.ports.iter().flatten().filter_map(service_port).collect(),
        internal: scope(spec.internal_traffic_policy.as_deref()),
        external: scope(spec.external_traffic_policy.as_deref()),
        affinity_seconds: affinity_seconds(spec),
        ranges: ranges(spec),
        health_port: health_port(spec),
    }))
}

fn service_port(port: &ServicePort) -> Option<Port> {
    Some(Port {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: protocol_number(port.protocol.as_deref())?,
        number: port_number(Some(port.port)),
        node_port: port_number(port.node_port),
    })
}

fn addresses(service: &Service, spec: &ServiceSpec) -> Vec<(IpAddr, u32)> {
    let mut addresses = Vec::new();
    let mut add = |text: &str, kind| {
        if let Ok(address) = text.parse() {
            addresses.push((address, kind));
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
    addresses
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

/// One that cannot be read allows nobody, as leaving the list out would allow everybody.
fn ranges(spec: &ServiceSpec) -> Option<Box<[IpNet]>> {
    let ranges = spec.load_balancer_source_ranges.as_deref().filter(|ranges| !ranges.is_empty())?;
    Some(ranges.iter().filter_map(|range| Some(range.trim().parse::<IpNet>().ok()?.trunc())).collect())
}

fn health_port(spec: &ServiceSpec) -> Option<u16> {
    let is_asked = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    Some(port_number(spec.health_check_node_port)).filter(|port| is_asked && *port > 0)
}

impl Kept for SliceView {
    fn identity(&self) -> Identity<'_> {
        let Self { namespace, name, uid, revision, .. } = self;
        Identity { namespace, name, uid: *uid, revision: *revision }
    }
}

impl SliceView {
    /// Reads a slice as the node `node` sees it.
    pub fn of(slice: &EndpointSlice, node: &str) -> Self {
        let identity = Identity::of(&slice.metadata);
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL));
        let trigger = slice.metadata.annotations.as_ref().and_then(|annotations| annotations.get(TRIGGER));
        let v6 = slice.address_type == "IPv6";
        let is_known = v6 || slice.address_type == "IPv4";
        let endpoints = slice.endpoints.iter().flatten().filter(|_| is_known);
        Self {
            namespace: identity.namespace.into(),
            name: identity.name.into(),
            uid: identity.uid,
            revision: identity.revision,
            service: label.map(|name| name.as_str().into()),
            trigger: trigger.and_then(|text| text.parse().ok()),
            v6,
            ports: slice
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(Port {
                        name: port.name.as_deref().unwrap_or_default().into(),
                        protocol: protocol_number(port.protocol.as_deref())?,
                        number: u16::try_from(port.port?).ok()?,
                        node_port: 0,
                    })
                })
                .collect(),
            endpoints: endpoints.filter_map(|endpoint| endpoint_view(endpoint, v6, node)).collect(),
        }
    }

    /// The service whose endpoints it has.
    pub(crate) fn service(&self) -> Option<ServiceName> {
        let name = self.service.as_deref()?.to_owned();
        Some(ServiceName { namespace: self.namespace.to_string(), name })
    }
}

fn endpoint_view(endpoint: &Endpoint, v6: bool, node: &str) -> Option<EndpointView> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    if address.is_ipv6() != v6 {
        return None;
    }
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).filter(|zones| !zones.is_empty());
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
    Some(EndpointView {
        addr: address.into(),
        zones: zones.map(|zones| zones.iter().map(|zone| zone.name.as_str().into()).collect()),
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node),
        node_hint: nodes.map(|nodes| nodes.iter().any(|hinted| hinted.name == node)),
    })
}
