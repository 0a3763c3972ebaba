//! A nightly compiler of rustup's with the library sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Toolchain, clean_command, install_linker, install_once, output, prefix, run};

/// The LLVM versions that bpf-linker can be built against.
const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// Uses the nightly there is, or asks rustup for one; fails when its sources cannot be had.
pub(super) fn setup() -> Result<Toolchain> {
    let sysroot = sysroot_with_sources()?;
    let version = output(rustup_run("rustc").arg("-vV"))?;
    let field = |name: &str| {
        version
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .with_context(|| format!("rustc -vV says no {name}"))
    };
    let hash = field("commit-hash:")?.get(..9).context("the commit hash is too short")?;
    let llvm = field("LLVM version:")?;
    let major: u32 =
        llvm.split('.').next().unwrap_or_default().parse().with_context(|| format!("LLVM version {llvm}"))?;
    if !LLVM_MAJORS.contains(&major) {
        bail!("nightly uses LLVM {major}, bpf-linker knows {LLVM_MAJORS:?}");
    }
    // Named by the compiler's commit: an update of nightly gets its own linker instead of a broken one.
    let prefix = prefix(&format!("nightly-{hash}"))?;
    install_once(&prefix, |prefix| install_linker(prefix, &llvm_library(&sysroot, major)?, major))?;
    Ok(Toolchain {
        name: format!("nightly {hash}, LLVM {llvm}"),
        prefix,
        cargo: ["rustup", "run", "nightly", "cargo"].map(Into::into).to_vec(),
        arguments: ["-Z", "build-std=core"].map(Into::into).to_vec(),
        environment: Vec::new(),
    })
}

fn sysroot_with_sources() -> Result<PathBuf> {
    let mut print_sysroot = rustup_run("rustc");
    print_sysroot.args(["--print", "sysroot"]);
    let Ok(sysroot) = output(&mut print_sysroot) else {
        let mut install = clean_command("rustup".as_ref());
        install.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
        run(&mut install)?;
        return checked(output(&mut print_sysroot)?.trim().into());
    };
    let sysroot = PathBuf::from(sysroot.trim());
    if !has_sources(&sysroot) {
        run(clean_command("rustup".as_ref()).args([
            "component",
            "add",
            "rust-src",
            "--toolchain",
            "nightly",
        ]))?;
    }
    checked(sysroot)
}

fn checked(sysroot: PathBuf) -> Result<PathBuf> {
    if has_sources(&sysroot) {
        Ok(sysroot)
    } else {
        bail!("rustup reported success but {} has no library sources", sysroot.display())
    }
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn llvm_library(sysroot: &Path, major: u32) -> Result<PathBuf> {
    let folder = sysroot.join("lib");
    let wanted = format!("libLLVM.so.{major}");
    std::fs::read_dir(&folder)?
        .filter_map(std::result::Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&wanted))
        .map(|entry| entry.path())
        .with_context(|| format!("{} holds no {wanted}*", folder.display()))
}

fn rustup_run(program: &str) -> Command {
    let mut command = clean_command("rustup".as_ref());
    command.args(["run", "nightly", program]);
    command
}
