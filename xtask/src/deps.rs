//! The direction of dependencies between the crates, as ARCHITECTURE.md draws it.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cmd::read;
use crate::paths;

/// What each crate may depend on among ours. A crate that is not here may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("skep-api", &[]),
    ("skep-machinery", &["skep-api"]),
    ("skep-storage", &[]),
    ("skep-webhook", &["skep-api"]),
    ("skep-cel", &["skep-api"]),
    ("skep-auth", &["skep-api", "skep-webhook", "skep-cel"]),
    ("skep-admission", &["skep-api", "skep-machinery", "skep-webhook", "skep-cel"]),
    ("skep-flow-control", &["skep-api"]),
    (
        "skep-registry",
        &[
            "skep-api",
            "skep-machinery",
            "skep-storage",
            "skep-admission",
            "skep-flow-control",
            "skep-webhook",
            "skep-cel",
        ],
    ),
    (
        "skep-apiserver",
        &[
            "skep-api",
            "skep-machinery",
            "skep-storage",
            "skep-auth",
            "skep-admission",
            "skep-flow-control",
            "skep-registry",
            "skep-webhook",
            "skep-cel",
        ],
    ),
    ("skep-client", &["skep-api"]),
    ("skep-scheduler", &["skep-api", "skep-client"]),
    // Of auth what is signed: certificates, and tokens kept in Secrets. Of admission the check of policies'
    // types.
    ("skep-controllers", &["skep-api", "skep-client", "skep-auth", "skep-admission", "skep-cel"]),
    ("skep-ebpf-abi", &[]),
    ("skep-ebpf-programs", &["skep-ebpf-abi"]),
    ("skep-ebpf-loader", &["skep-ebpf-abi"]),
    ("skep-network", &["skep-api", "skep-ebpf-abi", "skep-ebpf-loader"]),
    ("skep-network-policy", &["skep-api", "skep-client", "skep-ebpf-abi", "skep-ebpf-loader"]),
    ("skep-service-proxy", &["skep-api", "skep-client", "skep-ebpf-abi", "skep-ebpf-loader"]),
    ("skep-dns", &["skep-api", "skep-client"]),
    ("skep-agent-core", &["skep-api"]),
    ("skep-runtime", &["skep-api", "skep-agent-core"]),
    (
        "skep-node-agent",
        &[
            "skep-api",
            "skep-client",
            "skep-agent-core",
            "skep-runtime",
            "skep-network",
            "skep-network-policy",
            "skep-service-proxy",
            "skep-dns",
            "skep-ebpf-loader",
        ],
    ),
    (
        "skep",
        &[
            "skep-admission",
            "skep-api",
            "skep-apiserver",
            "skep-auth",
            "skep-client",
            "skep-controllers",
            "skep-dns",
            "skep-network-policy",
            "skep-node-agent",
            "skep-registry",
            "skep-scheduler",
            "skep-service-proxy",
            "skep-storage",
            "skep-runtime",
            "skep-webhook",
        ],
    ),
    ("skep-vm-guest", &[]),
    ("xtask", &[]),
];

/// The tests may look at everything.
const FREE: &[&str] = &["skep-tests", "skep-fuzz"];

/// Every arrow that is not allowed, as text. Dev-dependencies are free.
pub(crate) fn check() -> Result<Vec<String>> {
    let metadata = read(Command::new("cargo").current_dir(paths::workspace()).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
        "--offline",
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        if FREE.contains(&name) {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            problems
                .push(format!("crate {name} is not in xtask/src/deps.rs: give it its place in the picture"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let of = dependency["name"].as_str().unwrap_or_default();
            let ours = of.starts_with("skep");
            if ours && dependency["kind"].as_str() != Some("dev") && !may.contains(&of) {
                problems.push(format!("{name} depends on {of}: against the direction of dependencies"));
            }
        }
    }
    Ok(problems)
}
