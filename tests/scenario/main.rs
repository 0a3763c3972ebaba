//! Runs `tests/scenarios/*.yaml` against every back end of the service proxy, in network namespaces.
//!
//! A file says what objects there are, and then what connections must lead to; step by step. Each back end has one
//! world: a node with pods, another node with pods, and a client outside. The proxy runs there as it does on a node,
//! fed by a small API server in this process. A scenario begins and ends without services, so what one leaves behind
//! fails the next.

mod api;
mod check;
mod ipv6;
mod probe;
mod script;
mod world;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use script::Scenario;
use serde_json::Value;
use skep_service_proxy::ProxyMode;
use skep_tests::require;
use world::World;

/// All scenarios, by file name, each as it is written and as it is read.
fn scenarios() -> Result<Vec<(String, Value, Scenario)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = std::fs::read_to_string(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let written: Value = serde_yaml::from_str(&text).with_context(|| path.display().to_string())?;
            let read = serde_yaml::from_str(&text).with_context(|| path.display().to_string())?;
            found.push((name, written, read));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Runs every scenario against one back end, over IPv4 and over IPv6, and prints a table.
fn run_all(mode: ProxyMode) -> Result<()> {
    let mut scenarios: Vec<(String, Scenario)> = Vec::new();
    for (name, written, read) in self::scenarios()? {
        let twin = ipv6::twin(&written, mode).with_context(|| name.clone())?;
        scenarios.extend(twin.map(|twin| (format!("{name} (IPv6)"), twin)));
        scenarios.push((name, read));
    }
    scenarios.sort_by(|a, b| a.0.cmp(&b.0));
    let only = std::env::var("SKEP_SCENARIO").ok();
    scenarios
        .retain(|(name, _)| only.as_ref().is_none_or(|only| only.split(',').any(|only| name.contains(only))));
    ensure!(!scenarios.is_empty(), "no scenarios");
    let mut world = World::new(mode)?;
    let mut failures = Vec::new();
    println!("{:<48} {:<9} {:>6}  RESULT", "SCENARIO", "MODE", "MS");
    for (name, scenario) in &scenarios {
        let started = Instant::now();
        let result = if scenario.modes.as_ref().is_some_and(|modes| !modes.iter().any(|m| m == mode.name())) {
            println!("{name:<48} {mode:<9} {:>6}  not for this mode", "-");
            continue;
        } else {
            world.run(scenario)
        };
        let took = started.elapsed().as_millis();
        match result {
            Ok(()) => println!("{name:<48} {mode:<9} {took:>6}  ok"),
            Err(error) => {
                println!("{name:<48} {mode:<9} {took:>6}  FAILED: {error:#}");
                failures.push(format!("{name}: {error:#}"));
            }
        }
    }
    world.leave()?;
    ensure!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        scenarios.len(),
        failures.join("\n")
    );
    Ok(())
}

/// Each behaviour of the checklist is held by a scenario or a test, and the scenarios are in the table of them.
#[test]
fn every_line_of_the_checklist_is_held() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("scenarios/README.md"))?;
    for (name, _, scenario) in scenarios()? {
        ensure!(!scenario.holds.is_empty(), "{name} holds nothing: say what of checklist.txt it is for");
        for id in scenario.holds.iter().filter(|id| id.starts_with("KP-")) {
            let row = table.lines().find(|line| line.starts_with(&format!("| {id} |")));
            let row = row.with_context(|| format!("{name} holds {id}, which the table does not have"))?;
            ensure!(row.contains(&format!("{name}.yaml")), "cargo xtask conformance: {id} by {name}");
        }
    }
    let bare = table.lines().find(|line| line.starts_with("| KP-") && line.ends_with("|  |"));
    ensure!(bare.is_none(), "nothing holds {bare:?}");
    Ok(())
}

/// Every scenario by eBPF.
/// Holds NE-20.
#[test]
fn scenarios_hold_with_ebpf() -> Result<()> {
    if require("scenarios_hold_with_ebpf") { run_all(ProxyMode::Ebpf) } else { Ok(()) }
}

/// Every scenario by nftables.
/// Holds NE-20.
#[test]
fn scenarios_hold_with_nftables() -> Result<()> {
    if require("scenarios_hold_with_nftables") { run_all(ProxyMode::Nftables) } else { Ok(()) }
}

/// Every scenario by iptables.
/// Holds NE-20.
#[test]
fn scenarios_hold_with_iptables() -> Result<()> {
    if require("scenarios_hold_with_iptables") { run_all(ProxyMode::Iptables) } else { Ok(()) }
}
