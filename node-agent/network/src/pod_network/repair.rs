//! Level-triggered passes over the node's side: whatever is not as wanted is made so, and the data path is told.

use std::{collections::BTreeMap, net::IpAddr, sync::atomic::Ordering};

use super::Node;
use crate::{
    Error, PodDataPath, Result, Tunnel,
    model::{Op, Seen},
    names,
    plan::{
        self, Strays,
        peers::{self, Ways},
    },
    sysctl,
};

/// What the data path was told of other nodes, so that it is told changes only. `None`: nothing since the start.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The tunnel's device with programs on it.
    device: Option<u32>,
    tunnel: Option<Tunnel>,
    nodes: Option<Vec<IpAddr>>,
}

fn refused(action: impl Into<String>) -> impl FnOnce(crate::DataPathError) -> Error {
    let action = action.into();
    move |source| Error::DataPath { action, source }
}

impl Node {
    /// The ways to other nodes' pods, once these are known.
    pub(super) async fn ways(&self, seen: &Seen) -> Option<Ways> {
        self.peers.read().await.as_deref().map(|known| peers::ways(&self.config, known, seen))
    }

    /// One pass. What fails in one place does not hold up the repair of another; the first error is told at the end.
    pub(crate) async fn repair(&self, strays: Strays) -> Result<()> {
        let mut seen = self.netlink.observe().await?;
        let ways = self.ways(&seen).await;
        let mut outcome = self.follow_uplinks(&seen).await;
        match self.follow_peers(ways.as_ref(), &seen).await {
            Ok(false) => {}
            Ok(true) => seen = self.netlink.observe().await?,
            Err(error) => outcome = outcome.and(Err(error)),
        }
        let (broken, repaired) = self.repair_node(ways.as_ref(), &seen, strays).await;
        outcome = outcome.and(repaired);
        for uid in broken {
            let _exclusive = self.locks.lock(&uid).await;
            // Asked again under the lock: a teardown may have come in between.
            let Some(ready) = self.ready.read().await.get(&uid).cloned() else { continue };
            tracing::info!(
                uid,
                interface = ready.record.host_interface,
                "making the pod's interface right again"
            );
            match self.realise(&ready.record).await {
                Ok(ready) => drop(self.ready.write().await.insert(uid, ready)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Repairs what is on the node's side alone; returns the pods whose interface is gone or has another MTU.
    async fn repair_node(
        &self,
        ways: Option<&Ways>,
        seen: &Seen,
        strays: Strays,
    ) -> (Vec<String>, Result<()>) {
        let ready = self.ready.read().await;
        let pods = ready.values().map(|ready| &ready.record);
        let mut wanted = plan::wanted_on_node(&self.config, pods, ways, seen);
        if self.services_by_stack.load(Ordering::Relaxed) {
            wanted.routes.extend(plan::service_routes(&self.config, seen));
        }
        let mut ops = plan::steps(&wanted, seen, strays);
        match ways {
            Some(ways) => ops.extend(plan::stale_peer_steps(ways, &wanted, seen)),
            None => ops.retain(|op| !plan::is_peer_route_deletion(op)),
        }
        let repaired = ops.len();
        let outcome = self.netlink.apply(&ops).await;
        if repaired > 0 {
            tracing::debug!(repaired, "node routes and interfaces repaired");
        }
        let mtu = plan::mtu(&self.config, ways, seen);
        let is_broken =
            |pod: &&super::Ready| pod.mtu != mtu || !seen.links.contains_key(&pod.record.host_interface);
        (ready.values().filter(is_broken).map(|pod| pod.record.uid.clone()).collect(), outcome)
    }

    /// Keeps the uplink programs on the interfaces that lead out, as these come and go.
    async fn follow_uplinks(&self, seen: &Seen) -> Result<()> {
        let Some(data_path) = &self.config.data_plane else { return Ok(()) };
        let wanted = plan::uplinks(&self.config, seen);
        let mut attached = self.uplinks.lock().await;
        for (name, index) in &wanted {
            if !attached.contains_key(index) {
                data_path.attach_uplink(*index).map_err(refused(format!("attach programs to {name}")))?;
                tracing::info!(interface = name, "uplink programs attached");
                attached.insert(*index, name.clone());
            }
        }
        let gone: Vec<u32> =
            attached.keys().copied().filter(|index| !wanted.values().any(|w| w == index)).collect();
        for index in gone {
            // An interface that is gone took its programs along; the call then cleans up their pins.
            data_path
                .detach_uplink(index)
                .map_err(refused(format!("detach programs from interface {index}")))?;
            attached.remove(&index);
        }
        Ok(())
    }

    /// Makes the tunnel where it is wanted, and tells the data path of the peers, before a route leads into the
    /// tunnel: what comes into it unknown is dropped there. Says whether the tunnel was made.
    async fn follow_peers(&self, ways: Option<&Ways>, seen: &Seen) -> Result<bool> {
        let Some(ways) = ways else { return Ok(false) };
        let mut told = self.told.lock().await;
        let made = ways.tunnels && self.ensure_tunnel(ways, seen).await?;
        if let Some(data_path) = self.config.data_plane.as_deref() {
            let links = if made { self.netlink.links().await? } else { BTreeMap::new() };
            let seen_links = if made { &links } else { &seen.links };
            let device = seen_links.get(names::TUNNEL).map(|link| link.index).filter(|_| ways.tunnels);
            let known = self.peers.read().await;
            let nodes = peers::native_nodes(&self.config, known.as_deref().unwrap_or(&[]), seen);
            drop(known);
            told.tell(data_path, device, peers::tunnel(&self.config, ways), nodes)?;
        } else if ways.tunnels {
            let why = "the tunnel to other nodes needs the eBPF programs, which are not loaded";
            return Err(Error::Config(why.to_owned()));
        }
        Ok(made)
    }

    /// Whether the tunnel's device was missing or wrong, and was made.
    async fn ensure_tunnel(&self, ways: &Ways, seen: &Seen) -> Result<bool> {
        if self.config.data_plane.is_none() {
            return Ok(false);
        }
        let wrong = peers::is_wrong_tunnel(&self.config, seen);
        if wrong {
            self.netlink.apply(&[Op::DeleteLink(names::TUNNEL.to_owned())]).await?;
        }
        if wrong || !seen.links.contains_key(names::TUNNEL) {
            let (mac, mtu) = peers::tunnel_link(&self.config, ways, seen);
            self.netlink.create_tunnel(names::TUNNEL, mac, mtu, self.config.tunnel_port()).await?;
            tracing::info!(interface = names::TUNNEL, port = self.config.tunnel_port(), mtu, "tunnel made");
            sysctl::set_passing(&self.namespace, super::host_interface_sysctls(names::TUNNEL)).await?;
            // Up and with its addresses, so that routes can name them as sources.
            let seen = self.netlink.observe().await?;
            let wanted = peers::tunnel_alone(&self.config, ways, &seen);
            self.netlink.apply(&plan::steps(&wanted, &seen, Strays::Keep)).await?;
            return Ok(true);
        }
        Ok(false)
    }
}

impl Told {
    fn tell(
        &mut self,
        data_path: &dyn PodDataPath,
        device: Option<u32>,
        tunnel: Tunnel,
        nodes: Vec<IpAddr>,
    ) -> Result<()> {
        if self.nodes.as_ref() != Some(&nodes) {
            data_path.set_peer_nodes(&nodes).map_err(refused("name the other nodes"))?;
            self.nodes = Some(nodes);
        }
        if self.tunnel.as_ref() != Some(&tunnel) {
            data_path.set_tunnel(&tunnel).map_err(refused("say what is behind the tunnel"))?;
            self.tunnel = Some(tunnel);
        }
        if self.device != device {
            if let Some(old) = self.device.take() {
                data_path.detach_tunnel(old).map_err(refused("detach programs from the tunnel"))?;
            }
            if let Some(new) = device {
                data_path.attach_tunnel(new).map_err(refused("attach programs to the tunnel"))?;
            }
            self.device = device;
        }
        Ok(())
    }
}
