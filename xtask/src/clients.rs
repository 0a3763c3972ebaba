//! The client libraries that the tests use, in the versions that their lock files pin, by hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd::{have, read, step};
use crate::{debs, paths};

/// Installs what is missing.
pub(crate) fn ensure() -> Result<()> {
    let sources = paths::workspace().join("tests/clients");
    install("python", &sources.join("python/requirements.txt"), python)?;
    install("javascript", &sources.join("javascript/package-lock.json"), javascript)
}

/// Fills a folder unless it was filled from the same lock file.
fn install(name: &str, lock: &Path, fill: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let folder = paths::cache().join("clients").join(name);
    let marker = folder.join(".installed");
    let pinned = fs::read_to_string(lock).with_context(|| format!("reading {}", lock.display()))?;
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == pinned) {
        return Ok(());
    }
    step(&format!("fetching the {name} client"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    fill(lock, &folder)?;
    fs::write(&marker, pinned).with_context(|| format!("writing {}", marker.display()))
}

fn python(lock: &Path, folder: &Path) -> Result<()> {
    if !(have("python3") && have("pip3")) {
        debs::install(&["python3", "python3-pip"])?;
    }
    read(
        Command::new("python3")
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"])
            .args(["--require-hashes", "-r"])
            .arg(lock)
            .arg("--target")
            .arg(folder),
    )
    .map(drop)
}

fn javascript(lock: &Path, folder: &Path) -> Result<()> {
    if !(have("node") && have("npm")) {
        debs::install(&["nodejs", "npm"])?;
    }
    let from = lock.parent().map(PathBuf::from).unwrap_or_default();
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), folder.join(file)).with_context(|| format!("copying {file}"))?;
    }
    read(Command::new("npm").current_dir(folder).args([
        "ci",
        "--silent",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ]))
    .map(drop)
}
