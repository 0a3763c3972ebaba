//! Start, signal, wait, resize, list: the life of a container after its creation.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::services::v1::{
    CloseIoRequest, Container, DeleteTaskRequest, GetContainerRequest, GetRequest, KillRequest,
    ListContainersRequest, ListTasksRequest, ResizePtyRequest, StartRequest, UpdateContainerRequest,
    UpdateTaskRequest, WaitRequest,
};
use jiff::Timestamp;
use nix::sys::signal::Signal;

use super::{ContainerRecord, ContainerState, ExitRecord, record::timestamp};
use crate::{
    ContainerEvent, Error, Result, Runtime, labels,
    rpc::{Named, optional},
    spec::Resources,
};

const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

impl Runtime {
    /// Starts a created container and watches over it.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let start = self.rpc.request(StartRequest { container_id: id.to_owned(), exec_id: String::new() });
        let now = Timestamp::now();
        if let Err(error) = self.rpc.tasks().start(start).await.named("task start") {
            let exit = ExitRecord {
                code: 128,
                started_at: None,
                finished_at: now,
                oom: false,
                reason: Some("StartError".to_owned()),
                message: Some(error.to_string()),
            };
            self.label(id, labels::EXIT, serde_json::to_string(&exit).unwrap_or_default()).await?;
            self.delete_task(id).await?;
            return Err(error);
        }
        self.label(id, labels::STARTED_AT, now.to_string()).await?;
        self.watch(id.to_owned());
        Ok(())
    }

    async fn label(&self, id: &str, key: &str, value: String) -> Result<()> {
        let container = Container {
            id: id.to_owned(),
            labels: HashMap::from([(key.to_owned(), value)]),
            ..Default::default()
        };
        let update = self.rpc.request(UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(prost_types::FieldMask { paths: vec![format!("labels.{key}")] }),
        });
        optional(self.rpc.containers().update(update).await.named("container update")).map(drop)
    }

    /// Waits in the background for the container's end and writes it down.
    pub(crate) fn watch(&self, id: String) {
        let runtime = self.clone();
        self.tracker.spawn(async move {
            // Cancel-safe: an exit that was not written down is found again by the next agent.
            tokio::select! {
                () = runtime.cancel.cancelled() => {}
                () = runtime.wait_and_record(&id) => {}
            }
        });
    }

    async fn wait_and_record(&self, id: &str) {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.try_wait_and_record(id).await {
                Ok(Some(exit)) => {
                    let event = ContainerEvent { id: id.to_owned(), exit };
                    // Nobody listening is fine: the record is in the labels.
                    drop(self.events.send(event));
                    return;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(container = id, %error, "waiting again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    async fn try_wait_and_record(&self, id: &str) -> Result<Option<ExitRecord>> {
        let wait = self.rpc.request(WaitRequest { container_id: id.to_owned(), exec_id: String::new() });
        let waited = optional(self.rpc.tasks().wait(wait).await.named("task wait"))?;
        let Some(record) = self.container(id).await? else { return Ok(None) };
        let exit = match (record.state, waited) {
            // Written down already, or what is left when the task is gone.
            (ContainerState::Exited(exit), None) => exit,
            (state, Some(answer)) => {
                let started_at = match state {
                    ContainerState::Running { started_at, .. } => Some(started_at),
                    ContainerState::Exited(exit) => exit.started_at,
                    ContainerState::Created => None,
                };
                let code = i32::try_from(answer.exit_status).unwrap_or(255);
                let group = self.cgroup_of(id).await?;
                let oom = code == 137 && group.is_some_and(|g| self.hierarchies.usage(&g).oom_kills > 0);
                ExitRecord {
                    code,
                    started_at,
                    finished_at: timestamp(answer.exited_at),
                    oom,
                    reason: None,
                    message: None,
                }
            }
            (_, None) => return Ok(None),
        };
        self.label(id, labels::EXIT, serde_json::to_string(&exit).unwrap_or_default()).await?;
        self.delete_task(id).await?;
        Ok(Some(exit))
    }

    async fn cgroup_of(&self, id: &str) -> Result<Option<String>> {
        Ok(self.spec_of(id).await?.and_then(|s| s["linux"]["cgroupsPath"].as_str().map(str::to_owned)))
    }

    /// The specification a container was made with.
    pub(crate) async fn spec_of(&self, id: &str) -> Result<Option<serde_json::Value>> {
        let get = self.rpc.request(GetContainerRequest { id: id.to_owned() });
        let container = optional(self.rpc.containers().get(get).await.named("container get"))?;
        let Some(spec) = container.and_then(|c| c.container).and_then(|c| c.spec) else { return Ok(None) };
        serde_json::from_slice(&spec.value)
            .map(Some)
            .map_err(|e| Error::Invalid(format!("specification of {id}: {e}")))
    }

    /// Sends a signal to the container's first process; a container that is gone is fine.
    pub async fn kill(&self, id: &str, signal: Signal) -> Result<()> {
        let kill = self.rpc.request(KillRequest {
            container_id: id.to_owned(),
            signal: signal as u32,
            all: signal == Signal::SIGKILL,
            ..Default::default()
        });
        match optional(self.rpc.tasks().kill(kill).await.named("task kill")) {
            // The shim says so when the process has ended but is not deleted yet.
            Err(Error::Rpc { source, .. }) if source.message().contains("already finished") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Asks the container to stop, and kills it when it has not within `grace`.
    pub async fn stop(&self, id: &str, signal: Signal, grace: Duration) -> Result<()> {
        let wait = self.rpc.request(WaitRequest { container_id: id.to_owned(), exec_id: String::new() });
        let mut tasks = self.rpc.tasks();
        let ended = tasks.wait(wait);
        tokio::pin!(ended);
        if !grace.is_zero() {
            self.kill(id, signal).await?;
            if tokio::time::timeout(grace, &mut ended).await.is_ok() {
                return Ok(());
            }
        }
        self.kill(id, Signal::SIGKILL).await?;
        match tokio::time::timeout(Duration::from_secs(30), ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Timeout("killing the container")),
        }
    }

    /// Deletes the task, killing it first if it runs.
    pub(crate) async fn delete_task(&self, id: &str) -> Result<()> {
        for round in 0..100 {
            let delete = self.rpc.request(DeleteTaskRequest { container_id: id.to_owned() });
            match optional(self.rpc.tasks().delete(delete).await.named("task delete")) {
                Ok(_) => return Ok(()),
                Err(error) if error.still_runs() && round < 99 => {
                    self.kill(id, Signal::SIGKILL).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Timeout("deleting the task"))
    }

    /// One container.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerRecord>> {
        let get = self.rpc.request(GetContainerRequest { id: id.to_owned() });
        let answer = optional(self.rpc.containers().get(get).await.named("container get"))?;
        let Some(container) = answer.and_then(|a| a.container) else { return Ok(None) };
        let get = self.rpc.request(GetRequest { container_id: id.to_owned(), exec_id: String::new() });
        let task = optional(self.rpc.tasks().get(get).await.named("task get"))?.and_then(|t| t.process);
        Ok(ContainerRecord::new(&container, task.as_ref()))
    }

    /// All containers of ours.
    pub async fn containers(&self) -> Result<Vec<ContainerRecord>> {
        let list = self.rpc.request(ListContainersRequest { filters: Vec::new() });
        let containers = self.rpc.containers().list(list).await.named("container list")?.containers;
        let list = self.rpc.request(ListTasksRequest { filter: String::new() });
        let tasks = self.rpc.tasks().list(list).await.named("task list")?.tasks;
        let tasks: HashMap<_, _> = tasks.iter().map(|t| (t.id.as_str(), t)).collect();
        Ok(containers
            .iter()
            .filter_map(|c| ContainerRecord::new(c, tasks.get(c.id.as_str()).copied()))
            .collect())
    }

    /// Changes limits of a running container.
    pub async fn update_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        let update = self.rpc.request(UpdateTaskRequest {
            container_id: id.to_owned(),
            resources: Some(prost_types::Any {
                type_url: RESOURCES_TYPE.to_owned(),
                value: resources.to_json().to_string().into_bytes(),
            }),
            annotations: HashMap::new(),
        });
        self.rpc.tasks().update(update).await.named("task update").map(drop)
    }

    /// Changes the size of a terminal.
    pub async fn resize(&self, id: &str, exec_id: &str, width: u16, height: u16) -> Result<()> {
        let resize = self.rpc.request(ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            width: u32::from(width),
            height: u32::from(height),
        });
        self.rpc.tasks().resize_pty(resize).await.named("resize").map(drop)
    }

    /// Closes stdin for good.
    pub async fn close_stdin(&self, id: &str, exec_id: &str) -> Result<()> {
        let close = self.rpc.request(CloseIoRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            stdin: true,
        });
        optional(self.rpc.tasks().close_io(close).await.named("close stdin")).map(drop)
    }

    /// The FIFO of a container's stdin.
    #[must_use]
    pub fn stdin_path(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("io").join(format!("{id}.stdin"))
    }

    /// The socket on which the log writer serves raw output.
    #[must_use]
    pub fn attach_path(&self, id: &str) -> PathBuf {
        // Paths of sockets are limited to 107 bytes.
        self.config.run_dir.join("io").join(format!("{}.sock", &id[..id.len().min(20)]))
    }
}

pub(crate) fn make_fifo(path: &Path) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    }
    match nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::errno("make fifo", path)(errno)),
    }
}
