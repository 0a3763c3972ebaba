//! What a network policy agent writes: the tables, batches of changes to them, and the face of whatever holds them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::policy::{
    BlockKey, Denied, DeniedKey, Policed, Role, RuleKey, direction, isolated, looked_up, peer,
};

use crate::error::Result;

/// A rule with the length of what it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RuleEntry {
    /// How many bits count, see [`RuleKey`].
    pub bits: u32,
    /// Table, peer, direction, protocol and port.
    pub key: RuleKey,
}

/// A block of addresses with its length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlockEntry {
    /// How many bits count, see [`BlockKey`].
    pub bits: u32,
    /// Table, direction and network.
    pub key: BlockKey,
}

/// All tables of policies.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PolicyTables {
    /// Who has an address.
    pub identities: BTreeMap<Addr, u32>,
    /// What is allowed, by which rule.
    pub rules: BTreeMap<RuleEntry, u32>,
    /// Blocks of addresses and their classes.
    pub blocks: BTreeMap<BlockEntry, u32>,
    /// Which pods of this node are selected.
    pub policed: BTreeMap<Addr, Policed>,
}

/// A batch of writes of one kind. Every one is idempotent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicyChange {
    /// Allows.
    PutRules(Vec<(RuleEntry, u32)>),
    /// Allows no more.
    RemoveRules(Vec<RuleEntry>),
    /// Adds or changes blocks.
    PutBlocks(Vec<(BlockEntry, u32)>),
    /// Removes blocks.
    RemoveBlocks(Vec<BlockEntry>),
    /// Says who has an address.
    PutIdentities(Vec<(Addr, u32)>),
    /// Nobody known has an address any more.
    RemoveIdentities(Vec<Addr>),
    /// Polices a pod, or changes its table or epoch.
    Police(Vec<(Addr, Policed)>),
    /// Polices a pod no more.
    Release(Vec<Addr>),
}

/// Where tables live: the kernel, or memory under tests.
pub trait PolicyMaps: Send + Sync {
    /// Does one batch.
    ///
    /// # Errors
    /// When the kernel refuses, for example because a map is full. What is before the refused element is done.
    fn apply(&self, change: &PolicyChange) -> Result<()>;

    /// Reads everything.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn read(&self) -> Result<PolicyTables>;
}

/// Why a flow may be opened, or that it may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A rule allows it, by its id.
    Rule(u32),
    /// It is the pod itself, or its own node asking.
    Always,
    /// No rule allows it.
    Denied,
}

impl PolicyTables {
    /// Does one batch.
    pub fn apply(&mut self, change: &PolicyChange) {
        match change {
            PolicyChange::PutRules(rules) => self.rules.extend(rules.iter().copied()),
            PolicyChange::RemoveRules(rules) => self.rules.retain(|rule, _| !rules.contains(rule)),
            PolicyChange::PutBlocks(blocks) => self.blocks.extend(blocks.iter().copied()),
            PolicyChange::RemoveBlocks(blocks) => self.blocks.retain(|block, _| !blocks.contains(block)),
            PolicyChange::PutIdentities(identities) => self.identities.extend(identities.iter().copied()),
            PolicyChange::RemoveIdentities(gone) => self.identities.retain(|addr, _| !gone.contains(addr)),
            PolicyChange::Police(pods) => self.policed.extend(pods.iter().copied()),
            PolicyChange::Release(pods) => self.policed.retain(|addr, _| !pods.contains(addr)),
        }
    }

    /// What the programs would decide about a flow that `other` opens to `pod`, or `pod` to `other`.
    pub fn decide(&self, pod: Addr, role: Role, other: Addr, protocol: u8, port: u16) -> Decision {
        let Some(policed) = self.policed.get(&pod) else { return Decision::NotIsolated };
        if !policed.is_isolated(role.direction()) {
            return Decision::NotIsolated;
        }
        if pod == other {
            return Decision::Always;
        }
        let identity = self.identities.get(&other).copied().unwrap_or(peer::WORLD);
        self.decide_in(policed.table, role.direction(), (identity, other), protocol, port)
    }

    /// The same by a table, for a peer of an identity and address.
    pub fn decide_in(
        &self,
        table: u32,
        direction: u8,
        (identity, other): (u32, Addr),
        protocol: u8,
        port: u16,
    ) -> Decision {
        let class = self.class(table, direction, other);
        let rule =
            looked_up(identity, class).into_iter().filter(|peer| *peer != peer::WORLD).find_map(|peer| {
                let key = RuleKey { table, peer, direction, protocol, port_be: port.to_be() };
                longest(RuleKey::ANY_PROTOCOL, RuleKey::WHOLE, |bits| {
                    self.rules.get(&RuleEntry { bits, key: masked_rule(key, bits) }).copied()
                })
            });
        rule.map_or(Decision::Denied, Decision::Rule)
    }

    fn class(&self, table: u32, direction: u8, addr: Addr) -> u32 {
        let found = longest(BlockKey::FIXED, BlockKey::WHOLE, |bits| {
            let addr = masked(addr, bits - BlockKey::FIXED);
            let key = BlockKey { table, direction: u32::from(direction), addr };
            self.blocks.get(&BlockEntry { bits, key }).copied()
        });
        found.unwrap_or(peer::WORLD)
    }
}

/// The first answer, beginning with the longest prefix.
fn longest<T>(shortest: u32, longest: u32, look: impl Fn(u32) -> Option<T>) -> Option<T> {
    (shortest..=longest).rev().find_map(look)
}

