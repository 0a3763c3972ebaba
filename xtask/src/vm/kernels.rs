//! Debian's kernels, unpacked from their packages. Nothing is installed: apt-get works on folders of our own, with
//! sources of the release that serves the kernel, whatever release this machine has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::releases::{Series, choose};
use super::{archive, ext4, modules, store};
use crate::cmd::{read, step};

const MIRROR: &str = "http://deb.debian.org";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists are asked for again after this time.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// What the machine needs before it sees its disks and its host.
const EARLY: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/// A kernel, ready to boot.
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The compressed kernel.
    pub(crate) image: PathBuf,
    /// A disk with its modules.
    pub(crate) modules: PathBuf,
    /// The first file system: the guest's first process and the modules it needs at once.
    pub(crate) initramfs: PathBuf,
}

/// The newest kernel of a series; made when it is not there yet.
pub(crate) fn get(series: Series, guest: &Path) -> Result<Kernel> {
    let apt = Apt::new(series)?;
    let folder = match newest(&apt, series) {
        Ok(folder) => folder,
        // Tests go on without a mirror when there is a kernel from before.
        Err(error) => match fs::read_to_string(apt.root.join("last")) {
            Ok(last) if Path::new(&last).exists() => {
                eprintln!("xtask: {error:#}; taking the kernel in {last}");
                PathBuf::from(last)
            }
            _ => return Err(error),
        },
    };
    let release = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let initramfs = folder.join("initramfs");
    let (early, needed) =
        (folder.join("early"), fs::read(guest).context("reading the guest's first process")?);
    let mut files = vec![("init".to_owned(), needed)];
    for entry in fs::read_dir(&early).with_context(|| format!("listing {}", early.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((format!("modules/{name}"), fs::read(&path)?));
    }
    fs::write(&initramfs, archive::newc(&["dev", "modules", "proc", "root", "sys"], &files))?;
    Ok(Kernel { image: folder.join("vmlinuz"), modules: folder.join("modules.ext4"), release, initramfs })
}

/// apt-get on folders of our own.
struct Apt {
    root: PathBuf,
}

impl Apt {
    fn new(series: Series) -> Result<Self> {
        let root = store().join("apt").join(series.name());
        for folder in ["parts", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let sources: String = series
            .suites()
            .iter()
            .map(|(archive, suite)| format!("deb [signed-by={KEYRING}] {MIRROR}/{archive} {suite} main\n"))
            .collect();
        fs::write(root.join("sources.list"), sources)?;
        fs::write(root.join("status"), "")?;
        Ok(Self { root })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, path) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "parts"),
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.root.join(path).display()));
        }
        // The lists alone: neither translations nor what software centres show.
        command.args(["-o", "Acquire::Languages=none", "-o", "APT::Architecture=amd64"]);
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        command.args(["-o", "APT::Sandbox::User=root", "-q"]);
        command
    }

    /// Refreshes the lists when they are old.
    fn update(&self) -> Result<()> {
        let stamp = self.root.join("updated");
        let age =
            fs::metadata(&stamp).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        read(self.command("apt-get").arg("update")).context("asking for the lists of kernels")?;
        Ok(fs::write(stamp, "")?)
    }
}

/// The folder of the newest kernel that is served.
fn newest(apt: &Apt, series: Series) -> Result<PathBuf> {
    apt.update()?;
    let names =
        read(apt.command("apt-cache").args(["search", "--names-only", "^linux-image-.*-cloud-amd64$"]))?;
    let names = names.lines().filter_map(|line| line.split(' ').next());
    let Some((package, release)) = choose(series, names) else {
        bail!("{MIRROR} serves no cloud kernel {} any more", series.name());
    };
    let folder = store().join("kernels").join(&release);
    if !folder.exists() {
        step(&format!("unpacking the kernel {release}"));
        unpack(apt, &package, &release, &folder)?;
    }
    fs::write(apt.root.join("last"), folder.as_os_str().as_encoded_bytes())?;
    Ok(folder)
}

/// Downloads and unpacks a kernel's packages, and makes its disk of modules.
fn unpack(apt: &Apt, package: &str, release: &str, folder: &Path) -> Result<()> {
    // Since 6.19 the image is a package of nothing but dependencies.
    let depends = read(apt.command("apt-cache").args(["depends", package]))?;
    let parts = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).filter(|name| {
        ["linux-base-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|part| *name == format!("{part}{release}"))
    });
    let packages: Vec<&str> = parts.chain([package]).collect();
    fs::create_dir_all(store())?;
    let work = tempfile::tempdir_in(store())?;
    let root = work.path().join("root");
    // One tree, wherever the package puts its modules.
    fs::create_dir_all(root.join("usr/lib"))?;
    symlink("usr/lib", root.join("lib"))?;
    read(apt.command("apt-get").current_dir(work.path()).arg("download").args(&packages))
        .with_context(|| format!("downloading {}", packages.join(" ")))?;
    for entry in fs::read_dir(work.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            extract(&path, &root)?;
        }
    }
    read(Command::new("/sbin/depmod").arg("-b").arg(&root).arg(release)).context("indexing modules")?;
    let ready = work.path().join("ready");
    fs::create_dir_all(ready.join("early"))?;
    let tree = root.join("usr/lib/modules").join(release);
    for (number, module) in modules::closure(&tree, &EARLY)?.iter().enumerate() {
        let name = Path::new(module).file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{number:02}-{}", name.trim_end_matches(".xz").trim_end_matches(".zst"));
        fs::write(ready.join("early").join(name), modules::plain(&tree.join(module))?)?;
    }
    let image = [root.join("boot").join(format!("vmlinuz-{release}")), tree.join("vmlinuz")];
    let image = image.iter().find(|path| path.exists()).context("the packages hold no vmlinuz")?;
    fs::rename(image, ready.join("vmlinuz"))?;
    ext4(&root.join("usr/lib/modules"), &ready.join("modules.ext4"), 0)?;
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(&ready, folder).with_context(|| format!("renaming to {}", folder.display()))
}

/// Unpacks through links to folders, which `dpkg -x` would replace.
fn extract(deb: &Path, root: &Path) -> Result<()> {
    let script = "dpkg-deb --fsys-tarfile \"$0\" | tar -x --keep-directory-symlink -C \"$1\"";
    read(Command::new("sh").args(["-ec", script]).arg(deb).arg(root)).map(drop)
}
