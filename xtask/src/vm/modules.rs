//! Kernel modules: which ones one needs, in the order of loading.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The files of these modules and of what they need, first things first; what is built in is left out.
pub(crate) fn closure(tree: &Path, wanted: &[&str]) -> Result<Vec<String>> {
    let read = |name: &str| {
        fs::read_to_string(tree.join(name)).with_context(|| format!("reading {name} of {}", tree.display()))
    };
    order(&read("modules.dep")?, &read("modules.builtin")?, wanted)
}

/// The same from the texts of `modules.dep` and `modules.builtin`.
fn order(dep: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let files: BTreeMap<String, (&str, Vec<&str>)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (name(file), (file, needs.split_whitespace().collect())))
        .collect();
    let mut ordered: Vec<String> = Vec::new();
    for module in wanted {
        if builtin.contains(*module) {
            continue;
        }
        let Some((file, needs)) = files.get(*module) else { bail!("the kernel has no module {module}") };
        // A line names what is needed with the deepest need last.
        for file in needs.iter().rev().chain([file]) {
            if !ordered.iter().any(|known| known == file) {
                ordered.push((*file).to_owned());
            }
        }
    }
    Ok(ordered)
}

/// A module's name from its file's.
fn name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// A module's bytes, unpacked.
pub(crate) fn plain(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("reading {}", file.display())),
    };
    let output =
        Command::new(program).arg("-dc").arg(file).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dep = "kernel/drivers/virtio/virtio_ring.ko:\n\
            kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko\n\
            kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko.xz kernel/drivers/virtio/virtio_ring.ko\n\
            kernel/drivers/char/virtio-console.ko: kernel/drivers/virtio/virtio.ko.xz kernel/drivers/virtio/virtio_ring.ko\n";
        let builtin = "kernel/fs/ext4/ext4.ko\n";
        let got = order(dep, builtin, &["ext4", "virtio_blk", "virtio_console"]).expect("an order");
        let names: Vec<String> = got.iter().map(|file| name(file)).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "virtio_blk", "virtio_console"]);
        assert!(order(dep, builtin, &["no_such"]).is_err());
    }
}
