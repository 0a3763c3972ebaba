//! The configuration files of `apiserver.config.k8s.io/v1`: `AuthenticationConfiguration` and
//! `AuthorizationConfiguration`; and following them while the server runs. What is wrong with a file is said
//! at once and in full, in upstream's words.

pub use authentication::Authentication;
pub use authorization::{Authorization, Mode, WebhookMode};
pub use follow::{Reloads, follow};

mod authentication;
mod authorization;
mod follow;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("the configuration can't be read: {0}")]
    Read(#[from] serde_yaml::Error),
    /// It says something that can't be done.
    #[error("{0}")]
    Content(String),
}

fn check(kind: &str, version: &str, wanted: &str) -> Result<(), Error> {
    let known = matches!(
        version,
        "apiserver.config.k8s.io/v1" | "apiserver.config.k8s.io/v1beta1" | "apiserver.config.k8s.io/v1alpha1"
    );
    if kind == wanted && known {
        return Ok(());
    }
    Err(Error::Content(format!("it is a {kind} of {version}, not a {wanted} of apiserver.config.k8s.io/v1")))
}
