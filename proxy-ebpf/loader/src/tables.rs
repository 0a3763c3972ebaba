//! What a service proxy writes: the tables, one change to them, and the face of whatever holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use skep_ebpf_abi::hash::mix;
use skep_ebpf_abi::maglev::{PAGE, Page, SIZE, Walk, fill};
use skep_ebpf_abi::service::{
    AffinityMatch, Backend, Frontend, FrontendKey, Set, SlotKey, SourceRange, frontend,
};

use crate::error::Result;

/// A source range with its length in bits of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RangeKey {
    /// Set and network; first, so that the ranges of a set are neighbours.
    pub range: SourceRange,
    /// How many bits count, see [`SourceRange::prefix_bits`].
    pub bits: u32,
}

/// Which backend a hash falls on.
#[derive(Clone, PartialEq, Eq)]
pub struct HashTable {
    entries: Arc<[u32]>,
    members: u64,
    digest: u64,
}

impl HashTable {
    /// The table of backends with these names and ids, in the order of their names: every node must have the same.
    /// None for nobody, or for more than there are places.
    pub fn new(members: &[(u64, u32)]) -> Option<Self> {
        let names: Vec<u64> = members.iter().map(|(name, _)| *name).collect();
        let (mut entries, mut scratch) = (vec![0; SIZE], vec![Walk::default(); names.len()]);
        if !fill(&mut entries, &names, &mut scratch) {
            return None;
        }
        for entry in &mut entries {
            *entry = members.get(*entry as usize).map_or(0, |(_, id)| *id);
        }
        let mut table = Self { entries: entries.into(), members: Self::fingerprint(members), digest: 0 };
        table.digest = table.pages().map(|(number, page)| page.digest(number)).fold(0, u64::wrapping_add);
        Some(table)
    }

    /// What stands for the members of a table, so that it need not be made to see whether it would be the same.
    pub fn fingerprint(members: &[(u64, u32)]) -> u64 {
        members.iter().fold(0, |sum, (name, id)| mix(mix(sum ^ name) ^ u64::from(*id)))
    }

    /// The fingerprint of its own members.
    pub fn members(&self) -> u64 {
        self.members
    }

    /// The ids.
    pub fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// What stands for the content where that would take too much memory.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// As it lies in the map.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u32, Page)> + '_ {
        self.entries.chunks(PAGE).zip(0..).map(|(entries, number)| {
            let mut page = Page { backends: [0; PAGE] };
            page.backends.iter_mut().zip(entries).for_each(|(place, id)| *place = *id);
            (number, page)
        })
    }
}

impl fmt::Debug for HashTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashTable({:#x})", self.digest)
    }
}

/// All tables of services.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tables {
    /// What clients dial.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Groups of backends.
    pub sets: BTreeMap<u32, Set>,
    /// Their members.
    pub slots: BTreeMap<SlotKey, u32>,
    /// The backends.
    pub backends: BTreeMap<u32, Backend>,
    /// Who may be stuck to.
    pub affinity: BTreeSet<AffinityMatch>,
    /// Allowed sources.
    pub ranges: BTreeSet<RangeKey>,
    /// The digests of sets' tables of hashes; of one that is not whole, some other number.
    pub hashed: BTreeMap<u32, u64>,
}

/// One write. Every one is idempotent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Adds or replaces a backend.
    PutBackend(u32, Backend),
    /// Removes a backend.
    RemoveBackend(u32),
    /// Fills a slot.
    PutSlot(SlotKey, u32),
    /// Empties a slot.
    RemoveSlot(SlotKey),
    /// Lets clients stick to a backend.
    PutAffinity(AffinityMatch),
    /// Makes clients forget a backend.
    RemoveAffinity(AffinityMatch),
    /// Allows a source.
    PutRange(RangeKey),
    /// Allows a source no more.
    RemoveRange(RangeKey),
    /// Adds or replaces a set's table of hashes. When it is refused, a part of it may be there.
    PutTable(u32, HashTable),
    /// Removes a set's table of hashes.
    RemoveTable(u32),
    /// Adds or changes a set: its count makes slots visible.
    PutSet(u32, Set),
    /// Removes a set.
    RemoveSet(u32),
    /// Opens or changes a frontend.
    PutFrontend(FrontendKey, Frontend),
    /// Closes a frontend.
    RemoveFrontend(FrontendKey),
}

/// Where tables live: the kernel, or memory under tests.
pub trait ServiceMaps: Send + Sync {
    /// Does one change.
    ///
    /// # Errors
    /// When the kernel refuses, for example because a map is full; then nothing has changed, but for a table of
    /// hashes.
    fn apply(&self, change: &Change) -> Result<()>;

    /// Does changes in this order, in as few system calls as possible. Says how many are done, also when one is
    /// refused: those before it are done, it and those after it are not.
    fn apply_all(&self, changes: &[Change]) -> (usize, Result<()>) {
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = self.apply(change) {
                return (done, Err(error));
            }
        }
        (changes.len(), Ok(()))
    }

    /// Reads everything.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn read(&self) -> Result<Tables>;
}

