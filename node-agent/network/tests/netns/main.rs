//! The pod network on real devices, each test in namespaces of its own. Needs root.
//!
//! A node is a box; its pods are made by [`PodNetwork`] inside it.

mod crash;
mod lifecycle;
mod masquerade;
mod plane;
mod repair;
mod traffic;
mod tunnel;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use skep_network::{DataPathError, NetworkConfig, PodDataPath, PodEndpoint, PodNetwork, PodRequest, Tunnel};
use skep_tests::NetBox;
use tokio::time::{Instant, sleep};

/// A node with its folders.
struct TestNode {
    netbox: NetBox,
    dir: PathBuf,
    config: NetworkConfig,
}

impl TestNode {
    fn new(label: &str) -> Result<Self> {
        let netbox = NetBox::new(label)?;
        let dir = netbox.dir()?;
        let config = Self::config_in(&dir)?;
        Ok(Self { netbox, dir, config })
    }

    fn config_in(dir: &Path) -> Result<NetworkConfig> {
        Ok(NetworkConfig {
            run_dir: dir.join("run"),
            state_dir: dir.join("state"),
            pod_cidrs: vec!["10.244.1.0/24".parse()?, "fd00:10:244:1::/64".parse()?],
            service_cidrs: vec!["10.96.0.0/16".parse()?, "fd00:10:96::/112".parse()?],
            cluster_cidrs: vec!["10.244.0.0/16".parse()?],
            ..NetworkConfig::default()
        })
    }

    /// Runs a test on the node's network and purges it after, whatever the outcome.
    fn test<F>(&self, work: impl FnOnce(PodNetwork) -> F + Send) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        self.netbox.run_async(|| async {
            let outcome = async { work(PodNetwork::new(self.config.clone()).await?).await }.await;
            let purged = PodNetwork::purge(&self.config.run_dir, &self.config.state_dir).await;
            outcome.and(purged.map_err(Into::into))
        })?
    }

    fn ip(&self, arguments: &str) -> Result<String> {
        self.netbox.ip(arguments)
    }

    fn in_pod(&self, netns: &Path, arguments: &str) -> Result<String> {
        let mut command = skep_tests::netbox::command_in(netns, None, "ip");
        skep_tests::succeed(command.args(arguments.split_whitespace()))
    }
}

fn pod(uid: &str) -> PodRequest {
    PodRequest { uid: uid.into(), namespace: "default".into(), name: format!("pod-{uid}") }
}

/// Asks again and again until the answer is yes; the time it took.
async fn eventually(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !ask()? {
        anyhow::ensure!(start.elapsed() < limit, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(start.elapsed())
}

/// What the pod network told the data path.
#[derive(Debug, Default)]
struct FakeDataPath {
    state: Mutex<FakeState>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FakeState {
    attached: Vec<u32>,
    uplinks: BTreeSet<u32>,
    endpoints: BTreeMap<IpAddr, PodEndpoint>,
    peers: Vec<IpAddr>,
    tunnel_device: Option<u32>,
    tunnel: Tunnel,
}

impl FakeDataPath {
    fn state(&self) -> FakeState {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PodDataPath for FakeDataPath {
    fn attach_pod(&self, host_ifindex: u32) -> Result<(), DataPathError> {
        let mut state = self.lock();
        if !state.attached.contains(&host_ifindex) {
            state.attached.push(host_ifindex);
        }
        Ok(())
    }

    fn detach_pod(&self, host_ifindex: u32) -> Result<(), DataPathError> {
        self.lock().attached.retain(|index| *index != host_ifindex);
        Ok(())
    }

    fn attach_uplink(&self, ifindex: u32) -> Result<(), DataPathError> {
        self.lock().uplinks.insert(ifindex);
        Ok(())
    }

    fn detach_uplink(&self, ifindex: u32) -> Result<(), DataPathError> {
        self.lock().uplinks.remove(&ifindex);
        Ok(())
    }

    fn set_endpoint(&self, address: IpAddr, endpoint: &PodEndpoint) -> Result<(), DataPathError> {
        self.lock().endpoints.insert(address, *endpoint);
        Ok(())
    }

    fn remove_endpoint(&self, address: IpAddr) -> Result<(), DataPathError> {
        self.lock().endpoints.remove(&address);
        Ok(())
    }

    fn attach_tunnel(&self, ifindex: u32) -> Result<(), DataPathError> {
        self.lock().tunnel_device = Some(ifindex);
        Ok(())
    }

    fn detach_tunnel(&self, _: u32) -> Result<(), DataPathError> {
        self.lock().tunnel_device = None;
        Ok(())
    }

    fn set_tunnel(&self, tunnel: &Tunnel) -> Result<(), DataPathError> {
        self.lock().tunnel = tunnel.clone();
        Ok(())
    }

    fn set_peer_nodes(&self, addresses: &[IpAddr]) -> Result<(), DataPathError> {
        self.lock().peers = addresses.to_vec();
        Ok(())
    }
}

fn fake() -> Arc<FakeDataPath> {
    Arc::default()
}
