//! What pods are given by their node: `tests/pods/*.yaml`, each a set of pods that say what they see.
//!
//! A file's first document holds what is expected, the others are the objects. All files are applied at once, each in
//! a namespace of its own: the cluster is what costs time, and the pods run beside one another.

mod changes;
mod logs;
mod replicas;
mod tokens;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cluster::{Cluster, Store};
use crate::tools::{eventually, workspace};

/// How long pods may take that wait for nothing, in seconds: many start at once.
const PATIENCE: u64 = 60;

/// What a file expects of its pods.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The behaviours that hold when it comes true; read by `cargo xtask conformance`.
    #[serde(rename = "holds")]
    _holds: Vec<String>,
    /// The phase that each pod comes to.
    phases: BTreeMap<String, String>,
    /// What a container (`POD` or `POD/CONTAINER`) has said in the end.
    #[serde(default)]
    logs: BTreeMap<String, String>,
    /// By pod: JSON paths and what is found there.
    #[serde(default)]
    fields: BTreeMap<String, BTreeMap<String, String>>,
}

struct File {
    name: String,
    expected: Expected,
}

/// One cluster for all of it.
pub(crate) fn run() -> Result<()> {
    let mut cluster = Cluster::start(Store::Embedded)?;
    let files = apply(&cluster)?;
    replicas::run(&cluster)?;
    tokens::run(&cluster)?;
    logs::run(&cluster)?;
    changes::run(&cluster)?;
    let wrong: Vec<String> = files
        .iter()
        .filter_map(|file| {
            check(&cluster, file).err().map(|error| format!("tests/pods/{}.yaml: {error:#}", file.name))
        })
        .collect();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n\n"));
    }
    cluster.stop()
}

fn apply(cluster: &Cluster) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let folder = workspace().join("tests/pods");
    let mut paths = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        files.push(apply_one(cluster, &path).with_context(|| path.display().to_string())?);
    }
    if files.is_empty() {
        bail!("{} is empty", folder.display());
    }
    Ok(files)
}

fn apply_one(cluster: &Cluster, path: &Path) -> Result<File> {
    let name = path.file_stem().and_then(|stem| stem.to_str()).context("no name")?.to_owned();
    let text = std::fs::read_to_string(path)?;
    let (expected, objects) = text.split_once("\n---\n").context("no objects")?;
    let expected: Expected = serde_yaml::from_str(expected)?;
    cluster.kubectl(&format!("create namespace {name}"))?;
    let manifest = cluster.manifest(&format!("{name}.yaml"), objects)?;
    cluster.kubectl(&format!("apply -n {name} -f {}", manifest.display()))?;
    Ok(File { name, expected })
}

fn check(cluster: &Cluster, file: &File) -> Result<()> {
    let (namespace, expected) = (&file.name, &file.expected);
    let mut wrong = Vec::new();
    let phases = expected.phases.iter().map(|(pod, phase)| (pod, ".status.phase", phase));
    let fields = expected.fields.iter();
    let fields =
        fields.flat_map(|(pod, fields)| fields.iter().map(move |(path, value)| (pod, path.as_str(), value)));
    for (pod, path, value) in phases.chain(fields) {
        if let Err(error) = reads(cluster, namespace, pod, path, value) {
            wrong.push(format!("{error:#}"));
        }
    }
    for (container, text) in &expected.logs {
        let (pod, container) = container
            .split_once('/')
            .map_or((container.as_str(), String::new()), |(pod, name)| (pod, format!(" -c {name}")));
        let found = cluster.kubectl(&format!("logs -n {namespace} {pod}{container}"))?;
        if found.trim_end() != text.trim_end() {
            wrong.push(format!("{pod}{container} says\n{found}\nexpected\n{text}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

fn reads(cluster: &Cluster, namespace: &str, pod: &str, path: &str, value: &str) -> Result<()> {
    eventually(&format!("{namespace}/{pod}: {path} is {value}"), PATIENCE, || {
        let found = field(cluster, namespace, pod, path)?;
        if found != value {
            bail!("{found:?}\n{}", cluster.kubectl(&format!("describe pod -n {namespace} {pod}"))?);
        }
        Ok(())
    })
    .map(drop)
}

/// What is at a JSON path of a pod.
fn field(cluster: &Cluster, namespace: &str, pod: &str, path: &str) -> Result<String> {
    cluster.kubectl(&format!("get pod -n {namespace} {pod} -o jsonpath={{{path}}}"))
}
