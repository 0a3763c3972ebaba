//! Manifests, indexes and configurations: the documents an image is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ImageConfig;
use crate::{Error, Result};

/// Media types that are asked for.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";
/// No manifest or config is larger.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// An image may not have more layers (overlayfs itself takes fewer than 500 lower folders).
pub const MAX_LAYERS: usize = 256;

/// A pointer to a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: i64,
    /// For which platform, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An operating system and an architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// Architecture in Go's spelling.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// For example `v7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest or an index: which one depends on the fields that are there.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Media type, if the document says it.
    #[serde(default)]
    pub media_type: String,
    /// The entries of an index.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The configuration of a manifest.
    pub config: Option<Descriptor>,
    /// The layers of a manifest.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// A configuration blob.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigDocument {
    /// How to run it.
    #[serde(default)]
    pub config: Option<ImageConfig>,
    /// Digests of the uncompressed layers.
    pub rootfs: RootFs,
}

/// The layers, uncompressed.
#[derive(Clone, Debug, Deserialize)]
pub struct RootFs {
    /// In order from the base.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// The architecture of this machine in Go's spelling.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "x86" => "386",
        other => other,
    }
}

impl Document {
    /// Parses and checks a document.
    pub fn parse(image: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |message: String| Error::BadImage { image: image.to_owned(), message };
        let document: Self =
            serde_json::from_slice(bytes).map_err(|e| bad(format!("malformed manifest: {e}")))?;
        if document.layers.len() > MAX_LAYERS || document.manifests.len() > 1024 {
            return Err(bad("too many layers or platforms".to_owned()));
        }
        let all = document.layers.iter().chain(&document.manifests).chain(&document.config);
        for descriptor in all {
            if !super::reference::is_digest(&descriptor.digest) || descriptor.size < 0 {
                return Err(bad(format!("malformed descriptor {}", descriptor.digest)));
            }
        }
        Ok(document)
    }

    /// For an index: the manifest for this machine. `None` for a manifest.
    pub fn select(&self, image: &str) -> Result<Option<&Descriptor>> {
        if self.config.is_some() {
            return Ok(None);
        }
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture())
        };
        // An index of one entry without a platform is what small tools write.
        let lone =
            (self.manifests.len() == 1 && self.manifests[0].platform.is_none()).then(|| &self.manifests[0]);
        self.manifests.iter().find(fits).or(lone).map(Some).ok_or_else(|| Error::BadImage {
            image: image.to_owned(),
            message: format!("no manifest for linux/{}", architecture()),
        })
    }
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The names of the snapshots of a stack of layers, base first.
#[must_use]
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            Some(parent) => digest_of(format!("{parent} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_yields_this_machine() {
        let digest = |c: &str| format!("sha256:{}", c.repeat(64));
        let entry = |arch: &str, c| serde_json::json!({"digest": digest(c), "size": 1, "platform": {"os": "linux", "architecture": arch}});
        let index = serde_json::json!({"manifests": [entry("s390x", "a"), entry(architecture(), "b")]});
        let document = Document::parse("x", index.to_string().as_bytes()).unwrap();
        assert_eq!(document.select("x").unwrap().unwrap().digest, digest("b"));
        let none = serde_json::json!({"manifests": [entry("s390x", "a"), entry("mips", "b")]});
        assert!(Document::parse("x", none.to_string().as_bytes()).unwrap().select("x").is_err());
    }

    #[test]
    fn chains_hash_the_parent_and_the_layer() {
        let ids = chain_ids(&["sha256:1".to_owned(), "sha256:2".to_owned()]);
        assert_eq!(ids[0], "sha256:1");
        assert_eq!(ids[1], digest_of(b"sha256:1 sha256:2"));
        assert!(chain_ids(&[]).is_empty());
    }
}
