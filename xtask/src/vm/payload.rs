//! The disk with what is under test: it looks as this checkout does, so that the paths which tests were compiled
//! with hold in a machine too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ext4;
use crate::cmd::{read, step};
use crate::{paths, run as builds};

/// Test programs that run in machines, by the names of cargo's targets, which are all different.
const TESTS: [&str; 5] = ["agent", "containerd", "kernel", "netns", "scenarios"];

/// Programs beside them, under cargo's output folder.
const PROGRAMS: [&str; 4] = ["debug/skep", "debug/netprobe", "debug/netload", "debug/examples/log_writer"];

/// Files of the checkout that tests read.
const FILES: [&str; 1] = ["tests/scenarios"];

/// The disk and what is on it.
pub(crate) struct Payload {
    pub(crate) disk: PathBuf,
    /// Folders that machines see where they are here.
    pub(crate) binds: Vec<PathBuf>,
    /// The test programs by name.
    pub(crate) binaries: BTreeMap<String, PathBuf>,
}

/// The disk of the current build.
pub(crate) fn disk() -> Result<Payload> {
    let binaries = test_programs()?;
    let (workspace, target) = (paths::workspace(), paths::target());
    let mut binds = vec![workspace.clone()];
    if !target.starts_with(&workspace) {
        binds.push(target.clone());
    }
    let programs: Vec<PathBuf> =
        binaries.values().cloned().chain(PROGRAMS.iter().map(|name| target.join(name))).collect();
    let mut files = Vec::new();
    for folder in FILES {
        list(&workspace.join(folder), &mut files)?;
    }
    let folder = target.join("vm");
    fs::create_dir_all(&folder)?;
    let (disk, stamp) = (folder.join("payload.ext4"), folder.join("payload.stamp"));
    let state = programs.iter().chain(&files).map(|path| state(path)).collect::<Result<Vec<_>>>()?.join("\n");
    if !(disk.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == state)) {
        step("packing what is under test for the virtual machines");
        let work = tempfile::tempdir_in(&folder)?;
        for path in &programs {
            let to = inside(work.path(), path)?;
            // Symbols are half of a program, and nobody debugs in there.
            read(Command::new("strip").arg("-s").arg("-o").arg(&to).arg(path))?;
        }
        for path in &files {
            fs::copy(path, inside(work.path(), path)?)?;
        }
        ext4(work.path(), &disk, 64)?;
        fs::write(&stamp, state)?;
    }
    Ok(Payload { disk, binds, binaries })
}

/// A path of this machine below the disk's root; its folder is there.
fn inside(root: &Path, path: &Path) -> Result<PathBuf> {
    let to = root.join(path.strip_prefix("/").with_context(|| format!("{} is relative", path.display()))?);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(to)
}

/// What tells one build's file from another's.
fn state(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).with_context(|| format!("{} was not built", path.display()))?;
    let changed = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(format!("{} {} {}", path.display(), meta.len(), changed.as_nanos()))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    files.sort();
    Ok(())
}

/// Builds the test programs, only these; where cargo put them.
fn test_programs() -> Result<BTreeMap<String, PathBuf>> {
    step("building the tests that run in virtual machines");
    let mut cargo = builds::cargo();
    cargo.args(["test", "--no-run", "--message-format", "json-render-diagnostics"]).args(builds::TESTED);
    cargo.args(TESTS.iter().flat_map(|name| ["--test", name])).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = cargo.output().context("starting cargo")?;
    if !output.status.success() {
        bail!("the tests do not build: {}", output.status);
    }
    let mut programs = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).context("reading what cargo says")?;
        if let (Some("compiler-artifact"), Some(name), Some(path)) =
            (message["reason"].as_str(), message["target"]["name"].as_str(), message["executable"].as_str())
            && message["target"]["kind"][0] == "test"
        {
            programs.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    match TESTS.iter().find(|name| !programs.contains_key(**name)) {
        Some(missing) => bail!("cargo built no test program {missing}"),
        None => Ok(programs),
    }
}
