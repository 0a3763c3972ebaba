//! Where a cluster keeps its state. All folders are options, so that several nodes live on one machine.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

/// The folders of one node or server.
#[derive(Args, Clone, Debug)]
pub(crate) struct Folders {
    /// What must survive a reboot: the store, certificates, images, volumes.
    #[arg(long, env = "SKEP_STATE_DIR", default_value = "/var/lib/skep", value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// What lives until a reboot: sockets and pod namespaces.
    #[arg(long, env = "SKEP_RUN_DIR", default_value = "/run/skep", value_name = "DIR")]
    pub(crate) run_dir: PathBuf,
    /// Where eBPF maps and links are pinned.
    #[arg(long, env = "SKEP_PIN_DIR", default_value = "/sys/fs/bpf/skep", value_name = "DIR")]
    pub(crate) pin_dir: PathBuf,
    /// Where container logs go.
    #[arg(long, env = "SKEP_LOG_DIR", default_value = "/var/log/pods", value_name = "DIR")]
    pub(crate) log_dir: PathBuf,
}

impl Folders {
    /// Takes the folders for this process; they are free again when the file is closed, also by a crash.
    pub(crate) fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.state_dir)
            .with_context(|| format!("making {}", self.state_dir.display()))?;
        let path = self.state_dir.join("lock");
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!("skep is running with the state folder {}; stop it first", self.state_dir.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
    }

    /// Certificates and keys.
    pub(crate) fn pki(&self) -> PathBuf {
        self.state_dir.join("server/pki")
    }

    /// The embedded store.
    pub(crate) fn store(&self) -> PathBuf {
        self.state_dir.join("server/store.redb")
    }

    /// The node agent's state.
    pub(crate) fn agent(&self) -> PathBuf {
        self.state_dir.join("agent")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.state_dir.join("kubeconfig/admin.conf")
    }
}
