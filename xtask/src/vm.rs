//! `cargo xtask test --vm KERNEL`: kernels and disks for small QEMU machines, and the tests that run in them.
//!
//! Everything a machine boots from is laid out here and described in `target/vm/plan.json`; booting, and what is
//! done inside, is in `tests/vm`. Kernels and the base disk are made once a machine, under `~/.cache/skep/vm`; what
//! is under test goes onto a disk of its own, which is made anew when a build has changed it.

mod archive;
mod base;
mod kernels;
mod modules;
mod payload;
mod releases;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cmd::{read, run, step};
use crate::{debs, images, packages, paths, run as builds};

pub(crate) use releases::Choice;
use releases::Series;

/// What making the disks and running the machines takes.
const PACKAGES: &[&str] = &["binutils", "e2fsprogs", "kmod", "qemu-system-x86", "util-linux", "xz-utils"];

/// Sets up, builds, and runs the machines' tests for these kernels.
pub(crate) fn test(kernels: &[Series], filter: &[String]) -> Result<()> {
    packages::setup(true)?;
    builds::build_tests()?;
    images::build()?;
    prepare(kernels)?;
    step("running the tests in virtual machines");
    let modules: Vec<String> =
        kernels.iter().map(|series| format!("test(/^{}::/)", series.module())).collect();
    let wanted = format!("package(skep-tests) & binary(vm) & ({})", modules.join(" | "));
    // Nothing else is built: a target of this name is in one package only.
    run(builds::nextest()
        .args(["--test", "vm", "--ignore-default-filter", "--filterset", &wanted])
        .args(filter))
}

/// Makes what the machines boot from, and the plan that tells the tests where it is.
fn prepare(kernels: &[Series]) -> Result<()> {
    debs::install(PACKAGES)?;
    let guest = guest()?;
    let mut built = serde_json::Map::new();
    for series in kernels {
        let kernel = kernels::get(*series, &guest)?;
        built.insert(
            series.name().to_owned(),
            json!({"release": kernel.release, "image": kernel.image, "modules": kernel.modules,
                "initramfs": kernel.initramfs}),
        );
    }
    let base = base::disk()?;
    let payload = payload::disk()?;
    let folder = paths::target().join("vm");
    let plan = json!({"kernels": built, "base": base, "payload": payload.disk, "binds": payload.binds,
        "binaries": payload.binaries});
    let path = folder.join("plan.json");
    fs::write(&path, serde_json::to_vec_pretty(&plan)?).with_context(|| format!("writing {}", path.display()))
}

/// The first process of a machine, linked without shared libraries: the initramfs holds none.
fn guest() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    run(builds::cargo().args(["rustc", "--quiet", "--release", "--package", "skep-vm-guest"]).args([
        "--bin",
        "skep-vm-guest",
        "--target",
        TARGET,
        "--",
        "-Ctarget-feature=+crt-static",
        "-Cstrip=symbols",
    ]))?;
    Ok(paths::target().join(TARGET).join("release/skep-vm-guest"))
}

/// Where kernels and the base disk are kept.
fn store() -> PathBuf {
    paths::cache().join("vm")
}

/// Makes a file system image with the contents of a folder and room for `spare` more MiB. The file is sparse, and
/// is renamed into place when it is whole.
fn ext4(folder: &Path, disk: &Path, spare: u64) -> Result<()> {
    let used = read(Command::new("du").args(["-sm"]).arg(folder))?;
    let used: u64 = used.split_whitespace().next().unwrap_or_default().parse().context("reading du")?;
    // Inodes and block groups take their share.
    let size = used + used / 8 + spare + 16;
    let next = disk.with_extension("next");
    if next.exists() {
        fs::remove_file(&next)?;
    }
    if let Some(parent) = disk.parent() {
        fs::create_dir_all(parent)?;
    }
    read(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d"])
            .arg(folder)
            .arg(&next)
            .arg(format!("{size}M")),
    )?;
    fs::rename(&next, disk).with_context(|| format!("renaming to {}", disk.display()))
}
