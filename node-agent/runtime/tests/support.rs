//! A runtime of its own for a test: private folders, a child control group, a busybox image.
//!
//! Everything is removed at the end, also when the test panics.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use skep_runtime::{
    ContainerRequest, Image, Reference, Runtime, RuntimeConfig,
    container::{PodIdentity, container_id},
    purge::purge,
    spec::{Namespaces, Resources, Security},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Whether the test can run here. Says so when not, and fails when all tests are demanded.
pub(crate) fn available() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let tools = ["containerd", "runc", "busybox"]
        .iter()
        .all(|name| skep_runtime::daemon::find_program(name).is_some());
    if root && tools {
        return true;
    }
    assert!(std::env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(), "needs root, containerd, runc and busybox");
    eprintln!("SKIPPED: needs root, containerd, runc and busybox");
    false
}

/// A private place for one test.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) group: String,
    pub(crate) config: RuntimeConfig,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("skep-rt-").tempdir().unwrap();
        let group = format!(
            "/skep-test-{}-{}",
            std::process::id(),
            dir.path().file_name().unwrap().to_string_lossy()
        );
        let mut config = RuntimeConfig::new(dir.path().join("state"), dir.path().join("run"));
        let here = std::env::current_exe().unwrap();
        config.log_writer = here.parent().unwrap().parent().unwrap().join("examples/log_writer");
        Self { dir, group, config }
    }

    /// Runs a test body with a started runtime and cleans up after it.
    pub(crate) async fn run<F>(self, body: impl FnOnce(Agent) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let agent = Agent::start(&self).await;
        let (group, config) = (self.group.clone(), self.config.clone());
        let outcome = tokio::spawn(body(agent.clone())).await;
        let hierarchies = agent.runtime.hierarchies().clone();
        agent.stop().await;
        purge(config.clone()).await.unwrap();
        hierarchies.remove(&group).await.unwrap();
        let leftovers: Vec<_> = [&config.root, &config.run_dir].into_iter().filter(|p| p.exists()).collect();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic.into_panic());
        }
        assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "mounts left behind");
    }
}

/// One life of the agent's runtime.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) runtime: Runtime,
    pub(crate) config: RuntimeConfig,
    pub(crate) dir: PathBuf,
    pub(crate) group: String,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Agent {
    pub(crate) async fn start(place: &Place) -> Self {
        Self::start_at(place.config.clone(), place.dir.path().to_path_buf(), place.group.clone()).await
    }

    async fn start_at(config: RuntimeConfig, dir: PathBuf, group: String) -> Self {
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let runtime = Runtime::start(config.clone(), tracker.clone(), cancel.clone()).await.unwrap();
        Self { runtime, config, dir, group, tracker, cancel }
    }

    /// Ends the tasks, as an agent that stops: containerd and the containers stay.
    pub(crate) async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// As the next agent after this one.
    pub(crate) async fn restart(&self) -> Self {
        self.stop().await;
        Self::start_at(self.config.clone(), self.dir.clone(), self.group.clone()).await
    }

    pub(crate) async fn busybox(&self) -> Image {
        let layout = self.dir.join("layout");
        busybox_layout(&layout);
        self.runtime.import(&layout, &Reference::parse("localhost/busybox:1").unwrap()).await.unwrap()
    }

    pub(crate) fn request(&self, image: &Image, name: &str, script: &str) -> ContainerRequest {
        ContainerRequest {
            id: container_id("pod-1", name, 0),
            pod: PodIdentity { uid: "pod-1".into(), namespace: "ns".into(), name: "p".into() },
            name: name.into(),
            attempt: 0,
            image: image.clone(),
            args: ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".into()],
            working_dir: "/".into(),
            mounts: vec![],
            shm: None,
            security: Security::default(),
            resources: Resources::default(),
            namespaces: Namespaces::default(),
            cgroup: format!("{}/pod-1", self.group),
            sysctls: vec![],
            tty: false,
            stdin: false,
            log_path: self.dir.join("logs").join(name).join("0.log"),
        }
    }
}

/// An OCI layout with one uncompressed layer: the machine's static busybox.
pub(crate) fn busybox_layout(root: &Path) {
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let tree = root.join("tree");
    for dir in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let busybox = skep_runtime::daemon::find_program("busybox").unwrap();
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "id", "hostname", "sleep", "stty"] {
        let link = tree.join("bin").join(applet);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nextra:x:2000:app\n").unwrap();
    let layer = root.join("layer.tar");
    let status = std::process::Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(&layer)
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    let put = |bytes: &[u8]| {
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        fs::write(blobs.join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let (layer_digest, layer_size) = put(&fs::read(&layer).unwrap());
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["sh"], "User": "app", "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
    });
    let (config_digest, config_size) = put(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size }],
    });
    let (digest, size) = put(manifest.to_string().as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size }],
    });
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
