//! What the programs know of other nodes: whose pods lie behind the tunnel, and who knows the way to ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::node::keep;
use skep_ebpf_abi::tunnel::{Remote, TunnelConfig};

use super::DataPlane;
use crate::error::Result;
use crate::kernel_map::KernelMap;
use crate::links::{self, TUNNEL_HOOKS};
use crate::service_maps::Prefix;

/// The tunnel as the programs need it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tunnel {
    /// The node's own addresses inside the tunnel, at most one of each family.
    pub sources: Vec<IpAddr>,
    /// What lies behind it.
    pub ranges: Vec<TunnelRange>,
}

/// A pod range behind the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TunnelRange {
    /// The range's network address.
    pub network: IpAddr,
    /// Its prefix length.
    pub length: u8,
    /// The address of the node that has it.
    pub remote: IpAddr,
    /// The address of this node that packets to it are sent from; of the same family.
    pub local: IpAddr,
}

impl DataPlane {
    /// Runs the tunnel programs on the VXLAN device. Again is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_tunnel(&self, ifindex: u32) -> Result<()> {
        let mut programs = self.programs();
        TUNNEL_HOOKS
            .into_iter()
            .try_for_each(|hook| links::attach_interface(&mut programs, &self.pins, ifindex, hook))
    }

    /// Undoes [`attach_tunnel`](Self::attach_tunnel); not attached is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_tunnel(&self, ifindex: u32) -> Result<()> {
        TUNNEL_HOOKS.into_iter().try_for_each(|hook| links::detach_interface(&self.pins, ifindex, hook))
    }

    /// Says what lies behind the tunnel, in place of what was said before.
    ///
    /// # Errors
    /// When the map is full or the kernel refuses.
    pub fn set_tunnel(&self, tunnel: &Tunnel) -> Result<()> {
        let maps = self.pins.maps();
        let ranges: KernelMap<Prefix<Addr>, Remote> = KernelMap::open(&maps, "tunnels")?;
        let own: KernelMap<u32, TunnelConfig> = KernelMap::open(&maps, "tunnel")?;
        let source = |v4: bool| {
            tunnel
                .sources
                .iter()
                .find(|source| source.is_ipv4() == v4)
                .map_or(Addr::UNSPECIFIED, |&a| a.into())
        };
        own.put(&0, &TunnelConfig { source_v4: source(true), source_v6: source(false) })?;
        let mut wanted = BTreeSet::new();
        for range in &tunnel.ranges {
            let key = Prefix::new(range.network, range.length);
            ranges.put(&key, &Remote { addr: range.remote.into(), local: range.local.into() })?;
            wanted.insert(key);
        }
        for (key, _) in ranges.entries()? {
            if !wanted.contains(&key) {
                ranges.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Lets pods reach other nodes under their own address: those that have routes to this node's pods. A node
    /// that speaks to a pod would not know the answer if it came from somewhere else.
    ///
    /// # Errors
    /// When the map is full or the kernel refuses.
    pub fn set_peer_nodes(&self, addresses: &[IpAddr]) -> Result<()> {
        let length = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let networks: Vec<_> = addresses.iter().map(|address| (*address, length(address))).collect();
        self.keep(keep::NODES, &networks)
    }

    /// Brings the networks that `owner` (a bit of [`keep`]) wants into the map; those of others stay.
    pub(super) fn keep(&self, owner: u32, networks: &[(IpAddr, u8)]) -> Result<()> {
        let _guard = self.node_guard();
        let mut wanted: BTreeSet<Prefix<Addr>> =
            networks.iter().map(|&(network, length)| Prefix::new(network, length)).collect();
        // Not by looking single ones up: the map answers with the longest match.
        for (network, owners) in self.keep_source.entries()? {
            let is_wanted = wanted.remove(&network);
            let next = if is_wanted { owners | owner } else { owners & !owner };
            if next == 0 {
                self.keep_source.remove(&network)?;
            } else if next != owners {
                self.keep_source.put(&network, &next)?;
            }
        }
        wanted.iter().try_for_each(|network| self.keep_source.put(network, &owner))
    }
}
