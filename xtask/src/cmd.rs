//! Running other programs: a failure names the command and shows what it said.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command line, split at spaces; further arguments may be added to it.
pub(crate) fn cmd(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("true"));
    command.args(words);
    command
}

/// Runs with the terminal's output; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Runs silently; the output is shown only when it fails. Returns standard output, trimmed.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Is a program on the PATH?
pub(crate) fn have(program: impl AsRef<OsStr>) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null"])
        .arg(program)
        .status()
        .is_ok_and(|status| status.success())
}

/// Says what is being done.
pub(crate) fn step(what: &str) {
    eprintln!("\x1b[1;34m==>\x1b[0m {what}");
}
