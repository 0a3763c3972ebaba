//! What xtask has made for the machines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use serde::Deserialize;

/// `target/vm/plan.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Plan {
    /// By series.
    pub(crate) kernels: BTreeMap<String, Kernel>,
    /// The disk that machines have as their root.
    pub(crate) base: PathBuf,
    /// The disk with what is under test.
    pub(crate) payload: PathBuf,
    /// Folders that the payload holds, seen in a machine where they are here.
    pub(crate) binds: Vec<PathBuf>,
    /// Test programs by the names of cargo's targets.
    pub(crate) binaries: BTreeMap<String, PathBuf>,
}

/// One kernel.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Cargo's output folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

impl Plan {
    pub(crate) fn read() -> Result<Self> {
        let path = target().join("vm/plan.json");
        let text = fs::read(&path).with_context(|| {
            format!("{} is missing: run this by `cargo xtask test --vm KERNEL`", path.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    pub(crate) fn kernel(&self, series: &str) -> Result<&Kernel> {
        self.kernels.get(series).with_context(|| {
            format!("kernel {series} was not made ready: run this by `cargo xtask test --vm {series}`")
        })
    }
}
