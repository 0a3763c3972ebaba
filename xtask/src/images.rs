//! Container images made of Debian packages, as OCI layouts under target/images, and a real registry
//! that serves them: no image has to come from a registry on the internet.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::cmd::{read, step};
use crate::{debs, paths};

/// An image: what is in it and what it runs.
#[derive(Debug)]
struct Recipe {
    name: &'static str,
    packages: &'static [&'static str],
    command: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
}

/// A web server that answers with the name of its pod, so that a test sees who answered.
const NGINX_CONF: &str = "\
user root;
worker_processes 1;
daemon off;
pid /run/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 1024; }
http {
  access_log /dev/stdout;
  server {
    listen 80;
    listen [::]:80;
    location / { return 200 \"$hostname\\n\"; }
    location /files/ { alias /srv/; }
  }
}
";

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "web",
        packages: &[
            "busybox",
            "libc6",
            "libcrypt1",
            "libpcre2-8-0",
            "libssl3",
            "nginx",
            "nginx-common",
            "zlib1g",
        ],
        command: &["/usr/sbin/nginx", "-c", "/etc/nginx/skep.conf"],
        files: &[("etc/nginx/skep.conf", NGINX_CONF)],
    },
    // dig, and the C library's own way of looking names up.
    Recipe {
        name: "dnsutils",
        packages: &[
            "bind9-dnsutils",
            "bind9-host",
            "bind9-libs",
            "busybox",
            "libbsd0",
            "libc-bin",
            "libc6",
            "libcom-err2",
            "libedit2",
            "libfstrm0",
            "libgcc-s1",
            "libgssapi-krb5-2",
            "libicu72",
            "libidn2-0",
            "libjemalloc2",
            "libjson-c5",
            "libk5crypto3",
            "libkeyutils1",
            "libkrb5-3",
            "libkrb5support0",
            "liblmdb0",
            "liblzma5",
            "libmaxminddb0",
            "libmd0",
            "libnghttp2-14",
            "libprotobuf-c1",
            "libssl3",
            "libstdc++6",
            "libtinfo6",
            "libunistring2",
            "libuv1",
            "libxml2",
            "zlib1g",
        ],
        command: &["/bin/sh"],
        files: &[],
    },
    Recipe { name: "busybox", packages: &["busybox", "libc6"], command: &["/bin/sh"], files: &[] },
];

/// Builds all images that are not there yet; returns their folder.
pub(crate) fn build() -> Result<PathBuf> {
    let out = paths::target().join("images");
    fs::create_dir_all(&out)?;
    for recipe in RECIPES {
        let layout = out.join(recipe.name);
        // A recipe that has changed makes the image anew.
        let (stamp, made_of) = (layout.join("recipe"), format!("{recipe:?}"));
        if fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
            continue;
        }
        step(&format!("building the image {}", recipe.name));
        if layout.exists() {
            fs::remove_dir_all(&layout)?;
        }
        let work = tempfile::tempdir()?;
        let root = work.path().join("root");
        fill(recipe, &root).with_context(|| format!("filling the image {}", recipe.name))?;
        write_layout(recipe, &root, &layout)?;
        fs::write(stamp, made_of)?;
    }
    Ok(out)
}

/// Lays out an image's root folder.
fn fill(recipe: &Recipe, root: &Path) -> Result<()> {
    debs::unpack(recipe.packages, root)?;
    for folder in [
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "srv",
        "sys",
        "tmp",
        "usr/bin",
        "var/lib/nginx",
        "var/log/nginx",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in
        ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/gconv"]
    {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(root.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
    let shell = root.join("bin/busybox");
    for applet in read(Command::new(&shell).arg("--list"))?.lines() {
        let link = root.join("bin").join(applet);
        if fs::symlink_metadata(&link).is_err() {
            symlink("busybox", link)?;
        }
    }
    for (path, content) in recipe.files {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
    }
    Ok(())
}

/// Packs the root folder as a one-layer OCI layout. The same packages give the same digests.
fn write_layout(recipe: &Recipe, root: &Path, layout: &Path) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let tar = layout.join("layer.tar");
    read(
        Command::new("tar")
            .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"])
            .arg(&tar)
            .arg("-C")
            .arg(root)
            .arg("."),
    )?;
    let diff_id = digest(&tar)?;
    read(Command::new("gzip").args(["-n", "-f"]).arg(&tar))?;
    let (layer, layer_size) = keep(&layout.join("layer.tar.gz"), &blobs)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": recipe.command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    });
    let (config, config_size) = keep_json(&config, layout, &blobs)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{config}"), "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": format!("sha256:{layer}"), "size": layer_size}],
    });
    let (manifest, manifest_size) = keep_json(&manifest, layout, &blobs)?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{manifest}"), "size": manifest_size,
            "annotations": {"org.opencontainers.image.ref.name": "1"},
        }],
    });
    // Last: its presence says that the layout is whole.
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let line = read(Command::new("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Moves a file among the blobs under its digest; returns digest and size.
fn keep(path: &Path, blobs: &Path) -> Result<(String, u64)> {
    let name = digest(path)?;
    let size = fs::metadata(path)?.len();
    fs::rename(path, blobs.join(&name))?;
    Ok((name, size))
}

fn keep_json(value: &serde_json::Value, layout: &Path, blobs: &Path) -> Result<(String, u64)> {
    let path = layout.join("blob.json");
    fs::write(&path, serde_json::to_vec(value)?)?;
    keep(&path, blobs)
}

/// A registry, stopped when dropped.
struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("stopping the registry: {error}");
        }
    }
}

/// Builds the images, serves them and stays in the foreground.
pub(crate) fn serve(listen: &str) -> Result<()> {
    let images = build()?;
    let store = paths::target().join("registry");
    fs::create_dir_all(&store)?;
    let config = store.join("config.yml");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {listen}\n",
            store.display()
        ),
    )?;
    let mut registry = Registry(
        Command::new("docker-registry")
            .env("PATH", paths::search_path())
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting docker-registry; `cargo xtask setup --tests` fetches it")?,
    );
    wait_for(listen, &mut registry.0)?;
    for recipe in RECIPES {
        read(
            Command::new("skopeo")
                .env("PATH", paths::search_path())
                .args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:1", images.join(recipe.name).display()))
                .arg(format!("docker://{listen}/{}:1", recipe.name)),
        )?;
        println!("serving {listen}/{}:1", recipe.name);
    }
    println!("registry ready; Ctrl-C stops it");
    let status = registry.0.wait()?;
    bail!("the registry ended: {status}");
}

fn wait_for(listen: &str, registry: &mut Child) -> Result<()> {
    for _ in 0..100 {
        if std::net::TcpStream::connect(listen).is_ok() {
            return Ok(());
        }
        if let Some(status) = registry.try_wait()? {
            bail!("docker-registry ended at once ({status}); is {listen} in use?");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("docker-registry does not answer on {listen}");
}
