//! Builds the eBPF programs into `target/ebpf/skep.o`.
//!
//! Cargo decides what to recompile; the object is replaced only when its bytes changed, so that the loader which
//! embeds it is not rebuilt for nothing.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::toolchain::{Toolchain, setup_toolchain};

const TARGET: &str = "bpfel-unknown-none";
/// The third instruction set is in every kernel from 5.1 on; BTF makes map types and line numbers visible.
const FLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C target-cpu=v3";

/// Builds the object and returns where it is.
pub(crate) fn build() -> Result<PathBuf> {
    build_with(&setup_toolchain()?)
}

fn build_with(toolchain: &Toolchain) -> Result<PathBuf> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies inside the workspace")?;
    // One folder a tool chain: objects of one compiler are not readable by another.
    let id = toolchain.prefix.file_name().context("the tool chain's prefix has no name")?;
    let target_folder = workspace.join("target/ebpf").join(id);
    let mut command = toolchain.cargo_build();
    command
        .args(["--quiet", "--release", "--package", "skep-ebpf-programs", "--target", TARGET, "--target-dir"])
        .arg(&target_folder)
        .current_dir(workspace)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", FLAGS)
        // The workspace's release profile is made for the server; a verifier wants everything in one unit.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false");
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("the eBPF programs do not build ({}; tool chain: {})", status, toolchain.name);
    }
    let built = target_folder.join(TARGET).join("release/skep-ebpf");
    let object = workspace.join("target/ebpf/skep.o");
    replace_if_changed(&built, &object)?;
    Ok(object)
}

fn replace_if_changed(built: &Path, object: &Path) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    match fs::read(object) {
        Ok(old) if old == new => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", object.display())),
    }
    // Renamed into place: a build that runs at the same time never embeds half an object.
    let next = object.with_extension("o.next");
    fs::write(&next, new).with_context(|| format!("writing {}", next.display()))?;
    fs::rename(&next, object).with_context(|| format!("renaming to {}", object.display()))
}
