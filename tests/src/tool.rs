//! Running commands with errors that tell what the command said.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and returns what it wrote, whatever its status.
///
/// # Errors
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("start {command:?}"))
}

/// Runs a command that must succeed; returns its standard output.
///
/// # Errors
/// With its standard error if it fails.
pub fn succeed(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ip` with the words of `arguments`.
///
/// # Errors
/// With its standard error if it fails.
pub fn ip(arguments: &str) -> Result<String> {
    succeed(Command::new("ip").args(arguments.split_whitespace()))
}
