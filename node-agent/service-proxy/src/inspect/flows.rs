//! Connections, address translation, affinity and drops.

use std::net::Ipv4Addr;
use std::path::Path;

use serde::Serialize;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::flow::kind;
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::tables::{protocol_name, socket_address};

use super::{Format, print};
use crate::error::Result;

#[derive(Serialize)]
struct FlowRow {
    protocol: &'static str,
    client: String,
    service: String,
    source: String,
    backend: String,
    state: u8,
    masqueraded: bool,
}

/// The flows of translated packets.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn flows(pin_dir: &Path, format: Format) -> Result<String> {
    let address = |addr: Addr, port_be| socket_address(addr, port_be).to_string();
    let rows: Vec<FlowRow> = Inspector::new(pin_dir)
        .flows()?
        .into_iter()
        .map(|(key, flow)| FlowRow {
            protocol: protocol_name(key.protocol),
            client: address(flow.outer.src, flow.outer.src_port_be),
            service: address(flow.outer.dst, flow.outer.dst_port_be),
            source: address(flow.inner.src, flow.inner.src_port_be),
            backend: address(flow.inner.dst, flow.inner.dst_port_be),
            state: flow.state,
            masqueraded: flow.kind & kind::SOURCE != 0,
        })
        .collect();
    print(&rows, format, &["PROTOCOL", "CLIENT", "SERVICE", "SOURCE", "BACKEND", "STATE"], |row| {
        vec![
            row.protocol.to_owned(),
            row.client.clone(),
            row.service.clone(),
            row.source.clone(),
            row.backend.clone(),
            format!("{:#04x}", row.state),
        ]
    })
}

#[derive(Serialize)]
struct NatRow {
    protocol: &'static str,
    pod: String,
    destination: String,
    appears_as: String,
    kind: &'static str,
}

/// The flows whose source was replaced: of pods that speak to the world, and of clients of endpoints elsewhere.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn nat(pin_dir: &Path, format: Format) -> Result<String> {
    let address = |addr: Addr, port_be| socket_address(addr, port_be).to_string();
    let flows = Inspector::new(pin_dir).flows()?;
    let rows: Vec<NatRow> = flows
        .into_iter()
        .filter(|(_, flow)| {
            flow.outer.src != flow.inner.src || flow.outer.src_port_be != flow.inner.src_port_be
        })
        .map(|(key, flow)| NatRow {
            protocol: protocol_name(key.protocol),
            pod: address(flow.outer.src, flow.outer.src_port_be),
            destination: address(flow.outer.dst, flow.outer.dst_port_be),
            appears_as: address(flow.inner.src, flow.inner.src_port_be),
            kind: if flow.kind & kind::DESTINATION == 0 { "masquerade" } else { "service" },
        })
        .collect();
    print(&rows, format, &["PROTOCOL", "SOURCE", "DESTINATION", "APPEARS AS", "KIND"], |row| {
        vec![
            row.protocol.to_owned(),
            row.pod.clone(),
            row.destination.clone(),
            row.appears_as.clone(),
            row.kind.to_owned(),
        ]
    })
}

#[derive(Serialize)]
struct AffinityRow {
    client: String,
    services: Vec<String>,
    backend: String,
    valid: bool,
}

/// Which clients stick to which backends.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn affinity(pin_dir: &Path, format: Format) -> Result<String> {
    let inspector = Inspector::new(pin_dir);
    let tables = inspector.tables()?;
    let rows: Vec<AffinityRow> = inspector
        .affinity()?
        .into_iter()
        .map(|(key, value)| {
            let uses = tables
                .frontends
                .iter()
                .filter(|(_, f)| f.external_set == key.set || f.internal_set == key.set);
            let backend = tables.backends.get(&value.backend);
            let matching = skep_ebpf_abi::service::AffinityMatch { set: key.set, backend: value.backend };
            AffinityRow {
                client: if key.by_namespace == 0 {
                    key.client.to_string()
                } else {
                    format!(
                        "netns {}",
                        u64::from(key.client.words_be[0]) | u64::from(key.client.words_be[1]) << 32
                    )
                },
                services: uses.map(|(key, _)| socket_address(key.addr, key.port_be).to_string()).collect(),
                backend: backend.map_or_else(
                    || socket_address(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED).into(), 0).to_string(),
                    |backend| socket_address(backend.addr, backend.port_be).to_string(),
                ),
                valid: tables.affinity.contains(&matching),
            }
        })
        .collect();
    print(&rows, format, &["CLIENT", "SERVICES", "BACKEND", "VALID"], |row| {
        vec![
            row.client.clone(),
            row.services.join(","),
            row.backend.clone(),
            if row.valid { "yes" } else { "no" }.to_owned(),
        ]
    })
}

#[derive(Serialize)]
struct DropRow {
    reason: &'static str,
    packets: u64,
}

/// Why packets and connects were dropped or refused, and how many.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn drops(pin_dir: &Path, format: Format) -> Result<String> {
    let told = |name: &str| {
        name.starts_with("drop_") || matches!(name, "rejected" | "socket_no_backend" | "socket_inconsistent")
    };
    let counters = Inspector::new(pin_dir).counters()?.into_iter().filter(|(name, _)| told(name));
    let rows: Vec<DropRow> = counters.map(|(reason, packets)| DropRow { reason, packets }).collect();
    print(&rows, format, &["REASON", "PACKETS"], |row| vec![row.reason.to_owned(), row.packets.to_string()])
}
