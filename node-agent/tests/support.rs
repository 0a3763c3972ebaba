//! One cluster of one node for a test: an API server in this process, an agent, folders and a network
//! namespace of its own. Everything is removed at the end, also when the test fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use crate::kubelet::Kubelet;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Node, Pod};
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_apiserver::{ApiServer, Config};
use skep_auth::{
    authentication::Chain,
    authorization::{AlwaysAllow, Union},
    pki::{Pki, PkiOptions},
};
use skep_client::{Client, Patch, PatchParams};
use skep_node_agent::{AgentConfig, PurgeOptions, purge, server::TlsFiles};
use skep_registry::{Options, Registry};
use skep_runtime::{Reference, Runtime};
use skep_storage::embedded::{self, Embedded};
use tokio::sync::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) const IMAGE: &str = "localhost/busybox:1";
const NODE: &str = "node-1";
const PATIENCE: Duration = Duration::from_secs(30);

fn available() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let tools = ["containerd", "runc", "busybox", "ip"]
        .iter()
        .all(|name| skep_runtime::daemon::find_program(name).is_some());
    if root && tools {
        return true;
    }
    assert!(
        std::env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(),
        "needs root, containerd, runc, busybox and ip"
    );
    eprintln!("SKIPPED: needs root, containerd, runc, busybox and ip");
    false
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {arguments}");
}

/// Runs a test in a fresh cluster.
pub(crate) fn with_cluster<F>(body: impl FnOnce(Arc<Cluster>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if !available() {
        return;
    }
    // All threads of the runtime come from this one and live in its namespace.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link set lo up");
    ip("link add uplink type veth peer name segment");
    ip("link set segment up");
    ip("addr add 192.0.2.10/24 dev uplink");
    ip("link set uplink up");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let cluster = Arc::new(Cluster::start().await);
        let outcome = tokio::spawn(body(cluster.clone())).await;
        cluster.stop().await;
        if let Err(failure) = outcome {
            std::panic::resume_unwind(failure.into_panic());
        }
    });
}

struct Life {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), skep_node_agent::Error>>,
}

