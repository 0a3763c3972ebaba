//! The etcd engine on a real etcd that the test starts on loopback, and removes afterwards.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use skep_storage::{Etcd, EtcdConfig, Storage};

use crate::conformance::{self, Factory, PATIENCE, commit, get, put};

const REQUIRE: &str = "SKEP_TEST_REQUIRE_ALL";

/// A running etcd; ends with this value, also when a test fails.
struct Server {
    child: Mutex<Child>,
    data: tempfile::TempDir,
    port: u16,
    peer_port: u16,
}

impl Server {
    /// `None`, said loudly, when there is no etcd here.
    fn start() -> Option<Self> {
        let data = tempfile::tempdir().expect("a folder");
        let (port, peer_port) = (free_port(), free_port());
        match spawn(data.path(), port, peer_port) {
            Ok(child) => Some(Self { child: Mutex::new(child), data, port, peer_port }),
            Err(error) => {
                let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
                assert!(!required, "etcd is required ({REQUIRE}=1) and can't be started: {error}");
                eprintln!("SKIPPED: etcd can't be started ({error}); install etcd-server to run this test");
                None
            }
        }
    }

    fn config(&self, prefix: &str) -> EtcdConfig {
        EtcdConfig {
            endpoints: vec![format!("http://127.0.0.1:{}", self.port)],
            prefix: prefix.into(),
            ..EtcdConfig::default()
        }
    }

    fn restart(&self) {
        let mut child = self.child.lock().expect("no test panicked with it");
        child.kill().expect("kills");
        child.wait().expect("ends");
        *child = spawn(self.data.path(), self.port, self.peer_port).expect("starts again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = child.kill().and_then(|()| child.wait()) {
            eprintln!("etcd can't be ended: {error}");
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("has an address").port()
}

fn spawn(data: &Path, port: u16, peer_port: u16) -> std::io::Result<Child> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new("etcd")
        .args(["--name", "test", "--log-level", "error"])
        .arg("--data-dir")
        .arg(data)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

async fn connect(config: EtcdConfig) -> Arc<Etcd> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Etcd::connect(config.clone()).await {
            Ok(store) => return store,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "etcd does not come up: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct OnEtcd(Server);

#[async_trait]
impl Factory for OnEtcd {
    async fn open(&self) -> Arc<dyn Storage> {
        connect(self.0.config("/skep-test")).await
    }

    async fn restart(&self, store: Arc<dyn Storage>) -> Arc<dyn Storage> {
        self.0.restart();
        // The same handle must find its way back.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = store.current_revision().await {
            assert!(tokio::time::Instant::now() < deadline, "the handle does not come back: {error}");
        }
        store
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_conforms() {
    let Some(server) = Server::start() else { return };
    conformance::run(&OnEtcd(server)).await;
}

#[tokio::test]
async fn stores_of_two_prefixes_do_not_meet() {
    let Some(server) = Server::start() else { return };
    let left = connect(server.config("/left")).await;
    let right = connect(server.config("/right")).await;
    commit(&*left, vec![put("/registry/a", "left")]).await;
    assert!(get(&*right, "/registry/a").await.is_none());
    commit(&*right, vec![put("/registry/a", "right")]).await;
    assert_eq!(get(&*left, "/registry/a").await.map(|kv| kv.value), Some("left".into()));
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let config =
        EtcdConfig { endpoints: vec![format!("http://127.0.0.1:{}", free_port())], ..EtcdConfig::default() };
    let connected = Etcd::connect(config).await;
    assert!(matches!(connected, Err(skep_storage::Error::Unavailable(_))), "{:?}", connected.err());
}
