//! Debian packages: installed by apt-get, or only unpacked into a folder of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd::{read, run, step};

/// Which of these packages are not installed?
pub(crate) fn missing(packages: &[&str]) -> Vec<String> {
    let installed = |package: &str| {
        read(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]))
            .is_ok_and(|status| status.ends_with("ok installed"))
    };
    packages.iter().filter(|package| !installed(package)).map(|&package| package.to_owned()).collect()
}

/// Installs what is missing of these packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("installing {}", missing.join(" ")));
    update_lists()?;
    read(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(&missing),
    )
    .context("apt-get needs root: run this as root")?;
    Ok(())
}

/// Refreshes the package lists where they are missing or older than a day.
pub(crate) fn update_lists() -> Result<()> {
    let fresh = fs::metadata("/var/lib/apt/lists/partial")
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|time| time.elapsed().ok())
        .is_some_and(|age| age.as_secs() < 24 * 3600);
    let any_list = fs::read_dir("/var/lib/apt/lists").is_ok_and(|entries| entries.count() > 3);
    if !(fresh && any_list) {
        read(Command::new("apt-get").args(["update", "-q"])).context("refreshing the package lists")?;
    }
    Ok(())
}

/// Downloads packages into a cache and unpacks them under `root`. Nothing is installed or started.
pub(crate) fn unpack(packages: &[&str], root: &Path) -> Result<()> {
    update_lists()?;
    let store = store()?;
    fs::create_dir_all(root)?;
    for package in packages {
        let deb = download(package, &store)?;
        run(Command::new("dpkg").arg("-x").arg(&deb).arg(root))?;
    }
    Ok(())
}

/// The archives of packages and of all that they need, by file name, as apt chooses them for an empty machine.
pub(crate) fn closure(packages: &[&str]) -> Result<Vec<String>> {
    // What is downloaded already would not be named: the store for this question is one that stays empty.
    let lines = read(empty_machine(&store()?.join("none"))?.arg("--print-uris").args(packages))?;
    // The uri line is: 'http://…/name.deb' name_version_arch.deb SIZE HASH
    let names = lines.lines().filter(|line| line.starts_with('\''));
    let names: Vec<String> =
        names.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect();
    if names.is_empty() {
        bail!("apt-get knows no archives for {}", packages.join(" "));
    }
    Ok(names)
}

/// Downloads what [`closure`] named, and unpacks it under `root`.
pub(crate) fn unpack_closure(packages: &[&str], archives: &[String], root: &Path) -> Result<()> {
    read(empty_machine(&store()?)?.arg("--download-only").args(packages))
        .context("downloading Debian packages")?;
    for name in archives {
        run(Command::new("dpkg").arg("-x").arg(store()?.join(name)).arg(root))?;
    }
    Ok(())
}

/// `apt-get install` that believes nothing to be installed and keeps what it downloads in `store`.
fn empty_machine(store: &Path) -> Result<Command> {
    fs::create_dir_all(store.join("partial"))?;
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "Dir::State::status=/dev/null", "-o"])
        .arg(format!("Dir::Cache::archives={}", store.display()))
        .args(["-o", "APT::Sandbox::User=root", "-q", "-y", "--no-install-recommends", "install"]);
    Ok(apt)
}

/// Where archives are kept.
fn store() -> Result<PathBuf> {
    let store = crate::paths::cache().join("debs");
    fs::create_dir_all(&store)?;
    Ok(store)
}

/// The path of a package's archive, downloaded when the cache has not its candidate version.
fn download(package: &str, store: &Path) -> Result<PathBuf> {
    // The uri line is: 'http://…/name.deb' name_version_arch.deb SIZE HASH
    let uris = read(Command::new("apt-get").args(["download", "--print-uris", "-q", package]))?;
    let Some(name) = uris.lines().last().and_then(|line| line.split_whitespace().nth(1)) else {
        bail!("apt-get knows no archive for {package}; is it served for this Debian release?");
    };
    let path = store.join(name);
    if !path.exists() {
        read(Command::new("apt-get").current_dir(store).args(["download", "-q", package]))
            .with_context(|| format!("downloading the Debian package {package}"))?;
    }
    Ok(path)
}
