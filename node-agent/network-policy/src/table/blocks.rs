//! Blocks of addresses with exceptions, cut so that the longest prefix that holds an address says which rules do.
//!
//! A longest-prefix map answers with one entry, but an address may lie in the blocks of several rules, and in an
//! exception of some. So every network that is mentioned gets a class: the set of the rules whose blocks hold it and
//! whose exceptions do not. Networks nest or are apart, so one pass in the order of their addresses, with the open
//! ones on a stack, finds all sets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::policy::{BlockKey, peer};
use skep_ebpf_loader::policy::BlockEntry;

use crate::model::{Rule, RuleName};

/// The blocks of one direction of a table.
#[derive(Debug, Default)]
pub(super) struct Blocks<'a> {
    rules: Vec<(&'a Rule, RuleName)>,
    /// Each block with its exceptions and its rule's place in `rules`.
    blocks: Vec<(IpNet, Vec<IpNet>, usize)>,
}

/// IPv4 in the form of IPv6 is IPv4, as it is in the maps.
fn canonical(net: IpNet) -> IpNet {
    let net = net.trunc();
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.network().to_ipv4_mapped()
    {
        return Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4);
    }
    net
}

impl<'a> Blocks<'a> {
    pub(super) fn add(&mut self, net: IpNet, except: &[IpNet], rule: (&'a Rule, RuleName)) {
        let place = match self.rules.iter().position(|(_, name)| *name == rule.1) {
            Some(place) => place,
            None => {
                self.rules.push(rule);
                self.rules.len() - 1
            }
        };
        self.blocks.push((canonical(net), except.iter().copied().map(canonical).collect(), place));
    }

    /// The set of rules of each network that is mentioned.
    fn sets(&self) -> BTreeMap<IpNet, BTreeSet<usize>> {
        // Blocks that begin and exceptions that begin at each network, by the block's place.
        let mut begin: BTreeMap<IpNet, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (place, (net, except, _)) in self.blocks.iter().enumerate() {
            begin.entry(*net).or_default().0.push(place);
            for hole in except {
                begin.entry(*hole).or_default().1.push(place);
            }
        }
        // What is in a short IPv6 network must not be thought to hold IPv4, whose form lies in it.
        let mapped = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0));
        if begin
            .keys()
            .any(|net| matches!(net, IpNet::V6(v6) if v6.prefix_len() < 96) && net.contains(&mapped))
        {
            begin.entry(IpNet::V4(Ipv4Net::default())).or_default();
        }
        let mut open: Vec<(IpNet, BTreeSet<usize>)> = Vec::new();
        let mut sets = BTreeMap::new();
        // In the order of addresses, the wider first: `IpNet` compares so within a family.
        for (net, (blocks, holes)) in begin {
            while open.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                open.pop();
            }
            let mut active = open.last().map(|(_, active)| active.clone()).unwrap_or_default();
            active.extend(blocks);
            active.retain(|block| !holes.contains(block));
            sets.insert(net, active.iter().map(|block| self.blocks[*block].2).collect());
            open.push((net, active));
        }
        sets
    }

    /// The number of each set of rules.
    fn numbers(&self) -> BTreeMap<BTreeSet<usize>, u32> {
        let distinct: BTreeSet<BTreeSet<usize>> = self.sets().into_values().collect();
        distinct.into_iter().zip(peer::CLASS + 1..).collect()
    }

    /// Every class with its rules.
    pub(super) fn classes(&self) -> Vec<(u32, Vec<&(&'a Rule, RuleName)>)> {
        let rules = |set: &BTreeSet<usize>| set.iter().map(|place| &self.rules[*place]).collect();
        self.numbers().iter().map(|(set, class)| (*class, rules(set))).collect()
    }

    /// The entries of a map, of table 0.
    pub(super) fn entries(&self, direction: u8) -> BTreeMap<BlockEntry, u32> {
        let numbers = self.numbers();
        let entry = |(net, set): (IpNet, BTreeSet<usize>)| {
            let addr = Addr::from(net.network());
            let key = BlockKey { table: 0, direction: u32::from(direction), addr };
            (BlockEntry { bits: BlockKey::FIXED + addr.prefix_bits(net.prefix_len()), key }, numbers[&set])
        };
        self.sets().into_iter().map(entry).collect()
    }
}
