//! The tool chain that compiles the eBPF programs: chosen and installed without questions.
//!
//! Two ways give a `core` for `bpfel-unknown-none`: a nightly compiler with `rust-src` (`-Z build-std`), or
//! Debian's compiler with its ready-made BPF libraries. The first is taken where rustup really can supply it,
//! the second where rustup cannot download. Everything lives in one private, versioned prefix; a marker written
//! last says that the prefix is complete, so an interrupted set-up is simply done again.
//!
//! Invariant: nothing outside the prefix changes, except that rustup may gain the nightly it was asked for.

mod debian;
mod nightly;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail};

/// The linker that turns LLVM bitcode into a BPF object.
const BPF_LINKER_VERSION: &str = "0.13.0";
/// Raised when the way a prefix is laid out changes, so that older ones are not mistaken for finished.
const LAYOUT: u32 = 1;
/// Forces one way (`nightly` or `debian`) instead of the automatic choice.
const CHOICE_VARIABLE: &str = "SKEP_EBPF_TOOLCHAIN";

/// A compiler, a linker and how to call cargo with them.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// Which of the ways it is, for messages.
    pub(crate) name: String,
    /// The folder that holds it.
    pub(crate) prefix: PathBuf,
    /// The program and first arguments that run cargo.
    cargo: Vec<OsString>,
    /// Arguments after `build`.
    arguments: Vec<OsString>,
    /// Variables cargo needs.
    environment: Vec<(OsString, OsString)>,
}

impl Toolchain {
    /// The linker inside the prefix.
    pub(crate) fn linker(&self) -> PathBuf {
        self.prefix.join("bin/bpf-linker")
    }

    /// `cargo build` by this tool chain. Variables of an outer cargo or rustup do not leak in.
    pub(crate) fn cargo_build(&self) -> Command {
        let mut command = clean_command(&self.cargo[0]);
        command.args(&self.cargo[1..]).arg("build").args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", self.linker());
        command
    }
}

/// Finds or installs the tool chain. Fast when it is there already.
pub(crate) fn setup_toolchain() -> Result<Toolchain> {
    let forced = env::var(CHOICE_VARIABLE).ok();
    match forced.as_deref() {
        Some("nightly") => nightly::setup(),
        Some("debian") => debian::setup(),
        Some(other) => bail!("{CHOICE_VARIABLE}={other}: it must be nightly or debian"),
        None => automatic(),
    }
}

fn automatic() -> Result<Toolchain> {
    let by_rustup = match nightly::setup() {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => error,
    };
    eprintln!("eBPF tool chain: no nightly with rust-src ({by_rustup:#}); taking Debian's packages");
    debian::setup().map_err(|by_debian| {
        anyhow!(
            "no tool chain for the eBPF programs.\n  by rustup: {by_rustup:#}\n  by Debian packages: {by_debian:#}\n\
             Do one of: `rustup toolchain install nightly --component rust-src` (needs static.rust-lang.org), \
             or run on Debian with a working apt (`apt-get update` first)."
        )
    })
}

/// `${XDG_CACHE_HOME:-~/.cache}/skep/ebpf-toolchain/NAME`.
fn prefix(name: &str) -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
            .join(".cache"),
    };
    Ok(cache.join("skep/ebpf-toolchain").join(format!("{name}-linker{BPF_LINKER_VERSION}-l{LAYOUT}")))
}

/// Fills `prefix` by `install` unless its marker says that it is complete.
fn install_once(prefix: &Path, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let marker = prefix.join(".complete");
    if marker.exists() {
        return Ok(());
    }
    if prefix.exists() {
        fs::remove_dir_all(prefix)
            .with_context(|| format!("removing the unfinished {}", prefix.display()))?;
    }
    fs::create_dir_all(prefix).with_context(|| format!("creating {}", prefix.display()))?;
    eprintln!("eBPF tool chain: installing into {}", prefix.display());
    install(prefix)?;
    run(Command::new(prefix.join("bin/bpf-linker")).arg("--version"))?;
    fs::write(&marker, b"").with_context(|| format!("writing {}", marker.display()))
}

/// Builds bpf-linker against the LLVM library that the compiler itself uses: bitcode is only sure to be readable
/// by the version that wrote it.
fn install_linker(prefix: &Path, llvm_library: &Path, llvm_major: u32) -> Result<()> {
    let folder = prefix.join("llvm/lib");
    fs::create_dir_all(&folder)?;
    let link = folder.join("libLLVM.so");
    std::os::unix::fs::symlink(llvm_library, &link).with_context(|| format!("linking {}", link.display()))?;
    let runtime_folder = llvm_library.parent().context("the LLVM library has no folder")?;
    let build = tempfile::tempdir().context("a folder to build bpf-linker in")?;
    let mut command = clean_command("cargo".as_ref());
    command
        .args(["install", "bpf-linker", "--locked", "--force", "--no-default-features", "--quiet"])
        .args(["--version", BPF_LINKER_VERSION, "--features", &format!("llvm-{llvm_major}")])
        .arg("--root")
        .arg(prefix)
        .arg("--target-dir")
        .arg(build.path())
        .env("LLVM_PREFIX", prefix.join("llvm"))
        .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", runtime_folder.display()));
    run(&mut command).context("building bpf-linker")
}

/// A command without the variables by which an outer `cargo run` would choose compiler, flags and folders.
fn clean_command(program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = [
            "RUSTUP_TOOLCHAIN",
            "RUSTC",
            "RUSTFLAGS",
            "RUSTDOC",
            "CARGO",
            "CARGO_TARGET_DIR",
            "RUSTC_WRAPPER",
        ];
        let by_prefix = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_ENCODED_", "CARGO_PROFILE_", "CARGO_BUILD_"];
        if inherited.contains(&text.as_ref()) || by_prefix.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs to success; the error carries the command and the end of what it said.
fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Runs to success and returns what it printed.
fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("starting {command:?}"))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    let tail: Vec<&str> = said.lines().rev().take(20).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    bail!("{command:?} ended with {}:\n{}", result.status, tail.join("\n"))
}
