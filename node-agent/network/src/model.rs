//! The vocabulary of a namespace's network: what is wanted, what is there, what to do.
//!
//! Interfaces go by name here; only the kernel shell knows indexes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// An interface that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Mac,
    pub(crate) alias: String,
    /// The index of the other end, for a veth, in the other end's namespace.
    pub(crate) peer: Option<u32>,
    /// The port of a VXLAN device that takes its peers from each packet.
    pub(crate) tunnel_port: Option<u16>,
}

/// How an interface shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedLink {
    pub(crate) name: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<Mac>,
    pub(crate) alias: Option<String>,
}

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) target: Target,
    /// The preferred source address.
    pub(crate) source: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A neighbour on this interface.
    Interface(String),
    /// A router on this interface.
    Gateway(IpAddr, String),
    /// A router found through the other routes.
    Via(IpAddr),
    /// Another node's end of the tunnel, by its address inside.
    Tunnel(IpAddr),
    /// Nowhere, and the sender is told so.
    Unreachable,
}

/// A permanent neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) interface: String,
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) interface: String,
    pub(crate) net: IpNet,
}

/// What a namespace shall have. Anything else in it is left alone unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) links: Vec<WantedLink>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
}

impl Wanted {
    /// Leaves out what is not of one interface.
    pub(crate) fn keep_only(&mut self, interface: &str) {
        self.links.retain(|link| link.name == interface);
        self.addresses.retain(|address| address.interface == interface);
        self.neighbours.retain(|neighbour| neighbour.interface == interface);
        self.routes.retain(|route| matches!(&route.target, Target::Interface(name) if name == interface));
    }
}

/// What a namespace has: all interfaces and addresses, our routes, the permanent neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) links: BTreeMap<String, Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
    /// The interface of the default route with the lowest metric.
    pub(crate) uplink: Option<String>,
}

impl Seen {
    pub(crate) fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.net.addr() == ip)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    DeleteRoute(Route),
    DeleteLink(String),
    SetLink(WantedLink),
    AddAddress(Address),
    ReplaceRoute(Route),
    ReplaceNeighbour(Neighbour),
    DeleteNeighbour(Neighbour),
}
