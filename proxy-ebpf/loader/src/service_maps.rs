//! The service tables in the kernel.

use std::path::Path;

use skep_ebpf_abi::service::{
    Affinity, AffinityKey, AffinityMatch, Backend, Connected, Frontend, FrontendKey, Reverse, ReverseKey,
    Set, SlotKey, SourceRange,
};
use skep_ebpf_abi::{Addr, Plain};

use crate::error::Result;
use crate::kernel_map::KernelMap;
use crate::tables::{Change, RangeKey, ServiceMaps, Tables};

/// A key of a longest-prefix map: the kernel wants the length first.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Prefix<T> {
    pub(crate) bits: u32,
    pub(crate) data: T,
}
// Both instances hold words only, so no padding follows the length.
impl Plain for Prefix<SourceRange> {}
impl Plain for Prefix<Addr> {}

/// The maps that the service proxy writes, and those that sockets write.
#[derive(Debug)]
pub(crate) struct KernelServiceMaps {
    frontends: KernelMap<FrontendKey, Frontend>,
    sets: KernelMap<u32, Set>,
    slots: KernelMap<SlotKey, u32>,
    backends: KernelMap<u32, Backend>,
    affinity_match: KernelMap<AffinityMatch, u32>,
    ranges: KernelMap<Prefix<SourceRange>, u32>,
    pub(crate) affinity: KernelMap<AffinityKey, Affinity>,
    pub(crate) connected: KernelMap<u64, Connected>,
    pub(crate) reverse: KernelMap<ReverseKey, Reverse>,
}

impl KernelServiceMaps {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        Ok(Self {
            frontends: KernelMap::open(folder, "frontends")?,
            sets: KernelMap::open(folder, "sets")?,
            slots: KernelMap::open(folder, "slots")?,
            backends: KernelMap::open(folder, "backends")?,
            affinity_match: KernelMap::open(folder, "affinity_match")?,
            ranges: KernelMap::open(folder, "source_ranges")?,
            affinity: KernelMap::open(folder, "affinity")?,
            connected: KernelMap::open(folder, "connected")?,
            reverse: KernelMap::open(folder, "reverse")?,
        })
    }

    /// One frontend.
    pub(crate) fn frontend(&self, key: &FrontendKey) -> Result<Option<Frontend>> {
        self.frontends.get(key)
    }

    /// Name, used and possible entries of every map.
    pub(crate) fn usage(&self) -> Result<Vec<(&'static str, usize, u32)>> {
        Ok(vec![
            ("frontends", self.frontends.entries()?.len(), self.frontends.limit()),
            ("sets", self.sets.entries()?.len(), self.sets.limit()),
            ("slots", self.slots.entries()?.len(), self.slots.limit()),
            ("backends", self.backends.entries()?.len(), self.backends.limit()),
            ("affinity", self.affinity.entries()?.len(), self.affinity.limit()),
            ("connected", self.connected.entries()?.len(), self.connected.limit()),
            ("reverse", self.reverse.entries()?.len(), self.reverse.limit()),
        ])
    }
}

impl ServiceMaps for KernelServiceMaps {
    fn apply(&self, change: &Change) -> Result<()> {
        match change {
            Change::PutBackend(id, backend) => self.backends.put(id, backend),
            Change::RemoveBackend(id) => self.backends.remove(id),
            Change::PutSlot(key, id) => self.slots.put(key, id),
            Change::RemoveSlot(key) => self.slots.remove(key),
            Change::PutAffinity(key) => self.affinity_match.put(key, &1),
            Change::RemoveAffinity(key) => self.affinity_match.remove(key),
            Change::PutRange(key) => self.ranges.put(&Prefix { bits: key.bits, data: key.range }, &1),
            Change::RemoveRange(key) => self.ranges.remove(&Prefix { bits: key.bits, data: key.range }),
            Change::PutSet(id, set) => self.sets.put(id, set),
            Change::RemoveSet(id) => self.sets.remove(id),
            Change::PutFrontend(key, value) => self.frontends.put(key, value),
            Change::RemoveFrontend(key) => self.frontends.remove(key),
        }
    }

    fn read(&self) -> Result<Tables> {
        Ok(Tables {
            frontends: self.frontends.entries()?.into_iter().collect(),
            sets: self.sets.entries()?.into_iter().collect(),
            slots: self.slots.entries()?.into_iter().collect(),
            backends: self.backends.entries()?.into_iter().collect(),
            affinity: self.affinity_match.entries()?.into_iter().map(|(key, _)| key).collect(),
            ranges: self
                .ranges
                .entries()?
                .into_iter()
                .map(|(key, _)| RangeKey { bits: key.bits, range: key.data })
                .collect(),
        })
    }
}
