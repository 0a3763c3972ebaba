//! Our own containerd: configuration, start, adoption, restart when it dies.
//!
//! containerd outlives the agent: it is started in its own session and its pid is on disk, so that the
//! next agent adopts it. Containers outlive containerd in turn, since their shims do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{sys::signal, unistd::Pid};
use tokio::{process::Command, time};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Result,
    rpc::{Named, Rpc},
};

const POLL: Duration = Duration::from_millis(20);
const START_TIMEOUT: Duration = Duration::from_secs(20);
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Where our containerd lives.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The program, usually `containerd`.
    pub program: PathBuf,
    /// Content and snapshots: survives a reboot.
    pub root: PathBuf,
    /// Socket, pid, runtime state: on a tmpfs.
    pub run: PathBuf,
}

impl Daemon {
    /// The gRPC socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    fn pid_file(&self) -> PathBuf {
        self.run.join("containerd.pid")
    }

    fn config_file(&self) -> PathBuf {
        self.run.join("config.toml")
    }

    /// The configuration: only the plug-ins that native clients need.
    fn config(&self) -> String {
        let quote = |path: PathBuf| serde_json::Value::from(path.to_string_lossy().into_owned()).to_string();
        let disabled = [
            "io.containerd.grpc.v1.cri",
            "io.containerd.internal.v1.opt",
            "io.containerd.internal.v1.restart",
            "io.containerd.internal.v1.tracing",
            "io.containerd.tracing.processor.v1.otlp",
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs",
        ]
        .map(|name| format!("\"{name}\""))
        .join(", ");
        format!(
            "version = 2\nroot = {}\nstate = {}\ndisabled_plugins = [{disabled}]\n\n[grpc]\n  address = {}\n  \
             max_recv_message_size = 16777216\n  max_send_message_size = 67108864\n\n[debug]\n  level = \"warn\"\n",
            quote(self.root.join("root")),
            quote(self.run.join("state")),
            quote(self.socket()),
        )
    }

    /// The pid of a running containerd of ours, if there is one.
    #[must_use]
    pub fn running(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        // A recycled pid must not be adopted: the command line names our configuration.
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config_file();
        let ours = arguments.split(|b| *b == 0).any(|a| a == config.as_os_str().as_encoded_bytes());
        let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .is_none_or(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')));
        (ours && !zombie).then(|| Pid::from_raw(pid))
    }

    fn start(&self) -> Result<()> {
        for dir in [self.root.join("root"), self.run.join("state")] {
            fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        }
        let config = self.config_file();
        fs::write(&config, self.config()).map_err(Error::io("write", &config))?;
        // A stale socket would let a client connect to nobody.
        match fs::remove_file(self.socket()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", self.socket())(e));
            }
            _ => {}
        }
        let log_path = self.root.join("containerd.log");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(Error::io("open", &log_path))?;
        let log_too = log.try_clone().map_err(Error::io("clone", &log_path))?;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            // Its own group: an interrupt typed at the agent's terminal must not reach it.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(Error::io("start", &self.program))?;
        let pid = child.id().ok_or_else(|| Error::Daemon("exited at once".to_owned()))?;
        // Dropping the child leaves it to tokio's reaper, which collects it when it dies.
        drop(child);
        fs::write(self.pid_file(), pid.to_string()).map_err(Error::io("write", self.pid_file()))
    }

    async fn ready(&self, rpc: &Rpc) -> Result<String> {
        let wait = async {
            let mut missing = 0;
            loop {
                if let Ok(version) = rpc.version().version(()).await.named("version") {
                    return Ok(version.version);
                }
                // A process in the middle of exec has no command line for a moment.
                missing = if self.running().is_some() { 0 } else { missing + 1 };
                if missing > 25 {
                    let log = self.root.join("containerd.log");
                    return Err(Error::Daemon(format!("died at start; see {}", log.display())));
                }
                time::sleep(POLL).await;
            }
        };
        time::timeout(START_TIMEOUT, wait).await.map_err(|_| Error::Timeout("starting containerd"))?
    }

    /// Adopts the running containerd or starts one, and waits until it answers.
    pub(crate) async fn ensure(&self, rpc: &Rpc) -> Result<()> {
        let adopted = self.running().is_some();
        if !adopted {
            self.start()?;
        }
        let version = self.ready(rpc).await?;
        tracing::info!(version, adopted, socket = %self.socket().display(), "containerd answers");
        Ok(())
    }

    /// Restarts containerd whenever it dies, until cancelled; leaves it running then.
    pub(crate) async fn supervise(&self, rpc: &Rpc, cancel: CancellationToken) {
        loop {
            // Cancel-safe: both arms are pure waits.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = time::sleep(RESTART_PAUSE) => {}
            }
            // Asked twice: see `ready`.
            if self.running().is_some() || self.running().is_some() {
                continue;
            }
            tracing::warn!("containerd died; starting it again");
            if let Err(error) = self.ensure(rpc).await {
                tracing::error!(%error, "containerd cannot be started");
                time::sleep(Duration::from_secs(2)).await;
            }
        }
    }

    /// Ends containerd: SIGTERM, then SIGKILL.
    pub async fn stop(&self) -> Result<()> {
        for kind in [signal::Signal::SIGTERM, signal::Signal::SIGKILL] {
            let Some(pid) = self.running() else { return Ok(()) };
            match signal::kill(pid, kind) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(Error::errno("kill", self.pid_file())(errno)),
            }
            for _ in 0..150 {
                if self.running().is_none() {
                    return Ok(());
                }
                time::sleep(POLL).await;
            }
        }
        Err(Error::Daemon("does not die".to_owned()))
    }
}

/// Finds a program in `$PATH` and the usual folders.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| is_file(candidate))
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file())
}
