//! Service addresses and node ports.
//!
//! An allocation is a key in the store, written in the very transaction that writes the service under the
//! condition that the key does not exist, and deleted in the one that deletes or changes the service. The
//! key of an address is that of its IPAddress object, so what users write there counts as well; the key of
//! a node port lies apart (`/skep/allocations/port/…`). So two services never share an address, whatever
//! servers do at the same time. The pools in memory only choose what to try; they are rebuilt from the
//! keys at start, and a repair loop removes keys no service owns.

mod bitmap;
mod follow;
mod migrate;
mod pool;
mod ranges;
mod repair;
mod service;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use serde_json::json;
use skep_storage::{Compare, Op, Target};

pub(crate) use follow::follow;
pub(crate) use migrate::migrate;
pub(crate) use repair::{load, repair};
pub(crate) use service::{carry_over, held, plan};

use pool::Ports;
use ranges::Addresses;

use crate::store::{new_uid, now};

/// Where node ports are kept, and where addresses were before they were objects.
pub(crate) const PREFIX: &str = "/skep/allocations/";
/// Where IPAddress objects are.
const ADDRESSES: &str = "/registry/networking.k8s.io/ipaddresses/";
/// Where ServiceCIDR objects are.
const RANGES: &str = "/registry/networking.k8s.io/servicecidrs/";
/// Who manages an IPAddress, and the value that says that this allocator does.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
/// The family of an IPAddress.
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// The pools of a cluster.
#[derive(Debug)]
pub(crate) struct Allocators {
    addresses: Addresses,
    ports: Ports,
}

impl Allocators {
    /// Empty pools. `service_ranges`: one a family, the default family first.
    pub(crate) fn new(service_ranges: &[IpNet], node_ports: RangeInclusive<u16>) -> Self {
        let mut configured: Vec<IpNet> = Vec::new();
        for net in service_ranges {
            if !configured.iter().any(|other| family(other.addr()) == family(net.addr())) {
                configured.push(*net);
            }
        }
        Self { addresses: Addresses::new(configured), ports: Ports::new(node_ports) }
    }

    /// The ranges the server was started with.
    pub(crate) fn configured(&self) -> &[IpNet] {
        self.addresses.configured()
    }

    fn take(&self, what: Allocation) -> bool {
        match what {
            Allocation::Address(address) => self.addresses.take(address),
            Allocation::Port(port) => self.ports.take(port),
        }
    }

    fn release(&self, what: Allocation) {
        match what {
            Allocation::Address(address) => self.addresses.release(address),
            Allocation::Port(port) => self.ports.release(port),
        }
    }
}

/// The name of an address family.
pub(crate) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// One allocated thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Allocation {
    /// A service address.
    Address(IpAddr),
    /// A node port. It belongs to a service for every protocol.
    Port(u16),
}

impl Allocation {
    /// Its key in the store.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Address(address) => format!("{ADDRESSES}{address}"),
            Self::Port(port) => format!("{PREFIX}port/{port}"),
        }
    }

    /// From a key.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        if let Some(address) = key.strip_prefix(ADDRESSES) {
            return address.parse().ok().map(Self::Address);
        }
        key.strip_prefix(PREFIX)?.strip_prefix("port/")?.parse().ok().map(Self::Port)
    }

    /// What its key holds: the owner (`namespace/name`), or for an address the object that names it.
    fn value(self, owner: &str) -> Bytes {
        let Self::Address(address) = self else { return Bytes::from(owner.to_owned()) };
        let (namespace, name) = owner.split_once('/').unwrap_or_default();
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {
                "name": address.to_string(),
                "uid": new_uid(),
                "creationTimestamp": now(),
                "labels": {FAMILY: family(address), MANAGED_BY: MANAGER},
            },
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
        });
        Bytes::from(object.to_string())
    }
}

/// What a write of a service takes and gives back. Dropping it without [`Changes::commit`] puts what
/// it took back into the pools.
#[derive(Debug)]
pub(crate) struct Changes {
    pools: Arc<Allocators>,
    owner: String,
    taken: Vec<Allocation>,
    freed: Vec<Allocation>,
    committed: bool,
}

impl Changes {
    pub(crate) fn new(pools: &Arc<Allocators>, owner: impl Into<String>) -> Self {
        Self {
            pools: pools.clone(),
            owner: owner.into(),
            taken: Vec::new(),
            freed: Vec::new(),
            committed: false,
        }
    }

    /// Gives everything of a deleted service back.
    pub(crate) fn free(&mut self, all: Vec<Allocation>) {
        self.freed.extend(all);
    }

    /// The conditions of the transaction.
    pub(crate) fn compares(&self) -> impl Iterator<Item = Compare> {
        self.taken.iter().map(|what| Compare { key: what.key(), target: Target::CreateRevision(0) })
    }

    /// The writes of the transaction.
    pub(crate) fn ops(&self) -> impl Iterator<Item = Op> {
        let put = |what: &Allocation| Op::Put { key: what.key(), value: what.value(&self.owner), lease: 0 };
        self.taken.iter().map(put).chain(self.freed.iter().map(|what| Op::Delete { key: what.key() }))
    }

    /// The transaction happened.
    pub(crate) fn commit(mut self) {
        self.committed = true;
        for what in &self.freed {
            self.pools.release(*what);
        }
    }

    /// The transaction failed because somebody else has some of these, told in the order of
    /// [`Changes::compares`]: those stay out of the pool until they are given back.
    pub(crate) fn settle(mut self, others: impl Iterator<Item = bool>) {
        self.committed = true;
        for (what, theirs) in self.taken.iter().zip(others) {
            if !theirs {
                self.pools.release(*what);
            }
        }
    }

    /// Nobody knows whether the transaction happened: what it took stays out of the pool, and the repair
    /// loop frees what turns out to be nobody's.
    pub(crate) fn conflict(mut self) {
        self.committed = true;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if !self.committed {
            for what in &self.taken {
                self.pools.release(*what);
            }
        }
    }
}
