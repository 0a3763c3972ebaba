//! `skep up` is two processes: this small one, and the cluster. When the cluster's process dies of
//! anything but its own decision to stop, it is started again; everything it acknowledged is on disk,
//! pods and the data plane went on meanwhile.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// Set in the environment of the supervised process.
const SUPERVISED: &str = "SKEP_SUPERVISED";

/// A process that lives shorter than this did not really start.
const STARTED: Duration = Duration::from_secs(10);

/// Is this the supervised process?
pub(crate) fn is_supervised() -> bool {
    env::var_os(SUPERVISED).is_some()
}

/// Runs this same command line as a child until it ends by itself; restarts it when it crashes.
pub(crate) async fn supervise() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let mut child =
            tokio::process::Command::from(command()?).spawn().context("starting the cluster's process")?;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                // The child has a process group of its own: what reaches us is for it too.
                _ = interrupt.recv() => forward(&child, Signal::SIGINT),
                _ = terminate.recv() => forward(&child, Signal::SIGTERM),
            }
        };
        if status.success() {
            return Ok(());
        }
        failures = if started.elapsed() < STARTED { failures + 1 } else { 1 };
        if !crashed(status) {
            bail!("the cluster stopped with an error, see above");
        }
        if failures > 5 {
            bail!("the cluster crashed {failures} times in a row ({status}); giving up");
        }
        eprintln!("skep: the cluster's process ended unexpectedly ({status}); starting it again");
        sleep(Duration::from_millis(200) * failures).await;
    }
}

/// An exit code is a decision (a bad option, a port in use); a signal or an abort is a crash.
fn crashed(status: ExitStatus) -> bool {
    status.code().is_none_or(|code| code == 101)
}

fn forward(child: &tokio::process::Child, signal: Signal) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
    if let Err(error) = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal) {
        eprintln!("skep: passing {signal} on: {error}");
    }
}

fn command() -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("finding this program's path")?);
    command.args(env::args_os().skip(1)).env(SUPERVISED, "1").process_group(0);
    Ok(command)
}

/// In the supervised process: stop when the supervisor is gone, so that never two clusters run.
pub(crate) fn stop_with_parent() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM).context("binding this process's life to the supervisor's")
}
