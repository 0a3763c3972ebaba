//! Service addresses and node ports.
//!
//! An allocation is a key in the store (`/skep/allocations/…`), written in the very transaction that
//! writes the service under the condition that the key does not exist, and deleted in the one that
//! deletes or changes the service. So two services never share an address, whatever servers do at the
//! same time. The pools in memory only choose what to try; they are rebuilt from the keys at start, and
//! a repair loop removes keys no service owns.

mod bitmap;
mod follow;
mod pool;
mod repair;
mod service;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use skep_storage::{Compare, Op, Target};

pub(crate) use follow::follow;
pub(crate) use repair::{load, repair};
pub(crate) use service::{carry_over, held, plan};

use pool::{Addresses, Ports};

/// Where allocations are kept.
pub(crate) const PREFIX: &str = "/skep/allocations/";

/// The pools of a cluster.
#[derive(Debug)]
pub(crate) struct Allocators {
    /// One pool a family, the default family first.
    addresses: Vec<Addresses>,
    ports: Ports,
}

impl Allocators {
    /// Empty pools.
    pub(crate) fn new(service_ranges: &[IpNet], node_ports: RangeInclusive<u16>) -> Self {
        let mut addresses: Vec<Addresses> = Vec::new();
        for net in service_ranges {
            if !addresses.iter().any(|pool| family(pool.net().addr()) == family(net.addr())) {
                addresses.push(Addresses::new(*net));
            }
        }
        Self { addresses, ports: Ports::new(node_ports) }
    }

    /// Takes exactly these.
    fn reset(&self, all: impl Iterator<Item = Allocation>) {
        self.addresses.iter().for_each(Addresses::clear);
        self.ports.clear();
        for what in all {
            // `false`: out of today's ranges; the service keeps it, nobody else gets it.
            self.take(what);
        }
    }

    fn take(&self, what: Allocation) -> bool {
        match what {
            Allocation::Address(address) => self.addresses.iter().any(|pool| pool.take(address)),
            Allocation::Port(port) => self.ports.take(port),
        }
    }

    fn release(&self, what: Allocation) {
        match what {
            Allocation::Address(address) => self.addresses.iter().for_each(|pool| pool.release(address)),
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
            Self::Address(address) => format!("{PREFIX}ip/{address}"),
            Self::Port(port) => format!("{PREFIX}port/{port}"),
        }
    }

    /// From a key.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        match key.strip_prefix(PREFIX)?.split_once('/')? {
            ("ip", address) => address.parse().ok().map(Self::Address),
            ("port", port) => port.parse().ok().map(Self::Port),
            _ => None,
        }
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
        let owner = Bytes::from(self.owner.clone());
        let puts =
            self.taken.iter().map(move |what| Op::Put { key: what.key(), value: owner.clone(), lease: 0 });
        puts.chain(self.freed.iter().map(|what| Op::Delete { key: what.key() }))
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
