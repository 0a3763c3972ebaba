//! Debian's compiler, unpacked without being installed.
//!
//! The packages conflict with the package `rustup`, so `apt-get download` fetches them (which needs no root and
//! checks signatures) and `dpkg -x` unpacks them into the prefix. One of them is the library built for BPF.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::{Toolchain, install_linker, install_once, output, prefix, run};

/// The compiler's version, which names the package of its shared library.
const RUST: &str = "1.96";
const LLVM: u32 = 22;

/// Unpacks the packages once and wraps the compiler so that it finds its libraries.
pub(super) fn setup() -> Result<Toolchain> {
    let prefix = prefix(&format!("debian-rust{RUST}"))?;
    install_once(&prefix, install)?;
    let compiler = prefix.join("bin/rustc");
    Ok(Toolchain {
        name: format!("Debian rustc {RUST}, LLVM {LLVM}"),
        prefix,
        cargo: vec!["cargo".into()],
        arguments: Vec::new(),
        environment: vec![
            ("RUSTC".into(), compiler.into()),
            // The BPF target is unstable to a release compiler; Debian's own cargo sets this for it too.
            ("RUSTC_BOOTSTRAP".into(), "1".into()),
        ],
    })
}

fn install(prefix: &Path) -> Result<()> {
    if !Path::new("/etc/debian_version").exists() {
        bail!("this is not Debian: apt-get cannot supply rustc-web");
    }
    let packages = [
        "rustc-web".to_owned(),
        format!("libstd-rust-web-{RUST}"),
        "libstd-rust-web-dev".to_owned(),
        "libstd-rust-web-dev-bpf".to_owned(),
        format!("libllvm{LLVM}"),
    ];
    let archives = prefix.join("archives");
    fs::create_dir_all(&archives)?;
    let download = || run(Command::new("apt-get").arg("download").args(&packages).current_dir(&archives));
    if let Err(first) = download() {
        // Stale lists are the usual cause; only root can refresh them.
        run(Command::new("apt-get").arg("update"))
            .with_context(|| format!("{first:#}; then apt-get update failed too"))?;
        download().context("apt-get download failed also after apt-get update")?;
    }
    let root = prefix.join("root");
    for entry in fs::read_dir(&archives)? {
        run(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(&root))?;
    }
    fs::remove_dir_all(&archives)?;

    let libraries = library_folder(&root)?;
    write_compiler_wrapper(prefix, &root, &libraries)?;
    let version = output(Command::new(prefix.join("bin/rustc")).arg("--version"))?;
    if !version.contains(RUST) {
        bail!("apt-get supplied {}, this project was tried with {RUST}", version.trim());
    }
    install_linker(prefix, &libraries.join(format!("libLLVM.so.{LLVM}.1")), LLVM)
}

fn library_folder(root: &Path) -> Result<PathBuf> {
    let folder = root.join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    if folder.is_dir() { Ok(folder) } else { bail!("{} is missing in the packages", folder.display()) }
}

fn write_compiler_wrapper(prefix: &Path, root: &Path, libraries: &Path) -> Result<()> {
    let folder = prefix.join("bin");
    fs::create_dir_all(&folder)?;
    let wrapper = folder.join("rustc");
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        libraries.display(),
        root.join("usr/bin/rustc").display()
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).context("making the wrapper executable")
}
