//! The service tables in the kernel.

use std::collections::BTreeMap;
use std::path::Path;

use skep_ebpf_abi::maglev::{PAGES, Page, PageKey};
use skep_ebpf_abi::service::{
    Affinity, AffinityKey, AffinityMatch, Backend, Connected, Frontend, FrontendKey, Reverse, ReverseKey,
    Set, SlotKey, SourceRange,
};
use skep_ebpf_abi::{Addr, Plain};

use crate::error::Result;
use crate::kernel_map::KernelMap;
use crate::tables::{Change, HashTable, RangeKey, ServiceMaps, Tables};

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

impl Prefix<Addr> {
    /// The key of a network.
    pub(crate) fn new(network: std::net::IpAddr, length: u8) -> Self {
        let data = Addr::from(network);
        Self { bits: data.prefix_bits(length), data }
    }
}

/// The maps that the service proxy writes, and those that sockets write.
#[derive(Debug)]
pub(crate) struct KernelServiceMaps {
    frontends: KernelMap<FrontendKey, Frontend>,
    sets: KernelMap<u32, Set>,
    slots: KernelMap<SlotKey, u32>,
    backends: KernelMap<u32, Backend>,
    affinity_match: KernelMap<AffinityMatch, u32>,
    ranges: KernelMap<Prefix<SourceRange>, u32>,
    maglev: KernelMap<PageKey, Page>,
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
            maglev: KernelMap::open(folder, "maglev")?,
            affinity: KernelMap::open(folder, "affinity")?,
            connected: KernelMap::open(folder, "connected")?,
            reverse: KernelMap::open(folder, "reverse")?,
        })
    }

    /// One frontend.
    pub(crate) fn frontend(&self, key: &FrontendKey) -> Result<Option<Frontend>> {
        self.frontends.get(key)
    }

    /// Shows every backend.
    pub(crate) fn visit_backends(&self, mut visit: impl FnMut(&Backend)) -> Result<()> {
        self.backends.visit(|_, backend| visit(&backend))
    }

    /// Name, used and possible entries of every map.
    pub(crate) fn usage(&self) -> Result<Vec<(&'static str, usize, u32)>> {
        Ok(vec![
            ("frontends", self.frontends.count()?, self.frontends.limit()),
            ("sets", self.sets.count()?, self.sets.limit()),
            ("slots", self.slots.count()?, self.slots.limit()),
            ("backends", self.backends.count()?, self.backends.limit()),
            ("affinity_match", self.affinity_match.count()?, self.affinity_match.limit()),
            ("source_ranges", self.ranges.count()?, self.ranges.limit()),
            ("maglev", self.maglev.count()?, self.maglev.limit()),
            ("affinity", self.affinity.count()?, self.affinity.limit()),
            ("connected", self.connected.count()?, self.connected.limit()),
            ("reverse", self.reverse.count()?, self.reverse.limit()),
        ])
    }
}

impl KernelServiceMaps {
    fn put_table(&self, set: u32, table: &HashTable) -> Result<()> {
        let (keys, pages): (Vec<PageKey>, Vec<Page>) =
            table.pages().map(|(page, content)| (PageKey { set, page }, content)).unzip();
        self.maglev.put_all(&keys, &pages).1
    }

    fn remove_table(&self, set: u32) -> Result<()> {
        let keys: Vec<PageKey> = (0..PAGES as u32).map(|page| PageKey { set, page }).collect();
        self.maglev.remove_all(&keys).1
    }

    /// The digest of every table.
    fn hashed(&self) -> Result<BTreeMap<u32, u64>> {
        let mut digests = BTreeMap::<u32, u64>::new();
        self.maglev.visit(|key, page| {
            let digest = digests.entry(key.set).or_default();
            *digest = digest.wrapping_add(page.digest(key.page));
        })?;
        Ok(digests)
    }
}

/// Writes the changes at the beginning that are of one kind, which `element` tells; how many are done.
fn put_run<K: Plain + Ord, V: Plain>(
    map: &KernelMap<K, V>,
    changes: &[Change],
    element: impl Fn(&Change) -> Option<(K, V)>,
) -> (usize, Result<()>) {
    let (keys, values): (Vec<K>, Vec<V>) = changes.iter().map_while(element).unzip();
    map.put_all(&keys, &values)
}

/// Removes what the changes at the beginning name that are of one kind; how many are done.
fn remove_run<K: Plain + Ord, V: Plain>(
    map: &KernelMap<K, V>,
    changes: &[Change],
    key: impl Fn(&Change) -> Option<K>,
) -> (usize, Result<()>) {
    let keys: Vec<K> = changes.iter().map_while(key).collect();
    map.remove_all(&keys)
}

fn prefix(key: &RangeKey) -> Prefix<SourceRange> {
    Prefix { bits: key.bits, data: key.range }
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
            Change::PutRange(key) => self.ranges.put(&prefix(key), &1),
            Change::RemoveRange(key) => self.ranges.remove(&prefix(key)),
            Change::PutTable(set, table) => self.put_table(*set, table),
            Change::RemoveTable(set) => self.remove_table(*set),
            Change::PutSet(id, set) => self.sets.put(id, set),
            Change::RemoveSet(id) => self.sets.remove(id),
            Change::PutFrontend(key, value) => self.frontends.put(key, value),
            Change::RemoveFrontend(key) => self.frontends.remove(key),
        }
    }

    fn apply_all(&self, changes: &[Change]) -> (usize, Result<()>) {
        use Change as C;
        let mut done = 0;
        while let Some(rest @ [first, ..]) = changes.get(done..) {
            // What fits the pattern of the first change goes in one call, up to the first that does not.
            macro_rules! put {
                ($map:expr, $pattern:pat => $element:expr) => {
                    put_run($map, rest, |change| if let $pattern = change { Some($element) } else { None })
                };
            }
            macro_rules! remove {
                ($map:expr, $pattern:pat => $key:expr) => {
                    remove_run($map, rest, |change| if let $pattern = change { Some($key) } else { None })
                };
            }
            let (more, result) = match first {
                C::PutBackend(..) => put!(&self.backends, C::PutBackend(id, backend) => (*id, *backend)),
                C::RemoveBackend(_) => remove!(&self.backends, C::RemoveBackend(id) => *id),
                C::PutSlot(..) => put!(&self.slots, C::PutSlot(key, id) => (*key, *id)),
                C::RemoveSlot(_) => remove!(&self.slots, C::RemoveSlot(key) => *key),
                C::PutAffinity(_) => put!(&self.affinity_match, C::PutAffinity(key) => (*key, 1)),
                C::RemoveAffinity(_) => remove!(&self.affinity_match, C::RemoveAffinity(key) => *key),
                C::PutRange(_) => put!(&self.ranges, C::PutRange(key) => (prefix(key), 1)),
                C::RemoveRange(_) => remove!(&self.ranges, C::RemoveRange(key) => prefix(key)),
                C::PutTable(..) | C::RemoveTable(_) => match self.apply(first) {
                    Ok(()) => (1, Ok(())),
                    refused => (0, refused),
                },
                C::PutSet(..) => put!(&self.sets, C::PutSet(id, set) => (*id, *set)),
                C::RemoveSet(_) => remove!(&self.sets, C::RemoveSet(id) => *id),
                C::PutFrontend(..) => put!(&self.frontends, C::PutFrontend(key, value) => (*key, *value)),
                C::RemoveFrontend(_) => remove!(&self.frontends, C::RemoveFrontend(key) => *key),
            };
            done += more;
            if result.is_err() {
                return (done, result);
            }
        }
        (done, Ok(()))
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
            hashed: self.hashed()?,
        })
    }
}
