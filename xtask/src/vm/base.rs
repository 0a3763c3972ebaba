//! The base disk: a small Debian made of packages that are only unpacked, shared by all machines and never written
//! to (a machine's writes go to a file that vanishes with it).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{ext4, store};
use crate::cmd::{read, step};
use crate::debs;

/// What nodes run, and what tests look with.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "conntrack",
    "containerd",
    "curl",
    "dash",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "netbase",
    "nftables",
    "procps",
    "runc",
    "util-linux",
];

/// Room for images and containers, in MiB.
const SPARE: u64 = 1024;

const FOLDERS: [&str; 13] = [
    "dev",
    "etc",
    "lib/modules",
    "mnt",
    "payload",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var/lib",
    "var/log",
    // runc puts its requests there.
    "var/tmp",
];

/// Nobody reads these in a test.
const LEFT_OUT: [&str; 6] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/perl",
    "usr/lib/x86_64-linux-gnu/perl",
];

const FILES: [(&str, &str); 5] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n",
    ),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/resolv.conf", ""),
];

/// As the packages' scripts choose them on a Debian machine.
const LINKS: [(&str, &str); 8] = [
    ("usr/sbin/iptables", "xtables-nft-multi"),
    ("usr/sbin/iptables-save", "xtables-nft-multi"),
    ("usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("usr/sbin/ip6tables", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-restore", "xtables-nft-multi"),
    ("usr/bin/which", "../../bin/busybox"),
    // Not busybox: its shell takes its own programs before the real ones.
    ("bin/sh", "dash"),
];

/// The disk; made when packages or the recipe have changed.
pub(crate) fn disk() -> Result<PathBuf> {
    debs::update_lists()?;
    let archives = debs::closure(PACKAGES)?;
    let mut hasher = DefaultHasher::new();
    (&archives, FOLDERS, LEFT_OUT, FILES, LINKS, SPARE).hash(&mut hasher);
    let disk = store().join(format!("base-{:016x}.ext4", hasher.finish()));
    if disk.exists() {
        return Ok(disk);
    }
    step("making the base disk of the virtual machines");
    fs::create_dir_all(store())?;
    let work = tempfile::tempdir_in(store())?;
    let root = work.path().join("root");
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    debs::unpack_closure(PACKAGES, &archives, &root)?;
    for folder in LEFT_OUT {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    for (path, content) in FILES {
        fs::write(root.join(path), content)?;
    }
    for (path, to) in LINKS {
        let path = root.join(path);
        if fs::symlink_metadata(&path).is_err() {
            symlink(to, &path).with_context(|| format!("linking {}", path.display()))?;
        }
    }
    applets(&root)?;
    ext4(&root, &disk, SPARE)?;
    Ok(disk)
}

/// Busybox's programs, where no real one is.
fn applets(root: &Path) -> Result<()> {
    let found = |name: &str| {
        ["bin", "sbin", "usr/bin", "usr/sbin"].iter().any(|folder| root.join(folder).join(name).exists())
    };
    for applet in read(Command::new(root.join("bin/busybox")).arg("--list"))?.lines() {
        if !found(applet) {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    Ok(())
}
