//! containerd, natively: images, containers, logs and exec.
//!
//! The runtime keeps no state of its own. What exists is what containerd says exists, what a container
//! was made for is in its labels, and an exit is written back into the labels before the task is deleted.
//! So an agent that was killed finds everything again, and containers run on while it is away.
//!
//! Tasks: one supervisor of the containerd process ([`daemon`]), one waiter per running container
//! ([`container`]), both owned by [`Runtime`] and ended by its cancellation token.

pub mod cgroup;
pub mod container;
pub mod credentials;
pub mod daemon;
pub mod exec;
pub mod image;
pub mod logs;
pub mod purge;
pub mod sandbox;
pub mod spec;

mod error;
mod labels;
mod logger;
mod rpc;
mod runtime;

pub use container::{ContainerRecord, ContainerRequest, ContainerState, ExitRecord};
pub use credentials::{Credential, Keyring};
pub use error::{Error, Result};
pub use exec::{ExecRequest, ExecSession};
pub use image::{Image, ImageConfig, reference::Reference};
pub use logger::{LOG_WRITER_COMMAND, logger_main};
pub use runtime::{ContainerEvent, Runtime, RuntimeConfig};
