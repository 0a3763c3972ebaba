//! What end-to-end steps are written with: a command's whole story when it fails, and patience.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a command to its end; its standard output. A failure shows everything it said.
///
/// # Errors
/// With all that it said, when it cannot be started or fails.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{command:?}: {}\n{out}{err}", output.status);
    }
    Ok(out.trim_end().to_owned())
}

/// Tries again until it works; after `seconds` the last error is returned. Returns how long it took.
///
/// # Errors
/// The last one.
pub fn eventually(what: &str, seconds: u64, mut attempt: impl FnMut() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(()) => {
                let took = began.elapsed();
                eprintln!("  ok: {what} ({:.2} s)", took.as_secs_f64());
                return Ok(took);
            }
            Err(error) if began.elapsed() > Duration::from_secs(seconds) => {
                return Err(error.context(format!("{what}: not within {seconds} s")));
            }
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}
