//! From the kernel's first file system to a whole machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::wait::wait;

use crate::{PATH, SERVE, cgroups};

/// The disks in the order in which the machine has them.
const BASE: &str = "/dev/vda";
const MODULES: &str = "/dev/vdb";
const PAYLOAD: &str = "/dev/vdc";

/// How long a disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where everything is for a moment, before it is the root.
const NEW_ROOT: &str = "/root";

/// Boots, serves until the test is done, and returns for the machine to be switched off.
pub(crate) fn boot() -> Result<()> {
    attach("devtmpfs", "/dev", "devtmpfs")?;
    attach("proc", "/proc", "proc")?;
    attach("sysfs", "/sys", "sysfs")?;
    load_modules(Path::new("/modules"))?;
    let options = options(&fs::read_to_string("/proc/cmdline").context("reading the kernel's options")?);
    let option = |name: &str| options.get(name).map(String::as_str);
    disk(BASE, NEW_ROOT, MsFlags::empty())?;
    disk(MODULES, &format!("{NEW_ROOT}/lib/modules"), MsFlags::MS_RDONLY)?;
    disk(PAYLOAD, &format!("{NEW_ROOT}/payload"), MsFlags::empty())?;
    switch_root()?;
    fill(option("cgroups") == Some("hybrid"))?;
    for folder in option("binds").unwrap_or_default().split(',').filter(|folder| !folder.is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
        let from = format!("/payload{folder}");
        mount(Some(from.as_str()), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("binding {from}"))?;
    }
    let name = option("name").unwrap_or("machine");
    nix::unistd::sethostname(name).context("naming the machine")?;
    fs::write("/proc/sys/kernel/printk", "4 4 1 4").context("quieting the kernel")?;
    coldplug()?;
    succeed(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    run_to_the_end()
}

/// Options of ours, `skep.NAME=VALUE`.
fn options(line: &str) -> BTreeMap<String, String> {
    let ours = line.split_whitespace().filter_map(|word| word.strip_prefix("skep."));
    ours.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

fn attach(kind: &str, target: &str, source: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("making {target}"))?;
    match mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>) {
        // The kernel mounts some by itself.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("mounting {kind} on {target}")),
    }
}

/// Loads what lies in the folder, in the order of the names.
fn load_modules(folder: &Path) -> Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).context("listing modules")? {
        paths.push(entry?.path());
    }
    paths.sort();
    for path in paths {
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("loading {}", path.display())),
        }
    }
    Ok(())
}

fn disk(device: &str, target: &str, flags: MsFlags) -> Result<()> {
    let began = Instant::now();
    while !Path::new(device).exists() {
        if began.elapsed() > PATIENCE {
            bail!("the disk {device} does not appear");
        }
        sleep(Duration::from_millis(10));
    }
    mount(Some(device), target, Some("ext4"), flags, None::<&str>)
        .with_context(|| format!("mounting {device} on {target}"))
}

/// The kernel's first file system cannot be pivoted away from; it is covered instead.
fn switch_root() -> Result<()> {
    for name in ["dev", "proc", "sys"] {
        let (from, to) = (format!("/{name}"), format!("{NEW_ROOT}/{name}"));
        mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("moving {from}"))?;
    }
    std::env::set_current_dir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("moving the root")?;
    nix::unistd::chroot(".").context("entering the root")?;
    std::env::set_current_dir("/")?;
    // Containers make their mounts private to themselves; a root that is shared is what systemd machines have.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("sharing the root")
}

/// What is mounted on every Linux machine.
fn fill(hybrid: bool) -> Result<()> {
    for (kind, target) in [
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/dev/shm"),
        ("devpts", "/dev/pts"),
        ("mqueue", "/dev/mqueue"),
        ("bpf", "/sys/fs/bpf"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        attach(kind, target, kind)?;
    }
    if !Path::new("/dev/fd").exists() {
        std::os::unix::fs::symlink("/proc/self/fd", "/dev/fd").context("linking /dev/fd")?;
    }
    if hybrid { cgroups::hybrid() } else { cgroups::pure() }
}

/// Loads the drivers of what the emulator gave the machine, as udev does elsewhere.
fn coldplug() -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/bus/virtio/devices").context("listing devices")? {
        let path = entry?.path().join("modalias");
        names.push(fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    let mut modprobe = Command::new("modprobe");
    modprobe.env("PATH", PATH).arg("-qab").args(names.iter().map(|name| name.trim()));
    // Its status tells nothing: it fails for drivers that are built in.
    modprobe.status().context("starting modprobe").map(drop)
}

fn succeed(command: &mut Command) -> Result<()> {
    // The kernel tells its first process no search path.
    let output = command.env("PATH", PATH).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Starts the child that serves, and collects whatever ends until the child does.
fn run_to_the_end() -> Result<()> {
    // The program's file is in the covered file system; this link still leads to it.
    let child =
        Command::new("/proc/self/exe").arg(SERVE).spawn().context("starting the child that serves")?;
    let child = i32::try_from(child.id())?;
    loop {
        match wait() {
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw() == child) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for processes"),
        }
    }
}
