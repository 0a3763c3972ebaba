//! Images: references, registries, pulling, unpacking, and what is in the store.
//!
//! An image in the store is complete: it is named only after its content is verified and its layers are
//! unpacked, and garbage collection labels tie name -> manifest -> config, layers and snapshots together.

pub mod auth;
pub mod layout;
pub mod manifest;
pub mod pull;
pub mod reference;
pub mod registry;

mod content;
mod store;
mod unpack;

use serde::{Deserialize, Serialize};

pub(crate) use store::{get as store_get, list as store_list, names as store_names, remove as store_remove};

/// An image that is unpacked and can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The full name it is stored under.
    pub name: String,
    /// Digest of what the name points at (index or manifest).
    pub digest: String,
    /// Digest of the configuration: the image id.
    pub id: String,
    /// Name of the topmost committed snapshot; empty for an image without layers.
    pub chain_id: String,
    /// Bytes of manifest, config and layers as stored.
    pub size: u64,
    /// What the image says about how to run it.
    pub config: ImageConfig,
}

impl Image {
    /// `repository@digest`, as `imageID` shows it.
    #[must_use]
    pub fn repo_digest(&self) -> String {
        match reference::Reference::parse(&self.name) {
            Ok(r) => format!("{}/{}@{}", r.host, r.repository, self.digest),
            Err(_) => self.digest.clone(),
        }
    }
}

/// The part of an image's configuration that matters at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// `user[:group]`.
    pub user: String,
    /// `NAME=value` pairs.
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// Program and leading arguments.
    #[serde(deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    /// Default arguments.
    #[serde(deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Signal that asks the program to stop.
    pub stop_signal: String,
}

fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}
