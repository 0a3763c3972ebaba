//! The seam to the eBPF data path: what the pod network asks of it, and the adapter to the loader.

use std::net::IpAddr;

use ipnet::IpNet;
use skep_ebpf_loader::DataPlane;

/// Why the data path refused.
pub type DataPathError = Box<dyn std::error::Error + Send + Sync>;

/// Where the pod that owns an address is to be found on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodEndpoint {
    /// The host's end of the pod's veth pair.
    pub host_ifindex: u32,
    /// The hardware address of the pod's end.
    pub pod_mac: [u8; 6],
    /// The hardware address of the host's end.
    pub host_mac: [u8; 6],
}

/// What lies behind the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// The node's own addresses inside the tunnel.
    pub sources: Vec<IpAddr>,
    /// Pod ranges of other nodes.
    pub ranges: Vec<TunnelRange>,
}

/// A pod range behind the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelRange {
    /// The range.
    pub network: IpNet,
    /// The address of the node that has it, on the network that carries the tunnel.
    pub remote: IpAddr,
    /// This node's address there.
    pub local: IpAddr,
}

/// The eBPF data path as pods need it. Every call is idempotent and short: it may run on an async thread.
pub trait PodDataPath: Send + Sync + 'static {
    /// Attaches the pod programs to the host's end of a pod's veth pair.
    ///
    /// # Errors
    /// When the kernel refuses a program or link.
    fn attach_pod(&self, host_ifindex: u32) -> Result<(), DataPathError>;

    /// Detaches what [`Self::attach_pod`] attached; nothing attached is success.
    ///
    /// # Errors
    /// When the kernel refuses to detach.
    fn detach_pod(&self, host_ifindex: u32) -> Result<(), DataPathError>;

    /// Attaches the uplink programs to an interface that leads out of the node.
    ///
    /// # Errors
    /// When the kernel refuses a program or link.
    fn attach_uplink(&self, ifindex: u32) -> Result<(), DataPathError>;

    /// Detaches what [`Self::attach_uplink`] attached; nothing attached is success.
    ///
    /// # Errors
    /// When the kernel refuses to detach.
    fn detach_uplink(&self, ifindex: u32) -> Result<(), DataPathError>;

    /// Tells the programs where an address lives.
    ///
    /// # Errors
    /// When the map refuses the entry.
    fn set_endpoint(&self, address: IpAddr, endpoint: &PodEndpoint) -> Result<(), DataPathError>;

    /// Takes an address out of the endpoint map; absent is success.
    ///
    /// # Errors
    /// When the map refuses the deletion.
    fn remove_endpoint(&self, address: IpAddr) -> Result<(), DataPathError>;

    /// Attaches the tunnel programs to the VXLAN device.
    ///
    /// # Errors
    /// When the kernel refuses a program or link.
    fn attach_tunnel(&self, ifindex: u32) -> Result<(), DataPathError>;

    /// Detaches what [`Self::attach_tunnel`] attached; nothing attached is success.
    ///
    /// # Errors
    /// When the kernel refuses to detach.
    fn detach_tunnel(&self, ifindex: u32) -> Result<(), DataPathError>;

    /// Says what lies behind the tunnel, in place of what was said before.
    ///
    /// # Errors
    /// When the map refuses an entry.
    fn set_tunnel(&self, tunnel: &Tunnel) -> Result<(), DataPathError>;

    /// Names the other nodes that know the way to this node's pods, in place of those named before: pods reach
    /// them under their own address.
    ///
    /// # Errors
    /// When the map refuses an entry.
    fn set_peer_nodes(&self, addresses: &[IpAddr]) -> Result<(), DataPathError>;
}

/// The data plane in the kernel. Interface indexes mean what they mean in the calling thread's namespace, so
/// the process must be in the node's.
impl PodDataPath for DataPlane {
    fn attach_pod(&self, host_ifindex: u32) -> Result<(), DataPathError> {
        Ok(Self::attach_pod(self, host_ifindex)?)
    }

    fn detach_pod(&self, host_ifindex: u32) -> Result<(), DataPathError> {
        Ok(Self::detach_pod(self, host_ifindex)?)
    }

    fn attach_uplink(&self, ifindex: u32) -> Result<(), DataPathError> {
        Ok(Self::attach_uplink(self, ifindex)?)
    }

    fn detach_uplink(&self, ifindex: u32) -> Result<(), DataPathError> {
        Ok(Self::detach_uplink(self, ifindex)?)
    }

    fn set_endpoint(&self, address: IpAddr, endpoint: &PodEndpoint) -> Result<(), DataPathError> {
        let PodEndpoint { host_ifindex: ifindex, pod_mac, host_mac } = *endpoint;
        Ok(Self::set_endpoint(self, address, &skep_ebpf_loader::Endpoint { ifindex, pod_mac, host_mac })?)
    }

    fn remove_endpoint(&self, address: IpAddr) -> Result<(), DataPathError> {
        Ok(Self::remove_endpoint(self, address)?)
    }

    fn attach_tunnel(&self, ifindex: u32) -> Result<(), DataPathError> {
        Ok(Self::attach_tunnel(self, ifindex)?)
    }

    fn detach_tunnel(&self, ifindex: u32) -> Result<(), DataPathError> {
        Ok(Self::detach_tunnel(self, ifindex)?)
    }

    fn set_tunnel(&self, tunnel: &Tunnel) -> Result<(), DataPathError> {
        let range = |range: &TunnelRange| skep_ebpf_loader::TunnelRange {
            network: range.network.network(),
            length: range.network.prefix_len(),
            remote: range.remote,
            local: range.local,
        };
        let ranges = tunnel.ranges.iter().map(range).collect();
        Ok(Self::set_tunnel(self, &skep_ebpf_loader::Tunnel { sources: tunnel.sources.clone(), ranges })?)
    }

    fn set_peer_nodes(&self, addresses: &[IpAddr]) -> Result<(), DataPathError> {
        Ok(Self::set_peer_nodes(self, addresses)?)
    }
}
