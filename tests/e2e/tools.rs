//! What the steps are written with: running programs, waiting, saying what went wrong.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
pub(crate) use skep_tests::{eventually, read};

/// Runs a privileged test; without the means it is skipped loudly, or fails where nothing may be skipped.
pub(crate) fn privileged(test: impl FnOnce() -> Result<()>) {
    if let Err(missing) = prerequisites() {
        assert!(env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(), "{missing:#}");
        eprintln!("SKIPPED: {missing:#}");
        return;
    }
    if let Err(error) = test() {
        panic!("{error:#}");
    }
}

fn prerequisites() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("needs root");
    }
    for file in [skep(), images().join("web/index.json")] {
        if !file.exists() {
            bail!("{} is missing: run this by `cargo xtask test`", file.display());
        }
    }
    for program in ["containerd", "runc", "docker-registry", "skopeo", "etcd", "kubectl", "ip"] {
        read(Command::new("which").arg(program))
            .with_context(|| format!("{program} is missing: run this by `cargo xtask test`"))?;
    }
    Ok(())
}

/// The workspace.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The program under test.
pub(crate) fn skep() -> PathBuf {
    env::var_os("SKEP_BIN").map_or_else(|| target().join("debug/skep"), PathBuf::from)
}

/// What `cargo xtask setup --tests` has fetched.
pub(crate) fn cache(name: &str) -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_default();
    let path = base.join("skep").join(name);
    if !path.exists() {
        bail!("{} is missing: `cargo xtask setup --tests` fetches it", path.display());
    }
    Ok(path)
}

/// The images' OCI layouts.
pub(crate) fn images() -> PathBuf {
    target().join("images")
}

/// Runs a command that must fail; what it said on standard error.
pub(crate) fn read_failure(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if output.status.success() {
        bail!("{command:?} succeeded, it must not:\n{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
}

/// An error unless `text` has `part`.
pub(crate) fn expect_in(text: &str, part: &str) -> Result<()> {
    if !text.contains(part) {
        bail!("expected {part:?} in:\n{text}");
    }
    Ok(())
}

/// Every pod answers within a bounded number of requests, and nobody else does.
pub(crate) fn reaches_all(
    what: &str,
    pods: &BTreeSet<String>,
    mut ask: impl FnMut() -> Result<String>,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let answer = ask().with_context(|| what.to_owned())?;
        if !pods.contains(&answer) {
            bail!("{what}: {answer:?} answered, which is none of {pods:?}");
        }
        seen.insert(answer);
        if seen.len() == pods.len() {
            eprintln!("  ok: {what} reaches all {} pods", pods.len());
            return Ok(());
        }
    }
    bail!("{what}: 60 requests reached only {seen:?} of {pods:?}")
}
