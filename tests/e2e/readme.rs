//! The commands of the README's first steps, taken from the README itself, end with a request
//! answered through a virtual address.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, Store};
use crate::tools::{expect_in, read, workspace};

/// Marks the block of shell commands in the README.
const BEGIN: &str = "<!-- first steps: run by the end-to-end test -->\n```sh\n";

/// The test.
pub(crate) fn run() -> Result<()> {
    let readme = fs::read_to_string(workspace().join("README.md"))?;
    let (_, rest) = readme.split_once(BEGIN).context("the README has no first steps")?;
    let (commands, _) = rest.split_once("```").context("the README's first steps do not end")?;
    let mut cluster = Cluster::bare(Store::Embedded)?;
    // The commands that stay in the foreground are what the cluster's harness starts.
    for foreground in ["cargo xtask up", "cargo xtask registry"] {
        expect_in(&readme, foreground)?;
    }
    cluster.start_registry()?;
    cluster.up()?;
    let output =
        read(cluster.inside("bash").args(["-euo", "pipefail", "-c", commands]).stdin(Stdio::null()))?;
    let answer = output.lines().last().unwrap_or_default().to_owned();
    if !answer.starts_with("web-") {
        bail!("the last command's answer is {answer:?}, not a pod's name\n{output}");
    }
    cluster.stop()
}
