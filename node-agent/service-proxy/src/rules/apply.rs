//! Running `nft`, `iptables` and their like.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::{Error, Result};

/// A full table of fifty thousand services takes the tools tens of seconds.
const LONGEST: Duration = Duration::from_secs(300);
/// What is kept of an error's text.
const LONGEST_MESSAGE: usize = 600;

/// Runs a tool that must succeed; returns what it printed.
pub(crate) async fn tool(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let output = attempt(program, arguments, input).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut said = said.trim().to_owned();
    said.truncate(said.floor_char_boundary(LONGEST_MESSAGE));
    Err(Error::Tool { command: command_line(program, arguments), status: output.status.to_string(), said })
}

/// Runs a tool, whatever it answers.
pub(crate) async fn attempt(program: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let failed = |source| Error::Start { command: command_line(program, arguments), source };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut pipe = child.stdin.take();
    let feed = async move {
        if let Some(pipe) = &mut pipe {
            // A tool that ends early has said why; that is what counts.
            match pipe.write_all(input.as_bytes()).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        drop(pipe);
        Ok(())
    };
    let run = async { tokio::try_join!(feed, child.wait_with_output()) };
    match tokio::time::timeout(LONGEST, run).await {
        Ok(done) => Ok(done.map_err(failed)?.1),
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
    }
}

fn command_line(program: &str, arguments: &[&str]) -> String {
    [&[program], arguments].concat().join(" ")
}

/// Whether a program is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not in every service's path, but where these tools are.
    let usual = ["/usr/sbin", "/sbin", "/usr/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(usual).any(|folder| folder.join(program).exists())
}
