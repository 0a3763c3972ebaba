//! Runs `tests/policies/*.yaml`: network policy between two nodes, in network namespaces.
//!
//! A file says what objects there are, and then what connections must lead to; step by step. The nodes run what a node
//! agent runs of the network: the pod network, the service proxy and the policy agent, fed by a small API server in this
//! process. Every file is run with nodes on one segment, with the tunnel between them, and with services translated by
//! rules. A scenario begins and ends without policies, so what one leaves behind fails the next.

#[path = "../scenario/api.rs"]
mod api;
mod node;
#[path = "../scenario/probe.rs"]
mod probe;
mod script;
mod world;

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use script::Scenario;
use skep_network::PodRouting;
use skep_service_proxy::ProxyMode;
use skep_tests::require;
use world::World;

fn scenarios() -> Result<Vec<(String, Scenario)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = std::fs::read_to_string(&path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let scenario = serde_yaml::from_str(&text).with_context(|| path.display().to_string())?;
            found.push((name, scenario));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let only = std::env::var("SKEP_SCENARIO").ok();
    found.retain(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only)));
    Ok(found)
}

/// Runs every scenario in one kind of world and prints a table.
fn run_all(test: &str, mode: ProxyMode, routing: PodRouting) -> Result<()> {
    if !require(test) {
        return Ok(());
    }
    let scenarios = scenarios()?;
    ensure!(!scenarios.is_empty(), "no scenarios");
    let mut world = World::new(mode, routing)?;
    let mut failures = Vec::new();
    println!("{:<40} {:<9} {:<7} {:>6}  RESULT", "SCENARIO", "MODE", "ROUTING", "MS");
    for (name, scenario) in &scenarios {
        let started = Instant::now();
        if scenario.modes.as_ref().is_some_and(|modes| !modes.iter().any(|m| m == mode.name())) {
            println!("{name:<40} {mode:<9} {routing:<7} {:>6}  not for this mode", "-");
            continue;
        }
        let result = world.run(scenario);
        let took = started.elapsed().as_millis();
        match result {
            Ok(()) => println!("{name:<40} {mode:<9} {routing:<7} {took:>6}  ok"),
            Err(error) => {
                println!("{name:<40} {mode:<9} {routing:<7} {took:>6}  FAILED: {error:#}");
                failures.push(format!("{name}: {error:#}"));
            }
        }
    }
    let (failed, all) = (failures.len(), scenarios.len());
    ensure!(failures.is_empty(), "{failed} of {all} failed:\n{}", failures.join("\n"));
    Ok(())
}

/// Nodes on one segment.
#[test]
fn policies_hold_between_neighbours() -> Result<()> {
    run_all("policies_hold_between_neighbours", ProxyMode::Ebpf, PodRouting::Native)
}

/// Nodes with the tunnel between them.
#[test]
fn policies_hold_through_the_tunnel() -> Result<()> {
    run_all("policies_hold_through_the_tunnel", ProxyMode::Ebpf, PodRouting::Vxlan)
}

/// Services by rules: pods' packets go through the host's stack.
#[test]
fn policies_hold_beside_rules() -> Result<()> {
    run_all("policies_hold_beside_rules", ProxyMode::Nftables, PodRouting::Native)
}
