//! What the agent knows about a pod on its node: the input of every decision.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::jiff::Timestamp;

use crate::backoff::Backoff;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code.
    pub code: i32,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub reason: String,
    /// The termination message.
    pub message: String,
}

/// What an attempt is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Made, not started.
    Created,
    /// Running since.
    Running(Timestamp),
    /// Over.
    Exited(Exit),
}

/// One attempt of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Runtime id.
    pub id: String,
    /// Counting from 0: also the restart count.
    pub number: u32,
    /// What it does.
    pub run: Run,
    /// Image reference.
    pub image: String,
    /// `repository@digest`.
    pub image_id: String,
}

/// Why a container is not running, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: String,
    /// Details.
    pub message: String,
    /// Not before.
    pub retry_at: Timestamp,
}

/// One container of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The newest attempt.
    pub attempt: Option<Attempt>,
    /// The attempt before it.
    pub previous: Option<Attempt>,
    /// Why the next attempt has not started.
    pub hindrance: Option<Hindrance>,
    /// Restarts in a row.
    pub backoff: Backoff,
    /// Failed tries to get the image or to create the container, in a row.
    pub tries: Backoff,
    /// The startup probe passed (or there is none), for the newest attempt.
    pub started: bool,
    /// The readiness probe passes (or there is none).
    pub ready: bool,
    /// A liveness or startup probe demands a restart.
    pub unhealthy: Option<String>,
}

impl Container {
    /// How the newest attempt runs.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        self.attempt.as_ref().map(|a| &a.run)
    }

    /// The newest attempt runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.run(), Some(Run::Running(_)))
    }

    /// How the newest attempt ended.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match self.run() {
            Some(Run::Exited(exit)) => Some(exit),
            _ => None,
        }
    }
}

/// Everything about one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The pod's addresses, once its network is up.
    pub network: Option<Vec<IpAddr>>,
    /// Its volumes are in place.
    pub volumes: bool,
    /// Why the network or the volumes are not there.
    pub hindrance: Option<Hindrance>,
    /// Containers of all sorts, by name.
    pub containers: BTreeMap<String, Container>,
    /// The start of some container is under way.
    pub starting: bool,
    /// Nothing is left on the node.
    pub cleaned: bool,
}

impl Observed {
    /// What is known of a container; nothing, when nothing is.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.get(name)
    }

    /// Any container runs.
    #[must_use]
    pub fn any_running(&self) -> bool {
        self.containers.values().any(Container::is_running)
    }
}
