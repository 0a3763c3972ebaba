//! A service's tables, seen the way rules are written: port by port, each with its addresses and endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use skep_ebpf_abi::service::frontend;

use super::Family;
use crate::desired::{DesiredSet, ServiceTables};
use crate::names::{BackendName, Scope, ServiceName, SetName};

/// One port of one service in one family.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct UnitName {
    pub(crate) service: ServiceName,
    pub(crate) port: String,
    pub(crate) protocol: u8,
    pub(crate) v6: bool,
}

impl UnitName {
    fn of(set: &SetName) -> Self {
        Self { service: set.service.clone(), port: set.port.clone(), protocol: set.protocol, v6: set.v6 }
    }

    pub(crate) fn family(&self) -> Family {
        if self.v6 { Family::V6 } else { Family::V4 }
    }

    /// The protocol as rules spell it.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.protocol {
            skep_ebpf_abi::UDP => "udp",
            skep_ebpf_abi::SCTP => "sctp",
            _ => "tcp",
        }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.protocol(), self.port)
    }
}

/// Where a client dials.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Place {
    /// A cluster IP.
    Cluster(IpAddr),
    /// An external or load balancer's IP, or the address of the node that a pod's host port is bound at.
    Outside(IpAddr),
    /// Every address of the node.
    Node,
}

/// What becomes of a first packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fate {
    /// An endpoint serves it.
    Served,
    /// Endpoints serve pods and the node itself; from outside it is dropped.
    ServedInside,
    /// The client is told that nobody serves.
    Rejected,
    /// The policy leaves nobody.
    Dropped,
}

/// An address and port of a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) port: u16,
    pub(crate) fate: Fate,
    /// The set for traffic from outside.
    pub(crate) external: Scope,
    /// Who may come, if not everybody.
    pub(crate) ranges: Option<Vec<IpNet>>,
}

/// One port of a service with all there is to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unit<'a> {
    pub(crate) name: UnitName,
    pub(crate) entries: Vec<Entry>,
    sets: BTreeMap<Scope, &'a DesiredSet>,
}

impl Unit<'_> {
    /// The endpoints of a scope.
    pub(crate) fn endpoints(&self, scope: Scope) -> impl ExactSizeIterator<Item = &BackendName> {
        static NONE: BTreeSet<BackendName> = BTreeSet::new();
        self.sets.get(&scope).map_or(&NONE, |set| &set.backends).iter()
    }

    /// Scopes that have endpoints.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.sets.iter().filter(|(_, set)| !set.backends.is_empty()).map(|(scope, _)| *scope)
    }

    /// Every endpoint of any scope.
    pub(crate) fn all_endpoints(&self) -> BTreeSet<&BackendName> {
        self.sets.values().flat_map(|set| &set.backends).collect()
    }

    /// How long a client keeps its endpoint; 0: it does not.
    pub(crate) fn affinity_seconds(&self) -> u32 {
        self.sets.values().map(|set| set.affinity_seconds).max().unwrap_or(0)
    }

    /// Entries for the world outside that somebody serves.
    pub(crate) fn outside(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !matches!(entry.place, Place::Cluster(_)))
    }
}

/// The units of a service.
pub(crate) fn units(tables: &ServiceTables) -> Vec<Unit<'_>> {
    let mut units: BTreeMap<UnitName, Unit<'_>> = BTreeMap::new();
    for (name, set) in &tables.sets {
        let unit = UnitName::of(name);
        let fresh = || Unit { name: unit.clone(), entries: Vec::new(), sets: BTreeMap::new() };
        units.entry(unit.clone()).or_insert_with(fresh).sets.insert(name.scope, set);
    }
    for (key, value) in &tables.frontends {
        let address: IpAddr = key.addr.into();
        let is_host_port = value.flags & frontend::KIND_MASK == frontend::HOST_PORT;
        if is_host_port && address.is_ipv6() && address.is_loopback() {
            // The kernel sends nothing from ::1 to elsewhere, whatever the destination becomes.
            continue;
        }
        let place = match value.flags & frontend::KIND_MASK {
            frontend::CLUSTER_IP => Place::Cluster(address),
            frontend::NODE_PORT => Place::Node,
            _ => Place::Outside(address),
        };
        let is_empty = |name: &SetName| tables.sets.get(name).is_none_or(|set| set.backends.is_empty());
        let drops = |name: &SetName| tables.sets.get(name).is_some_and(|set| set.drop_when_empty);
        let fate = if is_empty(&value.internal) {
            if drops(&value.internal) { Fate::Dropped } else { Fate::Rejected }
        } else if is_empty(&value.external) {
            Fate::ServedInside
        } else {
            Fate::Served
        };
        let ranges = (value.flags & frontend::SOURCE_RANGES != 0).then(|| {
            let own = tables.ranges.iter().filter(|(set, _)| *set == value.external);
            own.map(|(_, net)| *net).collect()
        });
        let port = u16::from_be(key.port_be);
        let entry = Entry { place, port, fate, external: value.external.scope, ranges };
        let Some(unit) = units.get_mut(&UnitName::of(&value.external)) else { continue };
        // A node port has a frontend for each address of the node.
        if !unit.entries.contains(&entry) {
            unit.entries.push(entry);
        }
    }
    units.into_values().collect()
}
