//! A real registry with the project's images, for nodes that pull.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{NetBox, succeed};

/// How long it may take to answer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running registry; it ends with the value.
#[derive(Debug)]
pub struct Registry {
    process: Child,
}

impl Registry {
    /// Starts a registry in a box, at `listen` (`IP:PORT`), with its files in `folder`, and fills it with the images
    /// of these names, OCI layouts in `images`.
    ///
    /// # Errors
    /// When it does not start, or does not take an image.
    pub fn start(
        netbox: &NetBox,
        listen: &str,
        folder: &Path,
        images: &Path,
        names: &[&str],
    ) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {listen}\n",
            folder.join("store").display()
        );
        fs::write(&config, text)?;
        let mut command = netbox.command("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { process: command.spawn().context("start docker-registry")? };
        for name in names {
            let began = Instant::now();
            loop {
                let copied = succeed(
                    netbox
                        .command("skopeo")
                        .args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"])
                        .arg(format!("oci:{}:1", images.join(name).display()))
                        .arg(format!("docker://{listen}/{name}:1")),
                );
                match copied {
                    Ok(_) => break,
                    Err(error) if began.elapsed() > PATIENCE => return Err(error),
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the registry does not stop: {error}");
        }
    }
}
