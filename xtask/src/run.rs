//! The commands that build and run: `up`, `test`, `bench`, `ebpf`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd::{run, step};
use crate::{ebpf, images, packages, paths, tidy};

/// Builds the eBPF programs and says where the object is.
pub(crate) fn ebpf() -> Result<()> {
    let object = ebpf::build()?;
    println!("{}", object.display());
    Ok(())
}

/// A cargo command with what our build scripts and tests look for.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::workspace()).env("PATH", paths::search_path());
    cargo
}

/// Builds `skep` in a profile; returns its path.
fn build(profile: &str) -> Result<PathBuf> {
    step("building the eBPF programs");
    ebpf::build()?;
    step("building skep");
    run(cargo().args(["build", "--package", "skep", "--profile", profile]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(paths::target().join(folder).join("skep"))
}

/// `cargo xtask up`: set up, build, run in the foreground with the terminal's signals.
pub(crate) fn up(options: &[String]) -> Result<()> {
    packages::setup(false)?;
    let skep = build("release")?;
    let status = Command::new(skep).env("PATH", paths::search_path()).arg("up").args(options).status()?;
    match status.code() {
        Some(0) => Ok(()),
        _ => bail!("skep up ended: {status}"),
    }
}

/// `cargo xtask test`: everything, privileged parts included; nothing may be skipped.
pub(crate) fn test(filter: &[String]) -> Result<()> {
    packages::setup(true)?;
    if filter.is_empty() {
        tidy::tidy()?;
    }
    build("dev")?;
    // The runtime's tests start it as containerd's log driver.
    run(cargo().args(["build", "--quiet", "--package", "skep-runtime", "--example", "log_writer"]))?;
    step("building the images");
    images::build()?;
    step("running the tests");
    run(cargo()
        .env("SKEP_TEST_REQUIRE_ALL", "1")
        .args(["nextest", "run", "--workspace", "--exclude", "skep-ebpf-programs"])
        .args(filter))
}

/// `cargo xtask bench NAME`.
pub(crate) fn bench(name: &str, options: &[String]) -> Result<()> {
    match name {
        "service-path" => {
            packages::setup(true)?;
            ebpf::build()?;
        }
        // Needs etcd and no root.
        "apiserver" => packages::setup(true)?,
        _ => bail!("no benchmark {name}; there are: apiserver, service-path"),
    }
    run(cargo().args(["bench", "--package", "skep-tests", "--bench", name, "--"]).args(options))
}
