//! Invariants of the tree as code: what rustc and clippy do not check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd::{cmd, read, run, step};
use crate::{conformance, deps, paths};

/// No file of ours is longer; see the house rules in ARCHITECTURE.md.
const MAX_LINES: usize = 800;

/// Runs every check; all problems are shown, not only the first.
pub(crate) fn tidy() -> Result<()> {
    step("tidy: formatting");
    run(cmd("cargo fmt --all --check").current_dir(paths::workspace()))?;
    step("tidy: the tree");
    let mut problems = deps::check()?;
    problems.extend(conformance::check());
    for file in sources()? {
        problems.extend(check_file(&file)?);
    }
    for manifest in tracked("*Cargo.toml")? {
        problems.extend(check_manifest(&manifest)?);
    }
    if !problems.is_empty() {
        bail!("{} problems:\n  {}", problems.len(), problems.join("\n  "));
    }
    step("tidy: clippy");
    run(cmd("cargo clippy --quiet --workspace --exclude skep-ebpf-programs --all-targets -- -D warnings")
        .current_dir(paths::workspace()))
}

pub(crate) fn tracked(pattern: &str) -> Result<Vec<PathBuf>> {
    let root = paths::workspace();
    let names = read(Command::new("git").current_dir(&root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        pattern,
    ]))?;
    Ok(names.lines().map(|name| root.join(name)).filter(|path| path.exists()).collect())
}

fn sources() -> Result<Vec<PathBuf>> {
    tracked("*.rs")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(paths::workspace()).unwrap_or(path).display().to_string()
}

/// A source file says what it is for, is not too long, and leaves no work for later unsaid.
fn check_file(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let name = shown(path);
    let mut problems = Vec::new();
    let first = text.lines().find(|line| !line.is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        problems.push(format!("{name}: begins without a `//!` that says what the module is for"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        problems.push(format!("{name}: {lines} lines; split it (at most {MAX_LINES})"));
    }
    // Written in two halves so that this file passes its own check.
    for banned in [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("dbg", "!(")] {
        if text.contains(banned) {
            problems.push(format!("{name}: contains {banned}…)"));
        }
    }
    if path.file_name().is_some_and(|file| file == "mod.rs") {
        problems.push(format!("{name}: modules are foo.rs beside foo/, not foo/mod.rs"));
    }
    Ok(problems)
}

/// Every crate takes the workspace's lints, or says in its manifest why it can't.
fn check_manifest(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let name = shown(path);
    let own_lints = text.contains("[lints.rust]");
    if text.contains("[package]") && !text.contains("[lints]\nworkspace = true") && !own_lints {
        return Ok(vec![format!("{name}: has neither `[lints] workspace = true` nor lints of its own")]);
    }
    Ok(Vec::new())
}
