//! When a change has its effect: a process in the client's place that asks until the other endpoint answers.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Args;
use skep_tests::{cgroup::CgroupTree, netbox::command_in};

/// What the process is told.
#[derive(Args, Debug)]
pub(crate) struct ProbeArguments {
    #[arg(long)]
    target: SocketAddr,
}

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?)
}

/// For each line, the name of an endpoint: asks over one fresh socket after another until that one answers, and
/// prints when it did.
pub(crate) fn main(arguments: &ProbeArguments) -> Result<()> {
    for name in std::io::stdin().lines() {
        let name = name?;
        loop {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            let mut buffer = [0; 64];
            // A change may be half done: what is refused or lost is asked again.
            let answer = socket
                .connect(arguments.target)
                .and_then(|()| socket.send(b"?"))
                .and_then(|_| socket.recv(&mut buffer));
            if answer.is_ok_and(|length| buffer[..length].starts_with(name.as_bytes())) {
                break;
            }
        }
        println!("{}", now()?);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The running process.
pub(crate) struct Probe {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Probe {
    pub(crate) fn start(netns: &Path, cgroup: Option<&CgroupTree>, target: SocketAddr) -> Result<Self> {
        let mut command = command_in(netns, cgroup, std::env::current_exe()?);
        command.args(["probe", "--target", &target.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("the probe's output")?).lines();
        Ok(Self { child, input, lines })
    }

    /// Begins to ask for an endpoint.
    pub(crate) fn ask_for(&mut self, name: &str) -> Result<()> {
        Ok(writeln!(self.input.as_mut().context("no input")?, "{name}")?)
    }

    /// When it answered.
    pub(crate) fn answered(&mut self) -> Result<u64> {
        Ok(self.lines.next().context("the probe ended")??.parse()?)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.child.wait() {
            eprintln!("a probe does not end: {error}");
        }
    }
}
