//! An Ethernet segment: a bridge in a namespace of its own, with a port per box.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use ipnet::IpNet;

use crate::NetBox;

/// A switch that boxes are plugged into.
#[derive(Debug)]
pub struct Segment {
    switch: NetBox,
    ports: AtomicU32,
}

impl Segment {
    /// Makes an empty segment.
    ///
    /// # Errors
    /// When the namespace or the bridge cannot be made.
    pub fn new(label: &str) -> Result<Self> {
        let switch = NetBox::new(label)?;
        // No spanning tree: ports forward at once.
        switch.ip("link add switch type bridge stp_state 0 mcast_snooping 0")?;
        switch.ip("link set switch up")?;
        Ok(Self { switch, ports: AtomicU32::new(0) })
    }

    /// Plugs a box in: it gets an interface with these addresses. Returns the interface's name in the box.
    ///
    /// # Errors
    /// When the kernel refuses an interface or address.
    pub fn plug(&self, netbox: &NetBox, addresses: &[IpNet]) -> Result<String> {
        ensure!(!addresses.is_empty(), "a port needs an address");
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        let inside = format!("net{port}");
        self.switch.ip(&format!("link add {port} type veth peer name {inside} netns {}", netbox.name()))?;
        self.switch.ip(&format!("link set {port} master switch up"))?;
        for address in addresses {
            // Without nodad an IPv6 address cannot be used for a second.
            let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
            netbox.ip(&format!("address add {address} dev {inside}{nodad}"))?;
        }
        netbox.ip(&format!("link set {inside} up"))?;
        Ok(inside)
    }

    /// Makes a port for a virtual machine: a tap device in the switch's namespace, where the emulator must run too.
    /// Returns its name.
    ///
    /// # Errors
    /// When the kernel refuses the device.
    pub fn tap(&self) -> Result<String> {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        self.switch.ip(&format!("tuntap add dev {port} mode tap"))?;
        self.switch.ip(&format!("link set {port} master switch up"))?;
        Ok(port)
    }

    /// The namespace of the switch: to capture, to delay, to cut.
    #[must_use]
    pub fn switch(&self) -> &NetBox {
        &self.switch
    }
}
