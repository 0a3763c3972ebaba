//! A container as containerd remembers it.

use std::{collections::HashMap, path::PathBuf};

use containerd_client::{
    services::v1::Container,
    types::v1::{Process, Status},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PodIdentity;
use crate::labels;

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// When it started, if it did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The kernel killed it for lack of memory.
    pub oom: bool,
    /// Why, when the process itself is not the reason (`StartError`, `ContainerStatusUnknown`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// More about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running {
        /// Its process.
        pid: u32,
        /// Since when.
        started_at: Timestamp,
    },
    /// Over.
    Exited(ExitRecord),
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Id.
    pub id: String,
    /// Its pod.
    pub pod: PodIdentity,
    /// Name in the pod.
    pub name: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// Reference of the image.
    pub image: String,
    /// `repository@digest`.
    pub image_digest: String,
    /// Log file.
    pub log_path: PathBuf,
    /// Has a terminal.
    pub tty: bool,
    /// Keeps stdin open.
    pub stdin: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it does.
    pub state: ContainerState,
}

pub(crate) fn timestamp(time: Option<prost_types::Timestamp>) -> Timestamp {
    time.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl ContainerRecord {
    /// From containerd's container and its task. `None` when it is not one of ours.
    pub(crate) fn new(container: &Container, task: Option<&Process>) -> Option<Self> {
        let label = |key: &str| container.labels.get(key).cloned();
        let created_at = timestamp(container.created_at);
        let started = label(labels::STARTED_AT).and_then(|t| t.parse::<Timestamp>().ok());
        let exit = label(labels::EXIT).and_then(|text| serde_json::from_str::<ExitRecord>(&text).ok());
        let state = match (exit, task) {
            (Some(exit), _) => ContainerState::Exited(exit),
            (None, Some(task)) => match task.status() {
                Status::Created | Status::Unknown => ContainerState::Created,
                Status::Stopped => ContainerState::Exited(ExitRecord {
                    code: i32::try_from(task.exit_status).unwrap_or(255),
                    started_at: started,
                    finished_at: timestamp(task.exited_at),
                    oom: false,
                    reason: None,
                    message: None,
                }),
                Status::Running | Status::Paused | Status::Pausing => {
                    ContainerState::Running { pid: task.pid, started_at: started.unwrap_or(created_at) }
                }
            },
            // It was started and its shim is gone without a word: the machine was rebooted, or worse.
            (None, None) if started.is_some() => ContainerState::Exited(ExitRecord {
                code: 137,
                started_at: started,
                finished_at: timestamp(container.updated_at),
                oom: false,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the agent looked for it".to_owned()),
            }),
            (None, None) => ContainerState::Created,
        };
        Some(Self {
            id: container.id.clone(),
            pod: PodIdentity {
                uid: label(labels::POD_UID)?,
                namespace: label(labels::POD_NAMESPACE).unwrap_or_default(),
                name: label(labels::POD_NAME).unwrap_or_default(),
            },
            name: label(labels::CONTAINER_NAME)?,
            attempt: label(labels::ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(0),
            image: container.image.clone(),
            image_digest: label(labels::IMAGE_DIGEST).unwrap_or_default(),
            log_path: label(labels::LOG_PATH).unwrap_or_default().into(),
            tty: container.labels.contains_key(labels::TTY),
            stdin: container.labels.contains_key(labels::STDIN),
            created_at,
            state,
        })
    }

    /// The process, while running.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            ContainerState::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn exit(&self) -> Option<&ExitRecord> {
        match &self.state {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

pub(crate) fn request_labels(request: &super::ContainerRequest) -> HashMap<String, String> {
    let mut all = HashMap::from([
        (labels::POD_UID.to_owned(), request.pod.uid.clone()),
        (labels::POD_NAMESPACE.to_owned(), request.pod.namespace.clone()),
        (labels::POD_NAME.to_owned(), request.pod.name.clone()),
        (labels::CONTAINER_NAME.to_owned(), request.name.clone()),
        (labels::ATTEMPT.to_owned(), request.attempt.to_string()),
        (labels::IMAGE_DIGEST.to_owned(), request.image.repo_digest()),
        (labels::LOG_PATH.to_owned(), request.log_path.to_string_lossy().into_owned()),
    ]);
    for (flag, key) in [(request.tty, labels::TTY), (request.stdin, labels::STDIN)] {
        if flag {
            all.insert(key.to_owned(), "true".to_owned());
        }
    }
    all
}
