//! What one owner has in the tables, and what the node itself has: hooks and the chains that all services share.

use std::collections::BTreeMap;

use super::super::{Family, Ground, MASQUERADE_MARK};

/// Chains, sets and elements of one owner.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fragment {
    /// By family and name.
    pub(crate) chains: BTreeMap<(Family, String), Chain>,
    /// Sets and maps by family and name, with what stands in the braces.
    pub(crate) sets: BTreeMap<(Family, String), Container>,
    /// By family, container and key; the value of an element of a map.
    pub(crate) elements: BTreeMap<(Family, &'static str, String), Option<String>>,
}

/// A chain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chain {
    /// Type, hook and priority, if the kernel enters it.
    pub(crate) hook: Option<&'static str>,
    pub(crate) rules: Vec<String>,
}

/// A set or a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Container {
    pub(crate) word: &'static str,
    pub(crate) definition: String,
}

impl Family {
    /// The family as nft spells it, also in expressions.
    pub(crate) fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    pub(super) fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }
}

/// The cluster IPs, for ports that no service has.
pub(super) const CLUSTER_IPS: &str = "cluster-ips";
const NODE_PORT_IPS: &str = "nodeport-ips";
pub(super) const SERVICE_IPS: &str = "service-ips";
pub(super) const NODE_PORTS: &str = "service-nodeports";
pub(super) const NO_ENDPOINTS: &str = "no-endpoint-services";
pub(super) const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-nodeports";
pub(super) const FIREWALL: &str = "firewall-ips";
pub(super) const REJECT: &str = "reject-chain";
pub(super) const MARK: &str = "mark-for-masquerade";

/// Every container that holds elements of services or the node, with what nft calls it.
pub(super) const CONTAINERS: [(&str, &str); 7] = [
    ("set", CLUSTER_IPS),
    ("set", NODE_PORT_IPS),
    ("map", SERVICE_IPS),
    ("map", NODE_PORTS),
    ("map", NO_ENDPOINTS),
    ("map", NO_ENDPOINT_NODE_PORTS),
    ("map", FIREWALL),
];

/// What there is without any service.
pub(crate) fn ground(ground: &Ground, families: &[Family]) -> Fragment {
    let mut fragment = Fragment::default();
    for &family in families {
        containers(&mut fragment, family);
        chains(&mut fragment, ground, family);
        for address in ground.addresses(family) {
            fragment.elements.insert((family, NODE_PORT_IPS, address.to_string()), None);
        }
    }
    fragment
}

fn containers(fragment: &mut Fragment, family: Family) {
    let address = family.address_type();
    let mut add = |word, name: &str, definition: String| {
        fragment.sets.insert((family, name.to_owned()), Container { word, definition });
    };
    for name in [CLUSTER_IPS, NODE_PORT_IPS] {
        add("set", name, format!("type {address}"));
    }
    for name in [SERVICE_IPS, NO_ENDPOINTS, FIREWALL] {
        add("map", name, format!("type {address} . inet_proto . inet_service : verdict"));
    }
    for name in [NODE_PORTS, NO_ENDPOINT_NODE_PORTS] {
        add("map", name, "type inet_proto . inet_service : verdict".to_owned());
    }
}

fn chains(fragment: &mut Fragment, ground: &Ground, family: Family) {
    let ip = family.nft();
    let mut add = |name: &str, hook: Option<&'static str>, rules: Vec<String>| {
        fragment.chains.insert((family, name.to_owned()), Chain { hook, rules });
    };
    let jump = |target: &str| vec![format!("jump {target}")];
    let new = |targets: &[&str]| targets.iter().map(|name| format!("ct state new jump {name}")).collect();
    let to = format!("{ip} daddr . meta l4proto . th dport vmap");
    let at_node = format!("{ip} daddr @{NODE_PORT_IPS} meta l4proto . th dport vmap");
    add(MARK, None, vec![format!("meta mark set meta mark or {MASQUERADE_MARK:#x}")]);
    // A reset ends a connect at once, also one of the node itself.
    add(REJECT, None, vec!["meta l4proto tcp reject with tcp reset".to_owned(), "reject".to_owned()]);
    add("services", None, vec![format!("{to} @{SERVICE_IPS}"), format!("{at_node} @{NODE_PORTS}")]);
    add("service-endpoints-check", None, vec![format!("{to} @{NO_ENDPOINTS}")]);
    add("nodeport-endpoints-check", None, vec![format!("{at_node} @{NO_ENDPOINT_NODE_PORTS}")]);
    add("firewall-check", None, vec![format!("{to} @{FIREWALL}")]);
    let mut no_such_port = vec![format!("{ip} daddr @{CLUSTER_IPS} goto {REJECT}")];
    let services = Ground::nets(&ground.services, family);
    if !services.is_empty() {
        no_such_port.push(format!("{ip} daddr {{ {} }} goto {REJECT}", services.join(", ")));
    }
    add("cluster-ips-check", None, no_such_port);
    add("masquerading", None, masquerading(ground, family));
    add("nat-prerouting", Some("type nat hook prerouting priority dstnat"), jump("services"));
    add("nat-output", Some("type nat hook output priority -100"), jump("services"));
    add("nat-postrouting", Some("type nat hook postrouting priority srcnat"), jump("masquerading"));
    // Before the translation: the range is about the address that was dialled.
    add("filter-prerouting", Some("type filter hook prerouting priority -110"), {
        let mut rules: Vec<String> = new(&["firewall-check"]);
        if family == Family::V4 {
            // Node ports on loopback need route_localnet, which lets the segment reach loopback: not through here.
            rules.insert(0, "iif != lo ip daddr 127.0.0.0/8 ct state new drop".to_owned());
        }
        rules
    });
    add(
        "filter-forward",
        Some("type filter hook forward priority -110"),
        new(&["service-endpoints-check", "cluster-ips-check"]),
    );
    add(
        "filter-input",
        Some("type filter hook input priority -110"),
        new(&["nodeport-endpoints-check", "service-endpoints-check"]),
    );
    add("filter-output", Some("type filter hook output priority -110"), new(&["firewall-check"]));
    // What the node itself sends is translated by now, unless nobody serves it.
    add(
        "filter-output-post-dnat",
        Some("type filter hook output priority -90"),
        new(&["nodeport-endpoints-check", "service-endpoints-check", "cluster-ips-check"]),
    );
}

fn masquerading(ground: &Ground, family: Family) -> Vec<String> {
    let ip = family.nft();
    let (pods, keep) = (Ground::nets(&ground.pods, family), Ground::nets(&ground.keep_source, family));
    let mut rules = Vec::new();
    if !pods.is_empty() && !keep.is_empty() {
        rules.push(format!(
            "{ip} saddr {{ {} }} {ip} daddr != {{ {} }} fib daddr type unicast masquerade fully-random",
            pods.join(", "),
            keep.join(", ")
        ));
    }
    rules.push(format!("meta mark & {MASQUERADE_MARK:#x} == 0 return"));
    rules.push(format!("meta mark set meta mark xor {MASQUERADE_MARK:#x}"));
    rules.push("masquerade fully-random".to_owned());
    rules
}