/// A rule's key with what does not count set to zero, as it is written.
pub fn masked_rule(mut key: RuleKey, bits: u32) -> RuleKey {
    if bits < RuleKey::ANY_PORT {
        key.protocol = 0;
    }
    let port_bits = bits.saturating_sub(RuleKey::ANY_PORT);
    let mask = u16::MAX.checked_shl(16 - port_bits).unwrap_or(0);
    key.port_be = (u16::from_be(key.port_be) & mask).to_be();
    key
}

/// An address with all but the first bits of its form set to zero.
pub fn masked(addr: Addr, bits: u32) -> Addr {
    let mut number =
        addr.words_be.map(u32::from_be).iter().fold(0_u128, |sum, word| sum << 32 | u128::from(*word));
    number &= u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    let word = |shift: u32| ((number >> shift) as u32).to_be();
    Addr { words_be: [word(96), word(64), word(32), word(0)] }
}

/// The tables in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryPolicyMaps {
    tables: Mutex<PolicyTables>,
    refusals: Mutex<u32>,
}

impl MemoryPolicyMaps {
    /// Holds `tables` to begin with.
    pub fn with(tables: PolicyTables) -> Self {
        Self { tables: Mutex::new(tables), ..Self::default() }
    }

    /// Refuses the next `count` changes.
    pub fn refuse(&self, count: u32) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner) = count;
    }

    /// What it holds.
    pub fn tables(&self) -> PolicyTables {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PolicyMaps for MemoryPolicyMaps {
    fn apply(&self, change: &PolicyChange) -> Result<()> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if *refusals > 0 {
            *refusals -= 1;
            let refused = std::io::ErrorKind::Interrupted.into();
            return Err(crate::Error::kernel("writing a policy map", refused));
        }
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).apply(change);
        Ok(())
    }

    fn read(&self) -> Result<PolicyTables> {
        Ok(self.tables())
    }
}

/// What was not let through.
pub type DeniedFlows = Vec<(DeniedKey, Denied)>;

/// The word for a direction.
pub fn direction_name(direction: u8) -> &'static str {
    if direction == direction::INGRESS { "ingress" } else { "egress" }
}

/// The words for the directions in which a pod is isolated.
pub fn isolated_names(bits: u32) -> Vec<&'static str> {
    [(isolated::INGRESS, "ingress"), (isolated::EGRESS, "egress")]
        .into_iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_ebpf_abi::{TCP, UDP};

    fn addr(text: &str) -> Addr {
        text.parse::<std::net::IpAddr>().expect("an address").into()
    }

    fn rule(peer: u32, bits: u32, protocol: u8, port: u16) -> RuleEntry {
        let key = RuleKey { table: 1, peer, direction: direction::INGRESS, protocol, port_be: port.to_be() };
        RuleEntry { bits, key }
    }

    #[test]
    fn the_longest_prefix_decides_as_in_the_kernel() {
        let mut tables = PolicyTables::default();
        let pod = addr("10.244.1.2");
        let policed = Policed { table: 1, epoch: 1, isolated: isolated::INGRESS, ifindex: 9 };
        let block = |net: &str, length: u8| BlockEntry {
            bits: BlockKey::FIXED + addr(net).prefix_bits(length),
            key: BlockKey { table: 1, direction: 0, addr: addr(net) },
        };
        let (wide, hole) = (peer::CLASS | 1, peer::CLASS | 2);
        for change in [
            PolicyChange::PutIdentities(vec![(addr("10.244.2.2"), 20)]),
            PolicyChange::PutBlocks(vec![(block("192.0.2.0", 24), wide), (block("192.0.2.128", 25), hole)]),
            PolicyChange::PutRules(vec![
                (rule(20, RuleKey::WHOLE, TCP, 80), 7),
                (rule(wide, RuleKey::ANY_PORT, UDP, 0), 8),
                // Ports 8192 to 8199.
                (rule(peer::ANY_POD, RuleKey::WHOLE - 3, TCP, 8192), 9),
            ]),
            PolicyChange::Police(vec![(pod, policed)]),
        ] {
            tables.apply(&change);
        }
        let ask = |from: &str, protocol, port| tables.decide(pod, Role::Target, addr(from), protocol, port);
        assert_eq!(ask("10.244.2.2", TCP, 80), Decision::Rule(7));
        assert_eq!(ask("10.244.2.2", TCP, 81), Decision::Denied);
        assert_eq!(ask("10.244.2.2", TCP, 8199), Decision::Rule(9));
        assert_eq!(ask("10.244.2.2", TCP, 8200), Decision::Denied);
        assert_eq!(ask("192.0.2.1", UDP, 53), Decision::Rule(8));
        assert_eq!(ask("192.0.2.129", UDP, 53), Decision::Denied, "an exception");
        assert_eq!(ask("10.244.1.2", TCP, 1), Decision::Always);
        assert_eq!(tables.decide(pod, Role::Opener, addr("192.0.2.1"), TCP, 1), Decision::NotIsolated);
        assert_eq!(tables.decide(addr("10.244.1.3"), Role::Target, pod, TCP, 1), Decision::NotIsolated);
    }

    #[test]
    fn what_does_not_count_is_zero() {
        let key = RuleKey { table: 1, peer: 2, direction: 1, protocol: TCP, port_be: 8199_u16.to_be() };
        assert_eq!(masked_rule(key, RuleKey::WHOLE), key);
        assert_eq!(u16::from_be(masked_rule(key, RuleKey::WHOLE - 3).port_be), 8192);
        assert_eq!(masked_rule(key, RuleKey::ANY_PORT).port_be, 0);
        assert_eq!(masked_rule(key, RuleKey::ANY_PROTOCOL).protocol, 0);
        assert_eq!(masked(addr("10.1.2.3"), 96 + 8), addr("10.0.0.0"));
        assert_eq!(masked(addr("fd00:1::9"), 0), Addr::UNSPECIFIED);
    }
}
