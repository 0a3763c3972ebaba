//! A control plane of its own for each test, on a port of loopback.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server is up by then, also on a busy machine.
const START: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) fn program() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    env::var_os("SKEP_BIN").map_or_else(|| target.join("debug/skep"), PathBuf::from)
}

/// A running `skep server`. It ends with this.
pub(crate) struct Server {
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("skep-clients-").tempdir()?;
        // Free now; nobody else asks for this very one in the moment between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(program());
        command
            .args(["server", "--advertise-address", "127.0.0.1", "--secure-port", &port.to_string()])
            .env("SKEP_STATE_DIR", dir.path().join("state"))
            .env("SKEP_RUN_DIR", dir.path().join("run"))
            .env("SKEP_LOG_DIR", dir.path().join("logs"))
            .env("SKEP_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let mut server = Self { child, dir };
        let began = Instant::now();
        // Written when the server serves.
        while !server.kubeconfig().exists() {
            if let Some(status) = server.child.try_wait()? {
                bail!("skep server ended: {status}\n{}", server.log());
            }
            if began.elapsed() > START {
                bail!("skep server is not ready after {START:?}\n{}", server.log());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("state/kubeconfig/admin.conf")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- skep's log ---\n{}", self.log());
        }
        let asked = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        if !matches!(asked, Ok(Ok(()))) {
            eprintln!("skep could not be told to end: {asked:?}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("waiting for skep: {error}");
        }
    }
}
