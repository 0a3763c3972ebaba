//! From a request to a container that is ready to start: snapshot, users, specification, task.

use std::collections::HashMap;

use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    container::Runtime as ContainerRuntime,
    snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest},
};
use containerd_client::types;
use prost::Message as _;

use super::{ContainerRequest, record::request_labels};
use crate::{
    Error, Result, Runtime, labels,
    logger::LogTarget,
    rpc::{Named, SNAPSHOTTER, optional},
    spec::{
        self,
        user::{Accounts, layers_of},
    },
};

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const RUNTIME: &str = "io.containerd.runc.v2";

/// Options of the runc shim; containerd-client does not carry them.
#[derive(Clone, PartialEq, prost::Message)]
struct RuncOptions {
    #[prost(string, tag = "7")]
    root: String,
}

impl Runtime {
    /// Creates a container and its task. Creating the same attempt again replaces an unstarted one.
    pub async fn create_container(&self, request: &ContainerRequest) -> Result<()> {
        match self.try_create(request).await {
            Err(error) if error.is_already_exists() => {
                self.remove_container(&request.id).await?;
                self.try_create(request).await
            }
            other => other,
        }
    }

    async fn try_create(&self, request: &ContainerRequest) -> Result<()> {
        let mounts = self.prepare_rootfs(request).await?;
        let result = self.create_on(request, mounts).await;
        if result.as_ref().is_err_and(|e| !e.is_already_exists())
            && let Err(error) = self.remove_container(&request.id).await
        {
            tracing::warn!(container = request.id, %error, "leftovers of a failed creation");
        }
        result
    }

    async fn create_on(&self, request: &ContainerRequest, mounts: Vec<types::Mount>) -> Result<()> {
        let layers = mounts.first().map(|m| layers_of(&m.r#type, &m.source, &m.options)).unwrap_or_default();
        let accounts = Accounts::from_layers(&layers)?;
        let user = accounts.resolve(&request.image.config.user, &request.security)?;
        let document = spec::build(request, &user, &self.host);
        let options = RuncOptions { root: self.config.run_dir.join("runc").to_string_lossy().into_owned() };
        let container = Container {
            id: request.id.clone(),
            labels: request_labels(request),
            image: request.image.name.clone(),
            runtime: Some(ContainerRuntime { name: RUNTIME.to_owned(), options: Some(options.to_any()) }),
            spec: Some(prost_types::Any {
                type_url: SPEC_TYPE.to_owned(),
                value: document.to_string().into_bytes(),
            }),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: request.id.clone(),
            ..Default::default()
        };
        let create = self.rpc.request(CreateContainerRequest { container: Some(container) });
        self.rpc.containers().create(create).await.named("container create")?;

        let stdin = request.stdin.then(|| self.stdin_path(&request.id));
        if let Some(path) = &stdin {
            super::lifecycle::make_fifo(path)?;
        }
        let log = LogTarget {
            path: request.log_path.clone(),
            socket: Some(self.attach_path(&request.id)),
            tty: request.tty,
            max_size: self.config.log_max_size,
            max_files: self.config.log_max_files,
        };
        let uri = log.uri(&self.config.log_writer);
        let task = CreateTaskRequest {
            container_id: request.id.clone(),
            rootfs: mounts,
            stdin: stdin.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default(),
            stderr: if request.tty { String::new() } else { uri.clone() },
            stdout: uri,
            terminal: request.tty,
            options: Some(options.to_any()),
            ..Default::default()
        };
        self.rpc.tasks().create(self.rpc.request(task)).await.named("task create").map(drop)
    }

    async fn prepare_rootfs(&self, request: &ContainerRequest) -> Result<Vec<types::Mount>> {
        let prepare = self.rpc.request(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: request.id.clone(),
            parent: request.image.chain_id.clone(),
            labels: HashMap::from([(labels::GC_ROOT.to_owned(), jiff::Timestamp::now().to_string())]),
        });
        let prepared = self.rpc.snapshots().prepare(prepare).await.named("snapshot prepare");
        match prepared {
            Ok(answer) => Ok(answer.mounts),
            Err(error) if error.is_already_exists() => {
                let request = self
                    .rpc
                    .request(MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key: request.id.clone() });
                Ok(self.rpc.snapshots().mounts(request).await.named("snapshot mounts")?.mounts)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a container: its task (killed if need be), its record, its snapshot, its files.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        self.delete_task(id).await?;
        let delete = self.rpc.request(DeleteContainerRequest { id: id.to_owned() });
        optional(self.rpc.containers().delete(delete).await.named("container delete"))?;
        let remove = self
            .rpc
            .request(RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.to_owned() });
        optional(self.rpc.snapshots().remove(remove).await.named("snapshot remove"))?;
        for path in [self.stdin_path(id), self.attach_path(id)] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl RuncOptions {
    fn to_any(&self) -> prost_types::Any {
        prost_types::Any { type_url: "containerd.runc.v1.Options".to_owned(), value: self.encode_to_vec() }
    }
}
