//! From the API's objects to the model. The API server has validated them; what still cannot be read is told and
//! allows nothing.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_api::selector::{LabelSelector, SelectorError};

use crate::brief::PodBrief;
use crate::model::{Identity, Labels, NamedPort, ObjectName, Peer, PodInfo, Policy, Port, Ports, Rule};

/// Why a policy cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A selector.
    #[error("{0}")]
    Selector(String),
    /// A block of addresses.
    #[error("ipBlock {0:?} is no network")]
    Block(String),
    /// A port or protocol.
    #[error("port {0} cannot be")]
    Port(String),
}

impl From<SelectorError> for ReadError {
    fn from(error: SelectorError) -> Self {
        Self::Selector(error.to_string())
    }
}

/// Reads a policy.
///
/// # Errors
/// Names the first thing that cannot be read.
pub fn policy(object: &NetworkPolicy) -> Result<Policy, ReadError> {
    let spec = object.spec.clone().unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    // The server fills the types in; without them they are as documented.
    let has = |name: &str, otherwise: bool| {
        if types.is_empty() { otherwise } else { types.iter().any(|kind| kind == name) }
    };
    let ingress = spec.ingress.unwrap_or_default();
    let egress = spec.egress.unwrap_or_default();
    let has_egress = has("Egress", !egress.is_empty());
    let read = |peers: Option<Vec<NetworkPolicyPeer>>, ports: Option<Vec<NetworkPolicyPort>>| {
        Ok::<_, ReadError>(Rule {
            peers: peers.iter().flatten().map(peer).collect::<Result<_, _>>()?,
            ports: ports.iter().flatten().map(port).collect::<Result<_, _>>()?,
        })
    };
    let ingress = ingress.into_iter().map(|rule| read(rule.from, rule.ports)).collect::<Result<_, _>>()?;
    let egress = egress.into_iter().map(|rule| read(rule.to, rule.ports)).collect::<Result<_, _>>()?;
    Ok(Policy {
        name: ObjectName {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        },
        // An absent selector selects everything here.
        selects: match &spec.pod_selector {
            Some(selector) => LabelSelector::from_typed(Some(selector))?,
            None => LabelSelector::everything(),
        },
        ingress: has("Ingress", true).then_some(ingress),
        egress: has_egress.then_some(egress),
    })
}

/// What stands for a policy that cannot be read: it selects what it selects if that can be read (else all pods of
/// its namespace) and allows nothing.
pub fn closed(object: &NetworkPolicy) -> Policy {
    let spec = object.spec.clone().unwrap_or_default();
    let selector = spec.pod_selector.as_ref().map(|selector| LabelSelector::from_typed(Some(selector)));
    let types = spec.policy_types.unwrap_or_default();
    let has =
        |name: &str, otherwise| if types.is_empty() { otherwise } else { types.iter().any(|t| t == name) };
    Policy {
        name: ObjectName {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        },
        selects: selector.and_then(Result::ok).unwrap_or_else(LabelSelector::everything),
        ingress: has("Ingress", true).then(Vec::new),
        egress: has("Egress", spec.egress.is_some()).then(Vec::new),
    }
}

fn peer(peer: &NetworkPolicyPeer) -> Result<Peer, ReadError> {
    if let Some(block) = &peer.ip_block {
        let net = |text: &String| text.parse().map_err(|_| ReadError::Block(text.clone()));
        let except = block.except.iter().flatten().map(net).collect::<Result<_, _>>()?;
        return Ok(Peer::Block { net: net(&block.cidr)?, except });
    }
    let namespaces = match &peer.namespace_selector {
        Some(selector) => Some(LabelSelector::from_typed(Some(selector))?),
        None => None,
    };
    let pods = match &peer.pod_selector {
        Some(selector) => LabelSelector::from_typed(Some(selector))?,
        // With a selector of namespaces: all their pods. Without either the server refuses it.
        None if namespaces.is_some() => LabelSelector::everything(),
        None => LabelSelector::nothing(),
    };
    Ok(Peer::Pods { namespaces, pods })
}

fn port(port: &NetworkPolicyPort) -> Result<Port, ReadError> {
    let name = port.protocol.as_deref().unwrap_or("TCP");
    let protocol = protocol(name).ok_or_else(|| ReadError::Port(format!("of protocol {name:?}")))?;
    let number = |value: i32| u16::try_from(value).map_err(|_| ReadError::Port(value.to_string()));
    let ports = match (&port.port, port.end_port) {
        (None, _) => Ports::All,
        (Some(IntOrString::String(name)), _) => Ports::Named(name.clone()),
        (Some(IntOrString::Int(first)), None) => Ports::Range(number(*first)?, number(*first)?),
        (Some(IntOrString::Int(first)), Some(last)) => Ports::Range(number(*first)?, number(last)?),
    };
    Ok(Port { protocol, ports })
}

/// The number of a transport protocol.
pub fn protocol(name: &str) -> Option<u8> {
    match name {
        "TCP" => Some(skep_ebpf_abi::TCP),
        "UDP" => Some(skep_ebpf_abi::UDP),
        "SCTP" => Some(skep_ebpf_abi::SCTP),
        _ => None,
    }
}

/// The labels of a namespace.
pub fn namespace(object: &Namespace) -> (String, Labels) {
    (object.metadata.name.clone().unwrap_or_default(), object.metadata.labels.clone().unwrap_or_default())
}

/// A pod, unless it is in its node's network or over.
pub fn pod(object: &PodBrief) -> Option<PodInfo> {
    let is_over = matches!(object.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if object.spec.host_network || is_over {
        return None;
    }
    let listed = object.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    let texts: Vec<&str> = match listed.len() {
        0 => object.status.pod_ip.as_deref().into_iter().collect(),
        _ => listed.collect(),
    };
    let ips: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    Some(PodInfo { identity: brief_identity(object), ips })
}

/// What policies can tell a pod apart by.
pub fn identity(object: &Pod) -> Identity {
    let containers = object.spec.iter().flat_map(|spec| &spec.containers);
    // Sidecars are init containers that go on.
    let sidecars = object.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = containers.chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let named =
        |port: &ContainerPort| named_port(port.name.as_ref(), port.protocol.as_deref(), port.container_port);
    Identity {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        ports: ports.filter_map(named).collect(),
    }
}

fn brief_identity(object: &PodBrief) -> Identity {
    let sidecars =
        object.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = object.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    Identity {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        ports: ports
            .filter_map(|port| named_port(port.name.as_ref(), port.protocol.as_deref(), port.container_port))
            .collect(),
    }
}

fn named_port(name: Option<&String>, kind: Option<&str>, port: i32) -> Option<NamedPort> {
    let protocol = protocol(kind.unwrap_or("TCP"))?;
    Some(NamedPort { name: name?.clone(), protocol, port: u16::try_from(port).ok()? })
}

#[cfg(test)]
mod tests;
