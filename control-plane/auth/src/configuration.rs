//! The configuration files of `apiserver.config.k8s.io/v1`: `AuthenticationConfiguration` and
//! `AuthorizationConfiguration`. Fields that ask for CEL are refused with a clear word: nothing is let in
//! by a rule that is not looked at.

use std::time::Duration;

use serde::Deserialize;

pub use authentication::Authentication;
pub use authorization::{Authorization, Mode, WebhookMode};

mod authentication;
mod authorization;

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

fn no_cel(at: &str) -> Error {
    Error::Content(format!("{at}: CEL expressions are not supported here"))
}

/// `5m`, `30s`.
fn duration(at: &str, text: &str) -> Result<Duration, Error> {
    skep_api::duration::parse(text)
        .ok_or_else(|| Error::Content(format!("{at}: Invalid value: {text:?}: no duration")))
}

/// A value that is there or absent, whatever it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
struct Any(serde_yaml::Value);

impl Any {
    fn is_empty(&self) -> bool {
        match &self.0 {
            serde_yaml::Value::Null => true,
            serde_yaml::Value::String(text) => text.is_empty(),
            serde_yaml::Value::Sequence(list) => list.is_empty(),
            serde_yaml::Value::Mapping(map) => map.is_empty(),
            _ => false,
        }
    }
}
