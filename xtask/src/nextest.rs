//! cargo-nextest, the test runner.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd::{read, run, step};

/// Installs cargo-nextest when cargo does not know it.
pub(crate) fn ensure() -> Result<()> {
    if read(Command::new("cargo").args(["nextest", "--version"])).is_ok() {
        return Ok(());
    }
    step("installing cargo-nextest");
    run(Command::new("cargo").args(["install", "--locked", "--quiet", "cargo-nextest"]))
        .context("installing cargo-nextest")
}
