//! A node with a client pod and a server pod.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use skep_ebpf_loader::{DataPlane, LoadOptions};
use skep_network::{NetworkConfig, PodAttachment, PodDataPath, PodNetwork, PodRequest};
use skep_tests::{NetBox, cgroup::CgroupTree};

const VIP_PORT: u16 = 80;

/// The ClusterIP of a service.
pub(crate) fn vip(number: usize) -> SocketAddr {
    let host = u32::try_from(number).expect("few services") + 10;
    SocketAddr::new(IpAddr::V4((u32::from(Ipv4Addr::new(10, 96, 0, 0)) + host).into()), VIP_PORT)
}

/// A node with a client pod and a server pod.
pub(crate) struct TestNode {
    pub(crate) pods: [PodAttachment; 2],
    pub(crate) data_plane: Option<Arc<DataPlane>>,
    pub(crate) config: NetworkConfig,
    pub(crate) cgroup: Arc<CgroupTree>,
    pub(crate) netbox: NetBox,
    pub(crate) pins: PathBuf,
}

impl TestNode {
    pub(crate) fn new(label: &str) -> Result<Self> {
        Self::make(label, |_, _| Ok(None))
    }

    pub(crate) fn with_data_plane(label: &str) -> Result<Self> {
        Self::make(label, |cgroup, pins| {
            let options = LoadOptions {
                pin_dir: pins.to_owned(),
                cgroup: Some(cgroup.unified().context("no cgroup v2 hierarchy")?.to_owned()),
                ..LoadOptions::default()
            };
            Ok(Some(Arc::new(DataPlane::load(options).context("load the data plane")?)))
        })
    }

    fn make(
        label: &str,
        load: impl FnOnce(&CgroupTree, &Path) -> Result<Option<Arc<DataPlane>>> + Send,
    ) -> Result<Self> {
        let netbox = NetBox::new(label)?;
        let dir = netbox.dir()?;
        let cgroup = Arc::new(CgroupTree::create(netbox.name())?);
        let pins = Path::new("/sys/fs/bpf").join(netbox.name());
        netbox.ip("address add 192.168.77.1/32 dev lo")?;
        // Everything about interfaces happens inside the node's namespace, attaching programs too.
        let (data_plane, config, pods) = netbox.run_async(|| async {
            let data_plane = load(&cgroup, &pins)?;
            let config = NetworkConfig {
                run_dir: dir.join("run"),
                state_dir: dir.join("state"),
                pod_cidrs: vec!["10.244.1.0/24".parse()?],
                service_cidrs: vec!["10.96.0.0/12".parse()?],
                node_ips: vec!["192.168.77.1".parse()?],
                data_plane: data_plane.clone().map(|plane| plane as Arc<dyn PodDataPath>),
                ..NetworkConfig::default()
            };
            let network = PodNetwork::new(config.clone()).await?;
            let pod = |uid: &str| PodRequest { uid: uid.into(), namespace: "bench".into(), name: uid.into() };
            let pods = [network.setup(&pod("client")).await?, network.setup(&pod("server")).await?];
            anyhow::Ok((data_plane, config, pods))
        })??;
        Ok(Self { pods, data_plane, config, cgroup, netbox, pins })
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let purged = self.netbox.run_async(|| async {
            PodNetwork::purge(&self.config.run_dir, &self.config.state_dir).await?;
            if self.data_plane.is_some() {
                DataPlane::purge(&self.pins)?;
            }
            anyhow::Ok(())
        });
        if let Err(error) = purged.and_then(std::convert::identity) {
            eprintln!("node {} leaves something behind: {error:#}", self.netbox.name());
        }
    }
}