/// The answer of [`Tables::lookup`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// No such frontend.
    NoFrontend,
    /// A frontend without backends.
    Empty,
    /// One of these serves.
    Backends(Vec<Backend>),
    /// The tables contradict each other.
    Broken(String),
}

impl Tables {
    /// Does one change.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::PutTable(set, ref table) => drop(self.hashed.insert(set, table.digest())),
            Change::RemoveTable(set) => drop(self.hashed.remove(&set)),
            Change::PutBackend(id, backend) => drop(self.backends.insert(id, backend)),
            Change::RemoveBackend(id) => drop(self.backends.remove(&id)),
            Change::PutSlot(key, id) => drop(self.slots.insert(key, id)),
            Change::RemoveSlot(key) => drop(self.slots.remove(&key)),
            Change::PutAffinity(key) => drop(self.affinity.insert(key)),
            Change::RemoveAffinity(key) => drop(self.affinity.remove(&key)),
            Change::PutRange(key) => drop(self.ranges.insert(key)),
            Change::RemoveRange(key) => drop(self.ranges.remove(&key)),
            Change::PutSet(id, set) => drop(self.sets.insert(id, set)),
            Change::RemoveSet(id) => drop(self.sets.remove(&id)),
            Change::PutFrontend(key, value) => drop(self.frontends.insert(key, value)),
            Change::RemoveFrontend(key) => drop(self.frontends.remove(&key)),
        }
    }

    /// What the programs would do with a frontend: every backend that a packet from outside, or a process of the
    /// node, could be given.
    pub fn lookup(&self, key: &FrontendKey, outside: bool) -> Lookup {
        let Some(frontend) = self.frontends.get(key) else { return Lookup::NoFrontend };
        let id = if outside { frontend.external_set } else { frontend.internal_set };
        let Some(set) = self.sets.get(&id) else { return Lookup::Broken(format!("set {id} is missing")) };
        if set.count == 0 {
            return Lookup::Empty;
        }
        let mut backends = Vec::new();
        for slot in 1..=set.count {
            let Some(backend) = self.slots.get(&SlotKey { set: id, slot }) else {
                return Lookup::Broken(format!("slot {slot} of set {id} is missing"));
            };
            match self.backends.get(backend) {
                Some(backend) => backends.push(*backend),
                None => return Lookup::Broken(format!("backend {backend} of set {id} is missing")),
            }
        }
        Lookup::Backends(backends)
    }
}

/// The name of a frontend's kind.
pub fn kind_name(flags: u32) -> &'static str {
    match flags & frontend::KIND_MASK {
        frontend::CLUSTER_IP => "ClusterIP",
        frontend::NODE_PORT => "NodePort",
        frontend::EXTERNAL_IP => "ExternalIP",
        frontend::LOAD_BALANCER => "LoadBalancer",
        frontend::HOST_PORT => "HostPort",
        _ => "unknown",
    }
}

/// The name of a transport protocol.
pub fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        skep_ebpf_abi::TCP => "TCP",
        skep_ebpf_abi::UDP => "UDP",
        skep_ebpf_abi::SCTP => "SCTP",
        _ => "?",
    }
}

/// `address:port`, with brackets where the family needs them.
pub fn socket_address(addr: skep_ebpf_abi::Addr, port_be: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(addr.into(), u16::from_be(port_be))
}

/// A dump that tests compare and people read.
impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.frontends {
            writeln!(
                f,
                "frontend {}/{} {} external={} internal={} flags={:#x}",
                socket_address(key.addr, key.port_be),
                protocol_name(key.protocol),
                kind_name(value.flags),
                value.external_set,
                value.internal_set,
                value.flags & !frontend::KIND_MASK
            )?;
        }
        for (id, set) in &self.sets {
            writeln!(
                f,
                "set {id} count={} affinity={}s flags={:#x}",
                set.count, set.affinity_seconds, set.flags
            )?;
        }
        for (key, id) in &self.slots {
            writeln!(f, "slot {}.{} backend={id}", key.set, key.slot)?;
        }
        for (id, backend) in &self.backends {
            let address = socket_address(backend.addr, backend.port_be);
            writeln!(
                f,
                "backend {id} {address}/{} state={}",
                protocol_name(backend.protocol),
                backend.state
            )?;
        }
        for key in &self.affinity {
            writeln!(f, "affinity set={} backend={}", key.set, key.backend)?;
        }
        for key in &self.ranges {
            writeln!(f, "range set={} {} bits={}", key.range.set, key.range.addr, key.bits)?;
        }
        for (set, digest) in &self.hashed {
            writeln!(f, "table set={set} digest={digest:#x}")?;
        }
        Ok(())
    }
}
