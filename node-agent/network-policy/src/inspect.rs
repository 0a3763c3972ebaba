//! What `skep net policy` prints of the maps, also while no agent runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::policy::{RuleKey, peer};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::policy::{BlockEntry, PolicyTables, RuleEntry, direction_name, isolated_names};
use skep_ebpf_loader::tables::protocol_name;

use crate::engine::Names;

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The maps.
    #[error(transparent)]
    Maps(#[from] skep_ebpf_loader::Error),
    /// The file of names.
    #[error("reading the names of policies: {0}")]
    Names(#[from] std::io::Error),
    /// Printing.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// No such pod.
    #[error("no pod of this node is called {0:?}, or no policy selects it")]
    NoPod(String),
}

#[derive(Serialize)]
struct PodRow {
    pod: String,
    address: String,
    isolated: Vec<&'static str>,
    policies: Vec<String>,
    rules: usize,
    denied_packets: u64,
}

fn table(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![titles.iter().map(|&title| title.to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width =
        |column: usize| all.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn pod_name(names: &Names, addr: Addr) -> String {
    let address = addr.to_string();
    names.pods.get(&address).cloned().unwrap_or(address)
}

/// The pods of this node that policies select, and what holds for each.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it or the names cannot be read.
pub fn pods(pin_dir: &Path, names_file: &Path, json: bool) -> Result<String, InspectError> {
    let inspector = Inspector::new(pin_dir);
    let (tables, names) = (inspector.policy()?, Names::read(names_file)?);
    let mut denied: BTreeMap<Addr, u64> = BTreeMap::new();
    for (key, value) in inspector.denied()? {
        *denied.entry(key.pod).or_default() += value.packets;
    }
    let row = |(addr, policed): (&Addr, &skep_ebpf_abi::policy::Policed)| PodRow {
        pod: pod_name(&names, *addr),
        address: addr.to_string(),
        isolated: isolated_names(policed.isolated),
        policies: names.tables.get(&policed.table).map(|table| table.policies.clone()).unwrap_or_default(),
        rules: tables.rules.keys().filter(|rule| rule.key.table == policed.table).count(),
        denied_packets: denied.get(addr).copied().unwrap_or_default(),
    };
    let rows: Vec<PodRow> = tables.policed.iter().map(row).collect();
    if json {
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let cells = |row: &PodRow| {
        vec![
            row.pod.clone(),
            row.address.clone(),
            row.isolated.join(","),
            row.policies.join(","),
            row.rules.to_string(),
            row.denied_packets.to_string(),
        ]
    };
    let titles = ["POD", "ADDRESS", "ISOLATED", "POLICIES", "ENTRIES", "DENIED"];
    Ok(table(&titles, rows.iter().map(cells).collect()))
}

#[derive(Serialize)]
struct RuleRow {
    direction: &'static str,
    peer: String,
    protocol: String,
    ports: String,
    rule: String,
}

/// What is allowed to a pod of this node, entry by entry.
///
/// # Errors
/// When there is no such pod, nothing is pinned in `pin_dir`, or it or the names cannot be read.
pub fn rules(pin_dir: &Path, names_file: &Path, pod: &str, json: bool) -> Result<String, InspectError> {
    let (tables, names) = (Inspector::new(pin_dir).policy()?, Names::read(names_file)?);
    let is_it = |addr: &&Addr| {
        let address = addr.to_string();
        address == pod
            || names.pods.get(&address).is_some_and(|name| name == pod || name.ends_with(&format!("/{pod}")))
    };
    let addr = tables.policed.keys().find(is_it).ok_or_else(|| InspectError::NoPod(pod.to_owned()))?;
    let number = tables.policed[addr].table;
    let row = |(rule, id): (&RuleEntry, &u32)| RuleRow {
        direction: direction_name(rule.key.direction),
        peer: peer_name(&tables, rule),
        protocol: if rule.bits < RuleKey::ANY_PORT {
            "any".into()
        } else {
            protocol_name(rule.key.protocol).into()
        },
        ports: ports(rule),
        rule: names.rules.get(id).map(ToString::to_string).unwrap_or_default(),
    };
    let of_it = tables.rules.iter().filter(|(rule, _)| rule.key.table == number);
    let mut rows: Vec<RuleRow> = of_it.map(row).collect();
    rows.sort_by(|a, b| (a.direction, &a.rule, &a.peer).cmp(&(b.direction, &b.rule, &b.peer)));
    if json {
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let cells = |row: &RuleRow| {
        vec![
            row.direction.to_owned(),
            row.peer.clone(),
            row.protocol.clone(),
            row.ports.clone(),
            row.rule.clone(),
        ]
    };
    Ok(table(&["DIRECTION", "PEER", "PROTOCOL", "PORTS", "RULE"], rows.iter().map(cells).collect()))
}

fn ports(rule: &RuleEntry) -> String {
    let free = RuleKey::WHOLE.saturating_sub(rule.bits.max(RuleKey::ANY_PORT));
    let first = u16::from_be(rule.key.port_be);
    match free {
        0 => first.to_string(),
        16 => "all".to_owned(),
        _ => format!("{first}-{}", u32::from(first) + (1 << free) - 1),
    }
}

fn peer_name(tables: &PolicyTables, rule: &RuleEntry) -> String {
    match rule.key.peer {
        peer::ANYONE => "anyone".to_owned(),
        peer::ANY_POD => "every pod".to_owned(),
        peer::NODE => "nodes".to_owned(),
        class if class & peer::CLASS != 0 => {
            let of_class = |(block, is): &(&BlockEntry, &u32)| {
                block.key.table == rule.key.table
                    && block.key.direction == u32::from(rule.key.direction)
                    && **is == class
            };
            let nets = tables.blocks.iter().filter(of_class).map(|(block, _)| block_name(block));
            nets.collect::<Vec<_>>().join(",")
        }
        identity => {
            let addresses: Vec<String> = tables
                .identities
                .iter()
                .filter(|(_, id)| **id == identity)
                .map(|(a, _)| a.to_string())
                .collect();
            match addresses.as_slice() {
                [] => format!("identity {identity}"),
                few if few.len() <= 4 => few.join(","),
                [first, rest @ ..] => format!("{first} and {} like it", rest.len()),
            }
        }
    }
}

fn block_name(block: &BlockEntry) -> String {
    let bits = block.bits - skep_ebpf_abi::policy::BlockKey::FIXED;
    let length = if block.key.addr.is_v4() { bits - 96 } else { bits };
    format!("{}/{length}", block.key.addr)
}

#[derive(Serialize)]
struct DeniedRow {
    pod: String,
    direction: &'static str,
    peer: String,
    protocol: &'static str,
    port: u16,
    packets: u64,
    policies: Vec<String>,
}

/// What was not let through lately, and by whose policies.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it or the names cannot be read.
pub fn denied(pin_dir: &Path, names_file: &Path, json: bool) -> Result<String, InspectError> {
    let names = Names::read(names_file)?;
    let mut flows = Inspector::new(pin_dir).denied()?;
    flows.sort_by_key(|(_, value)| std::cmp::Reverse(value.seen_ticks));
    let rows: Vec<DeniedRow> = flows
        .into_iter()
        .map(|(key, value)| DeniedRow {
            pod: pod_name(&names, key.pod),
            direction: direction_name(key.direction),
            peer: pod_name(&names, key.peer),
            protocol: protocol_name(key.protocol),
            port: u16::from_be(key.port_be),
            packets: value.packets,
            policies: names.tables.get(&key.table).map(|table| table.policies.clone()).unwrap_or_default(),
        })
        .collect();
    if json {
        return Ok(serde_json::to_string_pretty(&rows)? + "\n");
    }
    let cells = |row: &DeniedRow| {
        vec![
            row.pod.clone(),
            row.direction.to_owned(),
            row.peer.clone(),
            format!("{}/{}", row.port, row.protocol),
            row.packets.to_string(),
            row.policies.join(","),
        ]
    };
    let titles = ["POD", "DIRECTION", "PEER", "PORT", "PACKETS", "POLICIES"];
    Ok(table(&titles, rows.iter().map(cells).collect()))
}
