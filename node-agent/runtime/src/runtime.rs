//! The handle on the container runtime: configuration, start, images.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ContainerState, Error, Keyring, Reference, Result,
    cgroup::Hierarchies,
    container::ExitRecord,
    daemon::Daemon,
    image::{
        self, Image,
        registry::{RegistryClient, RegistryOptions},
    },
    rpc::Rpc,
    spec::Host,
};

/// Where the runtime lives and how it behaves.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// An existing containerd to use; none starts our own.
    pub socket: Option<PathBuf>,
    /// The containerd program of our own; none looks in `$PATH`.
    pub program: Option<PathBuf>,
    /// Content and snapshots of our own containerd.
    pub root: PathBuf,
    /// Sockets, namespace pins, FIFOs: a folder on a tmpfs.
    pub run_dir: PathBuf,
    /// containerd's namespace.
    pub namespace: String,
    /// The program that writes logs: it must call [`crate::logger_main`] for the subcommand
    /// [`crate::LOG_WRITER_COMMAND`]. Usually our own executable.
    pub log_writer: PathBuf,
    /// A log file is rotated at this size.
    pub log_max_size: u64,
    /// Files kept per log.
    pub log_max_files: usize,
    /// Registries.
    pub registries: RegistryOptions,
}

impl RuntimeConfig {
    /// The defaults below these folders.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            socket: None,
            program: None,
            root: root.into(),
            run_dir: run_dir.into(),
            namespace: "skep".to_owned(),
            log_writer: PathBuf::from("/proc/self/exe"),
            log_max_size: 10 << 20,
            log_max_files: 5,
            registries: RegistryOptions::default(),
        }
    }

    pub(crate) fn daemon(&self) -> Daemon {
        let program = self
            .program
            .clone()
            .or_else(|| crate::daemon::find_program("containerd"))
            .unwrap_or_else(|| PathBuf::from("containerd"));
        Daemon { program, root: self.root.clone(), run: self.run_dir.join("containerd") }
    }
}

/// A container ended.
#[derive(Clone, Debug)]
pub struct ContainerEvent {
    /// Which one.
    pub id: String,
    /// How.
    pub exit: ExitRecord,
}

/// A cheap, cloneable handle.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) rpc: Rpc,
    pub(crate) config: Arc<RuntimeConfig>,
    pub(crate) host: Arc<Host>,
    pub(crate) hierarchies: Arc<Hierarchies>,
    pub(crate) registries: RegistryClient,
    pub(crate) events: broadcast::Sender<ContainerEvent>,
    pub(crate) tracker: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("run_dir", &self.config.run_dir).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Connects to containerd, starting or adopting our own when no socket was given, and resumes watching
    /// the containers that run. Tasks end with `cancel`; containerd and containers stay.
    pub async fn start(
        mut config: RuntimeConfig,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self> {
        // The shim executes this path later and elsewhere: it must not depend on the process.
        config.log_writer =
            std::fs::canonicalize(&config.log_writer).map_err(Error::io("resolve", &config.log_writer))?;
        let daemon = config.daemon();
        let socket = config.socket.clone().unwrap_or_else(|| daemon.socket());
        let io = config.run_dir.join("io");
        std::fs::create_dir_all(&io).map_err(Error::io("create", &io))?;
        std::fs::create_dir_all(&daemon.run).map_err(Error::io("create", &daemon.run))?;
        let rpc = Rpc::new(&socket, &config.namespace)?;
        if config.socket.is_none() {
            daemon.ensure(&rpc).await?;
            let (rpc, cancel) = (rpc.clone(), cancel.clone());
            tracker.spawn(async move { daemon.supervise(&rpc, cancel).await });
        }
        let runtime = Self {
            rpc,
            host: Arc::new(Host::probe()?),
            hierarchies: Arc::new(Hierarchies::probe()?),
            registries: RegistryClient::new(config.registries.clone())?,
            config: Arc::new(config),
            events: broadcast::channel(1024).0,
            tracker,
            cancel,
        };
        for record in runtime.containers().await? {
            // An exit that nobody wrote down is written down by the watcher too.
            if !matches!(record.state, ContainerState::Created) {
                runtime.watch(record.id);
            }
        }
        Ok(runtime)
    }

    /// Ends of containers from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }

    /// The control groups of this machine.
    #[must_use]
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// The configuration in use.
    #[must_use]
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// containerd's version.
    pub async fn version(&self) -> Result<String> {
        use crate::rpc::Named as _;
        Ok(self.rpc.version().version(()).await.named("version")?.version)
    }

    /// The image, if it is there.
    pub async fn image(&self, reference: &Reference) -> Result<Option<Image>> {
        image::store_get(&self.rpc, reference).await
    }

    /// Pulls the image from its registry, whether it is there or not.
    pub async fn pull(&self, reference: &Reference, keyring: &Keyring) -> Result<Image> {
        image::pull::pull(&self.rpc, &self.registries, reference, keyring).await
    }

    /// Imports an OCI layout from disk under a name.
    pub async fn import(&self, layout: &Path, reference: &Reference) -> Result<Image> {
        image::layout::import(&self.rpc, layout, reference).await
    }

    /// All images that can be run.
    pub async fn images(&self) -> Result<Vec<Image>> {
        image::store_list(&self.rpc).await
    }

    /// Removes an image's name; its content goes when nothing else needs it.
    pub async fn remove_image(&self, name: &str) -> Result<()> {
        image::store_remove(&self.rpc, name).await
    }

    /// Now, for records.
    #[must_use]
    pub fn now() -> Timestamp {
        Timestamp::now()
    }
}
