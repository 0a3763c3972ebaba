//! What one owner has in the tables, and what the node itself has.

use std::collections::BTreeMap;

use super::super::{Family, Ground, MASQUERADE_MARK};

/// A table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Table {
    Filter,
    Nat,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Filter, Self::Nat];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain's place.
pub(crate) type ChainKey = (Family, Table, String);

/// Chains of one owner, and its lines in chains that all share.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fragment {
    pub(crate) chains: BTreeMap<ChainKey, Vec<String>>,
    pub(crate) lines: BTreeMap<ChainKey, Vec<String>>,
}

/// Where the kernel's chains lead into ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Jump {
    pub(crate) table: Table,
    pub(crate) from: &'static str,
    pub(crate) rule: &'static str,
}

pub(super) const SERVICES: &str = "SKEP-SERVICES";
pub(super) const NODE_PORTS: &str = "SKEP-NODEPORTS";
pub(super) const EXTERNAL: &str = "SKEP-EXTERNAL-SERVICES";
pub(super) const FIREWALL: &str = "SKEP-PROXY-FIREWALL";
pub(super) const MARK: &str = "SKEP-MARK-MASQ";
const FORWARD: &str = "SKEP-FORWARD";
const POSTROUTING: &str = "SKEP-POSTROUTING";
const LOCALNET: &str = "SKEP-LOCALNET";

/// The chains that have lines of every service.
pub(super) const SHARED: [(Table, &str); 6] = [
    (Table::Filter, SERVICES),
    (Table::Filter, EXTERNAL),
    (Table::Filter, FIREWALL),
    (Table::Filter, NODE_PORTS),
    (Table::Nat, SERVICES),
    (Table::Nat, NODE_PORTS),
];

/// In the order in which they come to stand, each before all others of its chain.
pub(crate) fn jumps(family: Family) -> Vec<Jump> {
    const NEW: [(&str, &str); 7] = [
        ("INPUT", "-m conntrack --ctstate NEW -j SKEP-EXTERNAL-SERVICES"),
        ("INPUT", "-m conntrack --ctstate NEW -j SKEP-PROXY-FIREWALL"),
        ("FORWARD", "-m conntrack --ctstate NEW -j SKEP-EXTERNAL-SERVICES"),
        ("FORWARD", "-m conntrack --ctstate NEW -j SKEP-SERVICES"),
        ("FORWARD", "-m conntrack --ctstate NEW -j SKEP-PROXY-FIREWALL"),
        ("OUTPUT", "-m conntrack --ctstate NEW -j SKEP-SERVICES"),
        ("OUTPUT", "-m conntrack --ctstate NEW -j SKEP-PROXY-FIREWALL"),
    ];
    let filter = |(from, rule)| Jump { table: Table::Filter, from, rule };
    let mut jumps: Vec<Jump> = NEW.into_iter().map(filter).collect();
    jumps.extend([
        filter(("OUTPUT", "-m conntrack --ctstate NEW -j SKEP-EXTERNAL-SERVICES")),
        filter(("INPUT", "-j SKEP-NODEPORTS")),
        filter(("FORWARD", "-j SKEP-FORWARD")),
    ]);
    if family == Family::V4 {
        jumps.push(filter(("INPUT", "-j SKEP-LOCALNET")));
    }
    let nat = |(from, rule)| Jump { table: Table::Nat, from, rule };
    jumps.extend(
        [
            ("PREROUTING", "-j SKEP-SERVICES"),
            ("OUTPUT", "-j SKEP-SERVICES"),
            ("POSTROUTING", "-j SKEP-POSTROUTING"),
        ]
        .map(nat),
    );
    jumps
}

/// What there is without any service.
pub(crate) fn ground(ground: &Ground, families: &[Family]) -> Fragment {
    let mut fragment = Fragment::default();
    for &family in families {
        for (table, name) in SHARED {
            fragment.lines.insert((family, table, name.to_owned()), Vec::new());
        }
        let mut add = |table, name: &str, rules: Vec<String>| {
            fragment.chains.insert((family, table, name.to_owned()), rules);
        };
        let mark = format!("{MASQUERADE_MARK:#x}");
        add(Table::Nat, MARK, vec![format!("-j MARK --or-mark {mark}")]);
        add(Table::Nat, POSTROUTING, masquerading(ground, family, &mark));
        add(
            Table::Filter,
            FORWARD,
            vec![
                // A packet that conntrack cannot place would pass untranslated and reset the connection.
                "-m conntrack --ctstate INVALID -j DROP".to_owned(),
                format!("-m mark --mark {mark}/{mark} -j ACCEPT"),
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
            ],
        );
        if family == Family::V4 {
            // Node ports on loopback need route_localnet, which lets the segment reach loopback: not through here.
            let rule =
                "! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP";
            add(Table::Filter, LOCALNET, vec![rule.to_owned()]);
        }
        let node_ports = ground.addresses(family).into_iter().filter(|a| !(a.is_ipv6() && a.is_loopback()));
        let to_node = node_ports.map(|address| format!("-d {address} -j {NODE_PORTS}")).collect();
        fragment.lines.insert((family, Table::Nat, SERVICES.to_owned()), to_node);
        // What is not translated by now is nobody's.
        let unknown = Ground::nets(&ground.services, family).into_iter().flat_map(|net| {
            [format!("-d {net} -p tcp -j REJECT --reject-with tcp-reset"), format!("-d {net} -j REJECT")]
        });
        fragment.lines.insert((family, Table::Filter, SERVICES.to_owned()), unknown.collect());
    }
    fragment
}

fn masquerading(ground: &Ground, family: Family, mark: &str) -> Vec<String> {
    let (pods, keep) = (Ground::nets(&ground.pods, family), Ground::nets(&ground.keep_source, family));
    let mut rules = Vec::new();
    if !pods.is_empty() && !keep.is_empty() {
        // What stays in the cluster is none of the rule's after these.
        let unmarked = format!("-m mark ! --mark {mark}/{mark}");
        rules.extend(keep.iter().map(|net| format!("-d {net} {unmarked} -j RETURN")));
        rules.extend(pods.iter().map(|net| {
            format!("-s {net} {unmarked} -m addrtype --dst-type UNICAST -j MASQUERADE --random-fully")
        }));
    }
    rules.push(format!("-m mark ! --mark {mark}/{mark} -j RETURN"));
    rules.push(format!("-j MARK --xor-mark {mark}"));
    rules.push("-j MASQUERADE --random-fully".to_owned());
    rules
}
