//! What `skep net …` prints: the pinned maps (or rules) as tables or JSON, also while no agent runs.

mod check;
mod flows;
mod rules;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use skep_ebpf_abi::service::{frontend, set};
use skep_ebpf_loader::inspect::{Inspector, LinkState, MapState};
use skep_ebpf_loader::tables::{Lookup, Tables, kind_name, protocol_name, socket_address};

use crate::backend::recorded_mode;
use crate::error::Result;

pub use check::{Report, check};
pub use flows::{affinity, drops, flows, nat};
pub use rules::{backends as rule_backends, services as rule_services};

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// Columns.
    #[default]
    Table,
    /// JSON.
    Json,
}

#[derive(Serialize)]
struct ServiceRow {
    address: String,
    protocol: &'static str,
    kind: &'static str,
    backends: usize,
    external_set: u32,
    internal_set: u32,
    affinity_seconds: u32,
    flags: Vec<&'static str>,
}

/// The frontends.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn services(pin_dir: &Path, format: Format) -> Result<String> {
    let tables = Inspector::new(pin_dir).tables()?;
    let rows: Vec<ServiceRow> = tables
        .frontends
        .iter()
        .map(|(key, value)| {
            let set_value = tables.sets.get(&value.internal_set).copied().unwrap_or_default();
            let mut flags = Vec::new();
            if value.flags & frontend::EXTERNAL_LOCAL != 0 {
                flags.push("external-local");
            }
            if value.flags & frontend::SOURCE_RANGES != 0 {
                flags.push("source-ranges");
            }
            if set_value.flags & set::DROP_WHEN_EMPTY != 0 {
                flags.push("drop-when-empty");
            }
            ServiceRow {
                address: socket_address(key.addr, key.port_be).to_string(),
                protocol: protocol_name(key.protocol),
                kind: kind_name(value.flags),
                backends: match tables.lookup(key, false) {
                    Lookup::Backends(backends) => backends.len(),
                    _ => 0,
                },
                external_set: value.external_set,
                internal_set: value.internal_set,
                affinity_seconds: set_value.affinity_seconds,
                flags,
            }
        })
        .collect();
    print(&rows, format, &["FRONTEND", "PROTOCOL", "TYPE", "BACKENDS", "SETS", "AFFINITY", "FLAGS"], |row| {
        vec![
            row.address.clone(),
            row.protocol.to_owned(),
            row.kind.to_owned(),
            row.backends.to_string(),
            format!("{}/{}", row.external_set, row.internal_set),
            if row.affinity_seconds == 0 { "-".to_owned() } else { format!("{}s", row.affinity_seconds) },
            row.flags.join(","),
        ]
    })
}

#[derive(Serialize)]
struct BackendRow {
    id: u32,
    address: String,
    protocol: &'static str,
    state: &'static str,
    frontends: Vec<String>,
}

/// The backends and the frontends they serve.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn backends(pin_dir: &Path, format: Format) -> Result<String> {
    let tables = Inspector::new(pin_dir).tables()?;
    let rows: Vec<BackendRow> = tables
        .backends
        .iter()
        .map(|(id, backend)| {
            let frontends = frontends_of(&tables, *id);
            BackendRow {
                id: *id,
                address: socket_address(backend.addr, backend.port_be).to_string(),
                protocol: protocol_name(backend.protocol),
                state: if frontends.is_empty() { "leaving" } else { "active" },
                frontends,
            }
        })
        .collect();
    print(&rows, format, &["ID", "BACKEND", "PROTOCOL", "STATE", "FRONTENDS"], |row| {
        vec![
            row.id.to_string(),
            row.address.clone(),
            row.protocol.to_owned(),
            row.state.to_owned(),
            row.frontends.join(","),
        ]
    })
}

fn frontends_of(tables: &Tables, backend: u32) -> Vec<String> {
    let in_use = |key: &skep_ebpf_abi::service::SlotKey| {
        tables.sets.get(&key.set).is_some_and(|set| key.slot <= set.count)
    };
    let sets: Vec<u32> = tables
        .slots
        .iter()
        .filter(|(key, id)| **id == backend && in_use(key))
        .map(|(key, _)| key.set)
        .collect();
    let serves = |value: &skep_ebpf_abi::service::Frontend| {
        sets.contains(&value.external_set) || sets.contains(&value.internal_set)
    };
    let frontends = tables.frontends.iter().filter(|(_, value)| serves(value));
    frontends.map(|(key, _)| socket_address(key.addr, key.port_be).to_string()).collect()
}

#[derive(Serialize)]
struct Status {
    mode: &'static str,
    pin_dir: String,
    node_addresses: Vec<String>,
    pods: usize,
    maps: Vec<MapState>,
    links: Vec<LinkState>,
    counters: Vec<CounterRow>,
}

#[derive(Serialize)]
struct CounterRow {
    name: &'static str,
    value: u64,
}

/// The mode, maps, links and counters. `record` is the agent's file about the mode.
///
/// # Errors
/// When nothing is pinned in `pin_dir`, or it cannot be read.
pub fn status(pin_dir: &Path, record: &Path, format: Format) -> Result<String> {
    let mode = recorded_mode(record).map_or("none", crate::mode::ProxyMode::name);
    let inspector = Inspector::new(pin_dir);
    let (own, pods): (Vec<_>, Vec<_>) = inspector
        .endpoints()?
        .into_iter()
        .partition(|(_, place)| place.flags & skep_ebpf_abi::node::endpoint::HOST != 0);
    let status = Status {
        mode,
        pin_dir: pin_dir.display().to_string(),
        node_addresses: own.iter().map(|(addr, _)| addr.to_string()).collect(),
        pods: pods.len(),
        maps: inspector.usage()?,
        links: inspector.links()?,
        counters: inspector.counters()?.into_iter().map(|(name, value)| CounterRow { name, value }).collect(),
    };
    if format == Format::Json {
        return Ok(serde_json::to_string_pretty(&status)? + "\n");
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "mode            {}", status.mode);
    let _ = writeln!(text, "pins            {}", status.pin_dir);
    let _ = writeln!(text, "node addresses  {}", status.node_addresses.join(", "));
    let _ = writeln!(text, "pods            {}\n", status.pods);
    let used = |map: &MapState| map.used.map_or_else(|| "-".to_owned(), |used| used.to_string());
    let maps = status
        .maps
        .iter()
        .map(|map| vec![map.name.clone(), used(map), map.limit.to_string(), map.bytes.to_string()]);
    text += &columns(&["MAP", "USED", "LIMIT", "BYTES"], maps.collect());
    text.push('\n');
    let links = status.links.iter().map(|link| vec![link.name.clone(), link.program.to_string()]);
    text += &columns(&["LINK", "PROGRAM"], links.collect());
    text.push('\n');
    let counters = status.counters.iter().map(|row| vec![row.name.to_owned(), row.value.to_string()]);
    text += &columns(&["COUNTER", "VALUE"], counters.collect());
    Ok(text)
}

fn print<T: Serialize>(
    rows: &[T],
    format: Format,
    titles: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
) -> Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(rows)? + "\n",
        Format::Table => columns(titles, rows.iter().map(cells).collect()),
    })
}

fn columns(titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![titles.iter().map(|&title| title.to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width =
        |column: usize| all.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("   ").trim_end());
        text.push('\n');
    }
    text
}
