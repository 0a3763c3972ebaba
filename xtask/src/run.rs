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
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::workspace()).env("PATH", paths::search_path());
    cargo
}

/// Builds `skep` as it is used; returns its path.
fn build() -> Result<PathBuf> {
    step("building the eBPF programs");
    ebpf::build()?;
    step("building skep");
    run(cargo().args(["build", "--package", "skep", "--profile", "release"]))?;
    Ok(paths::target().join("release").join("skep"))
}

/// `cargo xtask up`: set up, build, run in the foreground with the terminal's signals.
pub(crate) fn up(options: &[String]) -> Result<()> {
    packages::setup(false)?;
    let skep = build()?;
    let status = Command::new(skep).env("PATH", paths::search_path()).arg("up").args(options).status()?;
    match status.code() {
        Some(0) => Ok(()),
        _ => bail!("skep up ended: {status}"),
    }
}

/// What is built and run for tests: always the same selection, as another one would build with other features.
pub(crate) const TESTED: [&str; 3] = ["--workspace", "--exclude", "skep-ebpf-programs"];

/// The test runner; nothing may be skipped.
pub(crate) fn nextest() -> Command {
    let mut command = cargo();
    command.env("SKEP_TEST_REQUIRE_ALL", "1").args(["nextest", "run"]).args(TESTED);
    command
}

/// `skep` and what the tests start beside it: containerd's log driver. Built with the features that the tests are
/// built with, so that nothing is built twice.
pub(crate) fn build_tests() -> Result<()> {
    step("building the eBPF programs");
    ebpf::build()?;
    step("building skep");
    run(cargo().arg("build").args(TESTED).args(["--bin", "skep", "--example", "log_writer"]))
}

/// `cargo xtask test`: everything, privileged parts included; nothing may be skipped. With a filter, what it names
/// outside of virtual machines.
pub(crate) fn test(filter: &[String]) -> Result<()> {
    packages::setup(true)?;
    if filter.is_empty() {
        tidy::tidy()?;
    }
    build_tests()?;
    step("building the images");
    images::build()?;
    step("running the tests");
    run(nextest().args(filter))
}

/// `cargo xtask bench NAME`.
pub(crate) fn bench(name: &str, options: &[String]) -> Result<()> {
    match name {
        "service-path" | "services" | "podnet" => {
            packages::setup(true)?;
            ebpf::build()?;
        }
        // Without programs.
        "apiserver" | "dns" => packages::setup(true)?,
        _ => bail!("no benchmark {name}; there are: apiserver, dns, podnet, service-path, services"),
    }
    run(cargo().args(["bench", "--package", "skep-tests", "--bench", name, "--"]).args(options))
}
