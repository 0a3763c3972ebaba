//! The helper program in its places.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use skep_tests::{cgroup::CgroupTree, netbox::command_in, output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_netprobe");

/// How to ask.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// How many connections.
    pub(crate) count: usize,
    /// Milliseconds between them.
    pub(crate) gap: u64,
    /// Milliseconds that an answer may take.
    pub(crate) patience: u64,
    /// Bytes of a question, and of its answer.
    pub(crate) size: usize,
}

/// A place to dial from or to serve at.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) netns: &'a Path,
    pub(crate) cgroup: Option<&'a CgroupTree>,
}

impl Spot<'_> {
    fn command(&self) -> Command {
        command_in(self.netns, self.cgroup, PROGRAM)
    }

    /// The answers to fresh connections.
    pub(crate) fn dial(&self, protocol: &str, target: &str, manner: Manner) -> Result<Vec<String>> {
        let Manner { count, gap, patience, size } = manner;
        let mut command = self.command();
        command.args(["dial", protocol, target, "--count", &count.to_string(), "--gap", &gap.to_string()]);
        command.args(["--milliseconds", &patience.to_string(), "--size", &size.to_string()]);
        let done = output(&mut command)?;
        ensure!(done.status.success(), "netprobe: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect())
    }
}

/// A helper with pipes; ends with this value.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("the helper's output")?).lines();
        Ok(Self { child, input, lines })
    }

    /// A server that answers with `name`, at some addresses or at all.
    pub(crate) fn serve(spot: Spot<'_>, name: &str, ports: &[u16], at: &[&str]) -> Result<Self> {
        let mut command = spot.command();
        command.args(["serve", name]).args(ports.iter().map(ToString::to_string));
        command.args(at.iter().flat_map(|address| ["--at", address]));
        let mut running = Self::start(command)?;
        running.line().with_context(|| format!("server {name}"))?;
        Ok(running)
    }

    /// A flow that asks when told.
    pub(crate) fn flow(spot: Spot<'_>, protocol: &str, target: &str) -> Result<Self> {
        let mut command = spot.command();
        command.args(["flow", protocol, target]);
        Self::start(command)
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the helper ended")??)
    }

    /// The answer of a flow to one more question.
    pub(crate) fn ask(&mut self) -> Result<String> {
        let input = self.input.as_mut().context("no input")?;
        input.write_all(b"\n")?;
        self.line()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its input closes, so it ends by itself.
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("a helper does not end: {error}");
        }
    }
}
