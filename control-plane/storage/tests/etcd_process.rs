//! Real etcd processes on loopback that a test starts, kills and starts again, and a proxy that cuts
//! connections. Shared by the tests of several crates.

#![allow(dead_code)] // each crate uses a part

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skep_storage::{Etcd, EtcdConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;

const REQUIRE: &str = "SKEP_TEST_REQUIRE_ALL";

/// How long a cluster may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

struct Member {
    child: Mutex<Option<Child>>,
    arguments: Vec<String>,
    client: u16,
}

/// A cluster of etcd processes; ends with this value, also when a test fails.
pub(crate) struct Cluster {
    members: Vec<Member>,
    _data: tempfile::TempDir,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("has an address").port()
}

impl Cluster {
    /// `None`, said loudly, when there is no etcd here.
    pub(crate) fn start(size: usize) -> Option<Self> {
        let data = tempfile::tempdir().expect("a folder");
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> =
            ports.iter().enumerate().map(|(n, (_, peer))| format!("m{n}={}", url(*peer))).collect();
        let member = |(n, (client, peer)): (usize, &(u16, u16))| {
            let (folder, client_url, peer_url) =
                (data.path().join(format!("m{n}")), url(*client), url(*peer));
            let arguments = [
                ("--name", format!("m{n}")),
                ("--log-level", "error".to_owned()),
                ("--data-dir", folder.display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url),
                ("--initial-cluster", all.join(",")),
            ];
            let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
            Member { child: Mutex::new(None), arguments: arguments.collect(), client: *client }
        };
        let members: Vec<Member> = ports.iter().enumerate().map(member).collect();
        for member in &members {
            if let Err(error) = member.spawn() {
                let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
                assert!(!required, "etcd is required ({REQUIRE}=1) and can't be started: {error}");
                eprintln!("SKIPPED: etcd can't be started ({error}); install etcd-server to run this test");
                return None;
            }
        }
        Some(Self { members, _data: data })
    }

    /// The ports clients connect to.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// How to reach all members.
    pub(crate) fn config(&self, prefix: &str) -> EtcdConfig {
        config(&self.ports(), prefix)
    }

    /// Kills a member.
    pub(crate) fn kill(&self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member again.
    pub(crate) fn revive(&self, member: usize) {
        self.members[member].spawn().expect("starts again");
    }

    /// Kills all members and starts them again.
    pub(crate) fn restart(&self) {
        self.members.iter().for_each(Member::kill);
        for member in &self.members {
            member.spawn().expect("starts again");
        }
    }
}

/// How to reach an etcd at these ports of loopback.
pub(crate) fn config(ports: &[u16], prefix: &str) -> EtcdConfig {
    EtcdConfig {
        endpoints: ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
        prefix: prefix.into(),
        ..EtcdConfig::default()
    }
}

/// Connects, waiting until somebody answers.
pub(crate) async fn connect(config: EtcdConfig) -> Arc<Etcd> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Etcd::connect(config.clone()).await {
            Ok(store) => return store,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "etcd does not come up: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Member {
    fn spawn(&self) -> std::io::Result<()> {
        let child = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(())
    }

    fn kill(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            eprintln!("etcd can't be ended: {error}");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A proxy before a port of loopback that cuts its connections when it is told to.
pub(crate) struct Cutter {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    closed: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Cutter {
    /// A proxy to `port`.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let (cuts, _) = watch::channel(0);
        let closed = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (cuts, closed) = (cuts.clone(), closed.clone());
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let Ok((mut near, _)) = listener.accept().await else { continue };
                    if closed.load(Ordering::Relaxed) {
                        continue;
                    }
                    let mut cut = cuts.subscribe();
                    connections.spawn(async move {
                        let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                            _ = cut.changed() => {}
                        }
                    });
                }
            }
        });
        Self { address, cuts, closed, task }
    }

    /// The port of the proxy.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets no connection through, or again.
    pub(crate) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
        if closed {
            self.cut();
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}
