//! All slices of a service, merged into the endpoints of one port.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use skep_ebpf_abi::{SCTP, TCP, UDP};

use crate::names::BackendName;

/// One endpoint of one port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    pub(crate) backend: BackendName,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) local: bool,
    pub(crate) for_zones: Vec<String>,
    pub(crate) for_nodes: Vec<String>,
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

/// The endpoints of `port` in one family, by address and port, whatever slices they come from. An endpoint that
/// appears twice (slices are written one after another) counts as ready if it is ready anywhere.
pub(crate) fn endpoints_of(
    slices: &[Arc<EndpointSlice>],
    port_name: &str,
    protocol: u8,
    v6: bool,
    node: &str,
) -> Vec<Endpoint> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let mut merged: BTreeMap<BackendName, Endpoint> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == family) {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && protocol_number(port.protocol.as_deref()) == Some(protocol)
        });
        for number in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(address) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok())
                else {
                    continue;
                };
                if address.is_ipv6() != v6 {
                    continue;
                }
                let backend = BackendName { addr: address.into(), port: number, protocol };
                let conditions = endpoint.conditions.as_ref();
                let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
                let hints = endpoint.hints.as_ref();
                let found = Endpoint {
                    backend,
                    ready,
                    serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
                    terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
                    local: endpoint.node_name.as_deref() == Some(node),
                    for_zones: hints
                        .and_then(|hints| hints.for_zones.as_ref())
                        .map(|zones| zones.iter().map(|zone| zone.name.clone()).collect())
                        .unwrap_or_default(),
                    for_nodes: hints
                        .and_then(|hints| hints.for_nodes.as_ref())
                        .map(|nodes| nodes.iter().map(|node| node.name.clone()).collect())
                        .unwrap_or_default(),
                };
                match merged.get(&backend) {
                    Some(known) if known.ready || !found.ready => {}
                    _ => drop(merged.insert(backend, found)),
                }
            }
        }
    }
    merged.into_values().collect()
}
