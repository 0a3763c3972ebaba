//! The administrator's kubeconfig.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use skep_auth::pki::Pki;

use crate::folders::Folders;

/// `skep kubeconfig`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
}

/// Prints the file that the server wrote.
pub(crate) fn main(options: &Options) -> Result<()> {
    let path = options.folders.admin_kubeconfig();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("reading {}; has `skep up` or `skep server` run here?", path.display()))?;
    print!("{text}");
    Ok(())
}

/// Writes the administrator's kubeconfig; its path.
pub(crate) fn write_admin(folders: &Folders, pki: &Pki, server: &str) -> Result<PathBuf> {
    let path = folders.admin_kubeconfig();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let admin = pki.stored_client("admin", "kubernetes-admin", &["system:masters"])?;
    skep_client::kubeconfig::write(&path, server, pki.ca_pem(), &admin.cert_pem, &admin.key_pem)?;
    Ok(path)
}

/// Points `~/.kube/config` at the cluster, if there is no such file. Says whether it leads to ours now.
pub(crate) fn link_home(path: &Path) -> Result<bool> {
    let Some(home) = std::env::var_os("HOME").map(PathBuf::from) else { return Ok(false) };
    let link = home.join(".kube/config");
    if let Ok(target) = fs::read_link(&link) {
        return Ok(target == path);
    }
    if link.exists() {
        return Ok(false);
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    symlink(path, &link).with_context(|| format!("linking {}", link.display()))?;
    Ok(true)
}

/// Removes `~/.kube/config` if it is our link.
pub(crate) fn unlink_home(path: &Path) -> Result<()> {
    let Some(home) = std::env::var_os("HOME").map(PathBuf::from) else { return Ok(()) };
    let link = home.join(".kube/config");
    if fs::read_link(&link).is_ok_and(|target| target == path) {
        fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
    }
    Ok(())
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}