pub(crate) struct Cluster {
    api: ApiServer,
    client: Client,
    config: AgentConfig,
    pki: Pki,
    cancel: CancellationToken,
    life: Mutex<Option<Life>>,
    dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        if std::env::var_os("SKEP_LOG").is_some() {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_env("SKEP_LOG"))
                .init();
        }
        let dir = tempfile::Builder::new().prefix("skep-na-").tempdir().expect("a folder");
        let storage = Embedded::open(dir.path().join("store.redb"), embedded::Options::default())
            .await
            .expect("a store");
        let cancel = CancellationToken::new();
        let options =
            Options { service_ranges: vec!["10.96.0.0/16".parse().expect("a range")], ..Options::default() };
        let registry =
            Registry::start(storage, options, &TaskTracker::new(), cancel.clone()).await.expect("a registry");
        let authorization = Arc::new(Union::new(vec![Box::new(AlwaysAllow)]));
        let api = ApiServer::build(Config::new(registry, Chain::new(Vec::new(), true), authorization));
        let client =
            Client::in_process(api.router(), UserInfo::new("system:node:node-1", ["system:masters"]));
        let pki = Pki::load_or_create(&dir.path().join("pki"), &PkiOptions::default()).expect("a PKI");
        let pair = pki
            .issue_server("system:node:node-1", &[], &["192.0.2.10".parse().expect("an address")])
            .expect("a certificate");
        let tls = TlsFiles {
            cert_pem: pair.cert_pem.clone(),
            key_pem: pair.key_pem.clone(),
            client_ca_pem: pki.ca_pem().to_owned(),
            files: None,
        };
        let at = |name: &str| dir.path().join(name);
        let mut config =
            AgentConfig::new(NODE, vec!["192.0.2.10".parse().expect("an address")], client.clone(), tls);
        config.state_dir = at("state");
        config.containerd_root = at("containerd");
        config.run_dir = at("run");
        config.log_dir = at("logs");
        config.pin_dir = at("pins");
        config.data_plane = false;
        config.cgroup = Some(format!("skep-test-{}", std::process::id()));
        let here = std::env::current_exe().expect("a path");
        config.log_writer =
            here.parent().and_then(Path::parent).expect("a target folder").join("examples/log_writer");
        fs::create_dir_all(&config.run_dir).expect("a folder");
        let cluster = Self { api, client, config, pki, cancel, life: Mutex::new(None), dir };
        cluster.import().await;
        cluster.start_agent().await;
        let namespace = json!({ "metadata": { "name": "default" } });
        let namespaces = cluster.client.all::<k8s_openapi::api::core::v1::Namespace>();
        for name in ["default", "kube-node-lease", "kube-system"] {
            let mut namespace = namespace.clone();
            namespace["metadata"]["name"] = json!(name);
            match namespaces.create(&serde_json::from_value(namespace).expect("a namespace")).await {
                Err(error) if !error.is_already_exists() => panic!("{error}"),
                _ => {}
            }
        }
        cluster.give_range().await;
        cluster
    }

    /// What the node controller would do.
    async fn give_range(&self) {
        let patch =
            Patch::Merge(json!({ "spec": { "podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"] } }));
        let nodes = self.client.all::<Node>();
        for _ in 0..500 {
            match nodes.patch(NODE, &patch, &PatchParams::default()).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the node does not register");
    }

    /// Puts the image into the agent's containerd before the agent comes.
    async fn import(&self) {
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let mut config = skep_runtime::RuntimeConfig::new(&self.config.containerd_root, &self.config.run_dir);
        config.log_writer.clone_from(&self.config.log_writer);
        let runtime = Runtime::start(config, tracker.clone(), cancel.clone()).await.expect("containerd");
        let layout = self.dir.path().join("layout");
        busybox_layout(&layout);
        runtime.import(&layout, &Reference::parse(IMAGE).expect("a name")).await.expect("an image");
        cancel.cancel();
        tracker.close();
        tracker.wait().await;
    }

    async fn start_agent(&self) {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(skep_node_agent::run(self.config.clone(), cancel.clone()));
        *self.life.lock().await = Some(Life { cancel, task });
    }

    async fn stop_agent(&self) {
        if let Some(life) = self.life.lock().await.take() {
            life.cancel.cancel();
            let ended = tokio::time::timeout(PATIENCE, life.task).await.expect("the agent stops");
            ended.expect("no panic").expect("the agent ends well");
        }
    }

    pub(crate) async fn restart_agent(&self) {
        self.stop_agent().await;
        self.start_agent().await;
    }

    async fn stop(&self) {
        self.stop_agent().await;
        self.api.close();
        self.cancel.cancel();
        let options = PurgeOptions::from(&self.config);
        purge(options.clone()).await.expect("a purge");
        purge(options).await.expect("a second purge");
        let group = self.config.cgroup.as_deref().expect("a group");
        skep_runtime::cgroup::Hierarchies::probe().expect("cgroups").remove(group).await.expect("removed");
        for path in
            [&self.config.state_dir, &self.config.containerd_root, &self.config.run_dir, &self.config.log_dir]
        {
            assert!(!path.exists(), "{} is left", path.display());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(!mounts.contains(self.dir.path().to_str().expect("text")), "mounts are left");
    }

    /// A connection to the kubelet API with a client certificate, or without one.
    pub(crate) fn kubelet(&self, identity: Option<(&str, &[&str])>) -> Kubelet {
        let pair = identity.map(|(name, groups)| self.pki.issue_client(name, groups).expect("a certificate"));
        Kubelet::new(self.pki.ca_pem(), pair.as_ref().map(|pair| (&*pair.cert_pem, &*pair.key_pem)))
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Creates a pod that is bound to the node already.
    pub(crate) async fn run_pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        let pod = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.client.namespaced::<Pod>("default").create(&pod).await.expect("created");
    }

    /// Waits until a pod is as it should be.
    pub(crate) async fn wait(&self, name: &str, good: impl Fn(&Pod) -> bool) -> Pod {
        let api = self.client.namespaced::<Pod>("default");
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let pod = api.get(name).await.expect("the pod");
            if good(&pod) {
                return pod;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "{name}: {}",
                serde_json::to_string_pretty(&pod.status).expect("JSON")
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn gone(&self, name: &str) {
        let api = self.client.namespaced::<Pod>("default");
        let end = tokio::time::Instant::now() + PATIENCE;
        while api.get_opt(name).await.expect("an answer").is_some() {
            assert!(tokio::time::Instant::now() < end, "{name} stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn log(&self, pod: &Pod, container: &str, attempt: u32) -> String {
        let uid = pod.metadata.uid.as_deref().expect("a uid");
        let name = pod.metadata.name.as_deref().expect("a name");
        let folder = skep_runtime::logs::pod_folder(&self.config.log_dir, "default", name, uid);
        let log = skep_runtime::logs::container_log(&folder, container, attempt);
        let text = fs::read_to_string(log).expect("a log");
        text.lines().map(|l| format!("{}\n", l.splitn(4, ' ').nth(3).unwrap_or_default())).collect()
    }

    /// Files and pins of pods that are there.
    pub(crate) async fn leftovers(&self) -> Vec<PathBuf> {
        let folders = [
            self.config.state_dir.join("pods"),
            self.config.run_dir.join("pods"),
            self.config.run_dir.join("netns"),
            self.config.log_dir.clone(),
        ];
        folders
            .iter()
            .filter_map(|f| fs::read_dir(f).ok())
            .flat_map(|entries| entries.flatten().map(|e| e.path()))
            .collect()
    }
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn first(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

pub(crate) fn waiting(pod: &Pod) -> Option<String> {
    first(pod)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

pub(crate) fn restarts(pod: &Pod) -> i32 {
    first(pod).map_or(0, |s| s.restart_count)
}

pub(crate) fn terminated(pod: &Pod) -> ContainerStateTerminated {
    first(pod).and_then(|s| s.state.clone()).and_then(|s| s.terminated).expect("a terminated container")
}

/// An OCI layout with one layer: the machine's static busybox.
fn busybox_layout(root: &Path) {
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let tree = root.join("tree");
    for dir in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(tree.join(dir)).expect("a folder");
    }
    let busybox = skep_runtime::daemon::find_program("busybox").expect("busybox");
    fs::copy(busybox, tree.join("bin/busybox")).expect("a copy");
    for applet in ["sh", "cat", "hostname", "sleep", "false", "true", "stty", "nc", "echo", "seq", "ps"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).expect("a link");
    }
    let layer = root.join("layer.tar");
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-cf"])
        .arg(&layer)
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status()
        .expect("tar");
    assert!(status.success());
    let put = |bytes: &[u8]| {
        let digest = skep_runtime::image::manifest::digest_of(bytes);
        fs::write(blobs.join(&digest["sha256:".len()..]), bytes).expect("written");
        (digest, bytes.len())
    };
    let (layer_digest, layer_size) = put(&fs::read(&layer).expect("a layer"));
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] } });
    let (config_digest, config_size) = put(config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size }] });
    let (digest, size) = put(manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size }] });
    fs::write(root.join("index.json"), index.to_string()).expect("written");
}
