//! Containers: what is asked for, what is there, and the way from one to the other.

mod create;
mod lifecycle;
mod record;

use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub(crate) use lifecycle::make_fifo;
pub use record::{ContainerRecord, ContainerState, ExitRecord};

use crate::{
    Image,
    spec::{Mount, Namespaces, Resources, Security},
};

/// The pod a container belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// Uid.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Everything needed to create a container.
#[derive(Clone, Debug)]
pub struct ContainerRequest {
    /// From [`container_id`].
    pub id: String,
    /// Of which pod.
    pub pod: PodIdentity,
    /// Name in the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// The unpacked image.
    pub image: Image,
    /// The whole command line.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty: `/`.
    pub working_dir: String,
    /// Volumes and files of the agent.
    pub mounts: Vec<Mount>,
    /// Pod-wide `/dev/shm`.
    pub shm: Option<PathBuf>,
    /// Rights.
    pub security: Security,
    /// Limits.
    pub resources: Resources,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// The pod's control group, absolute.
    pub cgroup: String,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: Vec<(String, Value)>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep stdin open.
    pub stdin: bool,
    /// Where the log goes.
    pub log_path: PathBuf,
}

/// The id of one attempt of a container: the same for the same attempt, so creation can be repeated.
#[must_use]
pub fn container_id(pod_uid: &str, name: &str, attempt: u32) -> String {
    let hash = Sha256::digest(format!("{pod_uid}/{name}/{attempt}"));
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(name: &str) -> ContainerRequest {
        let image = Image {
            name: "x".into(),
            digest: String::new(),
            id: String::new(),
            chain_id: String::new(),
            size: 0,
            config: crate::ImageConfig::default(),
        };
        ContainerRequest {
            id: container_id("u", name, 0),
            pod: PodIdentity { uid: "u".into(), namespace: "ns".into(), name: "p".into() },
            name: name.into(),
            attempt: 0,
            image,
            args: vec!["sh".into()],
            env: vec!["PATH=/bin".into()],
            working_dir: String::new(),
            mounts: vec![],
            shm: None,
            security: Security::default(),
            resources: Resources::default(),
            namespaces: Namespaces::default(),
            cgroup: "/skep/podu".into(),
            sysctls: vec![],
            tty: false,
            stdin: false,
            log_path: "/tmp/0.log".into(),
        }
    }

    #[test]
    fn ids_differ_by_attempt_and_fit() {
        let id = container_id("u", "c", 0);
        assert_eq!(id.len(), 64);
        assert_ne!(id, container_id("u", "c", 1));
        assert_eq!(id, container_id("u", "c", 0));
    }
}
