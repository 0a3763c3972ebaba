//! The rule table of pods that the same policies select: pure functions from policies, identities and namespaces to
//! entries of the kernel's maps.
//!
//! A table is the union of parts that do not depend on each other: what is fixed by its policies, and what each
//! identity adds. So a pod that comes or goes changes its own entries only.

mod blocks;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_ebpf_abi::policy::{RuleKey, direction, isolated, peer};
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::policy::{BlockEntry, RuleEntry, direction_name, masked_rule};

use crate::model::{
    ClusterDns, DNS_PORT, Identity, Labels, NamedPort, Peer, Policy, Port, Ports, Rule, RuleName,
};
use blocks::Blocks;
use ports::prefixes;

/// Both directions.
const DIRECTIONS: [u8; 2] = [direction::INGRESS, direction::EGRESS];

/// A rule of a table, but for the table's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// Identity, class, any pod or anyone; first, so that those of a peer are together.
    pub peer: u32,
    /// See [`direction`].
    pub direction: u8,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// How many bits of the key count.
    pub bits: u32,
}

impl Entry {
    /// The entry of a map.
    pub fn at(&self, table: u32) -> RuleEntry {
        let Self { peer, direction, protocol, port, bits } = *self;
        let key = RuleKey { table, peer, direction, protocol, port_be: port.to_be() };
        RuleEntry { bits, key: masked_rule(key, bits) }
    }
}

/// What is allowed, and by which rule.
pub type Entries = BTreeMap<Entry, RuleName>;

/// What pods have a table of their own by.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The policies that select them, in the order of their names.
    pub policies: Vec<Arc<Policy>>,
    /// Their named ports.
    pub ports: BTreeSet<NamedPort>,
}

/// What is the same for all tables.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Labels of namespaces.
    pub namespaces: &'a BTreeMap<String, Labels>,
    /// The cluster's DNS.
    pub dns: &'a ClusterDns,
}

/// The part of a table that no identity adds to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// [`isolated`] bits.
    pub isolated: u32,
    /// What anyone, any pod, nodes (for DNS) and classes of addresses may.
    pub entries: Entries,
    /// The blocks of addresses and their classes: direction, bits of the mapped form, address.
    pub blocks: BTreeMap<BlockEntry, u32>,
}

/// Every rule of a direction with its policy and name.
fn rules(selected: &Selected, direction: u8) -> impl Iterator<Item = (&Policy, &Rule, RuleName)> {
    selected.policies.iter().flat_map(move |policy| {
        let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
        rules.map(move |(index, rule)| {
            let direction = direction_name(direction).to_owned();
            (policy.as_ref(), rule, RuleName { policy: policy.name.to_string(), direction, index })
        })
    })
}

/// Adds a rule's ports for a peer. `named` are the ports of the pods that are dialled.
fn add(
    entries: &mut Entries,
    (peer, direction): (u32, u8),
    ports: &[Port],
    named: Option<&BTreeSet<NamedPort>>,
    name: &RuleName,
) {
    for (bits, protocol, port) in prefixes(ports, named) {
        // The first rule that allows something is the one that is named.
        let entry = Entry { peer, direction, protocol, port, bits };
        entries.entry(entry).or_insert_with(|| name.clone());
    }
}

/// The part of a table that no identity adds to.
pub fn fixed(selected: &Selected, around: Surroundings<'_>) -> Fixed {
    let mut fixed = Fixed::default();
    for direction in DIRECTIONS {
        if selected.policies.iter().any(|policy| policy.rules(direction).is_some()) {
            fixed.isolated |=
                if direction == direction::INGRESS { isolated::INGRESS } else { isolated::EGRESS };
        }
        // Who is dialled has the names: in ingress the pod itself.
        let own = (direction == direction::INGRESS).then_some(&selected.ports);
        let mut blocks = Blocks::default();
        for (policy, rule, name) in rules(selected, direction) {
            if rule.peers.is_empty() {
                add(&mut fixed.entries, (peer::ANYONE, direction), &rule.ports, own, &name);
            }
            for one in &rule.peers {
                match one {
                    every if is_every_pod(every) => {
                        add(&mut fixed.entries, (peer::ANY_POD, direction), &rule.ports, own, &name);
                    }
                    Peer::Pods { .. } => {}
                    Peer::Block { net, except } => blocks.add(*net, except, (rule, name.clone())),
                }
            }
            if direction == direction::EGRESS {
                add_dns(&mut fixed.entries, policy, rule, &name, around);
            }
        }
        for (class, rules) in blocks.classes() {
            for (rule, name) in rules {
                add(&mut fixed.entries, (class, direction), &rule.ports, own, name);
            }
        }
        fixed.blocks.extend(blocks.entries(direction));
    }
    fixed
}

/// The cluster's DNS answers on nodes, at a port of its own.
fn add_dns(entries: &mut Entries, policy: &Policy, rule: &Rule, name: &RuleName, around: Surroundings<'_>) {
    let pretended = around.dns.identity();
    if around.dns.port == 0
        || !(rule.peers.is_empty()
            || rule.peers.iter().any(is_every_pod)
            || is_peer(policy, rule, &pretended, around))
    {
        return;
    }
    for protocol in [UDP, TCP] {
        let allows = |port: &Port| {
            port.protocol == protocol
                && match &port.ports {
                    Ports::All => true,
                    Ports::Range(first, last) => (*first..=*last).contains(&DNS_PORT),
                    Ports::Named(wanted) => {
                        pretended.ports.iter().any(|port| port.protocol == protocol && port.name == *wanted)
                    }
                }
        };
        if rule.ports.is_empty() || rule.ports.iter().any(allows) {
            let port = around.dns.port;
            let peer = peer::NODE;
            let entry = Entry { peer, direction: direction::EGRESS, protocol, port, bits: RuleKey::WHOLE };
            entries.entry(entry).or_insert_with(|| name.clone());
        }
    }
}

/// Whether a rule names pods of an identity in particular.
fn is_peer(policy: &Policy, rule: &Rule, identity: &Identity, around: Surroundings<'_>) -> bool {
    rule.peers.iter().any(|peer| match peer {
        Peer::Block { .. } => false,
        every if is_every_pod(every) => false,
        Peer::Pods { namespaces, pods } => {
            let in_namespace = match namespaces {
                None => policy.name.namespace == identity.namespace,
                Some(selector) => selector.matches_map(around.namespaces.get(&identity.namespace)),
            };
            in_namespace && pods.matches_map(Some(&identity.labels))
        }
    })
}

/// Whether a peer is every pod of every namespace.
fn is_every_pod(peer: &Peer) -> bool {
    matches!(peer, Peer::Pods { namespaces: Some(all), pods } if all.is_empty() && pods.is_empty())
}

/// What an identity adds to a table.
pub fn of_identity(
    selected: &Selected,
    (id, identity): (u32, &Identity),
    around: Surroundings<'_>,
) -> Entries {
    let mut entries = Entries::new();
    for direction in DIRECTIONS {
        let dialled = if direction == direction::INGRESS { &selected.ports } else { &identity.ports };
        for (policy, rule, name) in rules(selected, direction) {
            if is_peer(policy, rule, identity, around) {
                add(&mut entries, (id, direction), &rule.ports, Some(dialled), &name);
                continue;
            }
            // What is allowed to anyone or to every pod is fixed, but for ports that only the dialled pod knows.
            let to_all = rule.peers.is_empty() || rule.peers.iter().any(is_every_pod);
            let is_name = |port: &&Port| matches!(port.ports, Ports::Named(_));
            let names: Vec<Port> = rule.ports.iter().filter(is_name).cloned().collect();
            if to_all && direction == direction::EGRESS && !names.is_empty() {
                add(&mut entries, (id, direction), &names, Some(dialled), &name);
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests;
