//! Table tests of the plans: no kernel needed.

use super::{peers::ways, *};
use crate::config::Peer;

const UID: &str = "uid-a";

fn config() -> NetworkConfig {
    NetworkConfig {
        pod_cidrs: vec!["10.244.1.0/24".parse().expect("a range")],
        service_cidrs: vec!["10.96.0.0/16".parse().expect("a range")],
        node_ips: vec!["192.0.2.7".parse().expect("an address")],
        ..NetworkConfig::default()
    }
}

fn record() -> Record {
    Record {
        uid: UID.into(),
        namespace: "default".into(),
        name: "web".into(),
        ips: vec!["10.244.1.2".parse().expect("an address")],
        host_interface: names::host_interface(UID, 0),
    }
}

fn link(index: u32, peer: Option<u32>) -> Link {
    Link { index, up: true, mtu: 1500, mac: [0; 6], alias: String::new(), peer, tunnel_port: None }
}

/// A node on which everything that is wanted for the pod and the peers is there.
fn settled(config: &NetworkConfig, peers: &[Peer]) -> Seen {
    let mut seen = Seen::default();
    seen.links.insert("eth9".into(), link(2, None));
    seen.addresses.push(Address { interface: "eth9".into(), net: "192.0.2.7/24".parse().expect("a net") });
    let wanted = wanted_on_node(config, [&record()], Some(&ways(config, peers, &seen)), &seen);
    for (index, wanted) in (10..).zip(&wanted.links) {
        let there = Link {
            mtu: wanted.mtu.unwrap_or_default(),
            mac: wanted.mac.unwrap_or_default(),
            alias: wanted.alias.clone().unwrap_or_default(),
            ..link(index, Some(2))
        };
        seen.links.insert(wanted.name.clone(), there);
    }
    seen.routes.clone_from(&wanted.routes);
    seen.neighbours.clone_from(&wanted.neighbours);
    seen
}

fn peer() -> Peer {
    Peer {
        pod_cidrs: vec!["10.244.2.0/24".parse().expect("a range")],
        node_ips: vec!["192.0.2.8".parse().expect("an address")],
    }
}

fn node_steps(seen: &Seen, strays: Strays) -> Vec<Op> {
    let ways = ways(&config(), &[peer()], seen);
    steps(&wanted_on_node(&config(), [&record()], Some(&ways), seen), seen, strays)
}

#[test]
fn nothing_is_done_when_all_is_well() {
    let seen = settled(&config(), &[peer()]);
    assert_eq!(node_steps(&seen, Strays::Remove), []);
}

#[test]
fn one_thing_missing_is_one_step() {
    let whole = settled(&config(), &[peer()]);
    for index in 0..whole.routes.len() {
        let mut seen = whole.clone();
        let gone = seen.routes.remove(index);
        assert_eq!(node_steps(&seen, Strays::Remove), [Op::ReplaceRoute(gone)]);
    }
    let mut seen = whole.clone();
    let gone = seen.neighbours.remove(0);
    assert_eq!(node_steps(&seen, Strays::Remove), [Op::ReplaceNeighbour(gone)]);
}

#[test]
fn a_link_that_went_down_lost_its_routes_too() {
    let mut seen = settled(&config(), &[]);
    seen.links.get_mut(&record().host_interface).expect("is there").up = false;
    let ops = steps(&wanted_on_node(&config(), [&record()], None, &seen), &seen, Strays::Keep);
    assert!(matches!(ops.as_slice(), [Op::SetLink(_), Op::ReplaceRoute(_)]), "{ops:?}");
}

#[test]
fn of_a_link_only_what_differs_is_set() {
    let mut seen = settled(&config(), &[]);
    let name = record().host_interface;
    seen.links.get_mut(&name).expect("is there").mtu = 900;
    let want = WantedLink { name, mtu: Some(1500), mac: None, alias: None };
    let ops = steps(&wanted_on_node(&config(), [&record()], None, &seen), &seen, Strays::Keep);
    assert_eq!(ops, [Op::SetLink(want)]);
}

#[test]
fn what_depends_on_an_absent_link_waits() {
    let mut seen = settled(&config(), &[peer()]);
    seen.links.remove(&record().host_interface);
    seen.routes.retain(|route| !matches!(route.target, Target::Interface(_)));
    seen.neighbours.clear();
    assert_eq!(node_steps(&seen, Strays::Keep), []);
}

#[test]
fn strays_go_only_when_told() {
    let mut seen = settled(&config(), &[peer()]);
    let stray_link = names::host_interface("another", 0);
    seen.links.insert(stray_link.clone(), link(77, None));
    let stray = Route {
        destination: "10.244.1.99/32".parse().expect("a net"),
        target: Target::Interface(stray_link.clone()),
        source: None,
    };
    seen.routes.push(stray.clone());
    assert_eq!(node_steps(&seen, Strays::Keep), []);
    let want = [Op::DeleteRoute(stray), Op::DeleteLink(stray_link)];
    assert_eq!(node_steps(&seen, Strays::Remove), want);
}

#[test]
fn a_peer_that_left_takes_its_routes_along() {
    let seen = settled(&config(), &[peer()]);
    let stale = |peers: &[Peer]| {
        let ways = ways(&config(), peers, &seen);
        stale_peer_steps(&ways, &wanted_on_node(&config(), [&record()], Some(&ways), &seen), &seen)
    };
    assert_eq!(stale(&[peer()]), []);
    let ops = stale(&[]);
    assert_eq!(ops.len(), 1);
    assert!(is_peer_route_deletion(&ops[0]), "{ops:?}");
}

#[test]
fn a_route_of_another_shape_is_replaced() {
    let mut seen = settled(&config(), &[]);
    // The node's address went: the route must not name it as its source any more.
    seen.addresses.clear();
    let ops = steps(&wanted_on_node(&config(), [&record()], None, &seen), &seen, Strays::Remove);
    let [Op::ReplaceRoute(route)] = ops.as_slice() else { panic!("{ops:?}") };
    assert_eq!(route.source, None);
}

#[test]
fn pairs_are_whole_missing_or_torn() {
    let name = record().host_interface;
    let host = |index| Seen { links: [(name.clone(), link(index, None))].into(), ..Seen::default() };
    let inner =
        |peer| Seen { links: [(POD_INTERFACE.to_owned(), link(2, Some(peer)))].into(), ..Seen::default() };
    let none = Seen::default();
    for (node, pod, want) in [
        (&none, &none, Pair::Missing),
        (&host(9), &inner(9), Pair::Whole),
        (&host(9), &inner(8), Pair::Torn),
        (&host(9), &none, Pair::Torn),
        (&none, &inner(9), Pair::Torn),
    ] {
        assert_eq!(pair(&record(), node, pod), want);
    }
}

#[test]
fn the_mtu_is_configured_or_the_uplinks() {
    let mut seen = Seen::default();
    assert_eq!(mtu(&config(), None, &seen), FALLBACK_MTU);
    seen.links.insert("eth0".into(), Link { mtu: 1400, ..link(2, None) });
    seen.uplink = Some("eth0".into());
    assert_eq!(mtu(&config(), None, &seen), 1400);
    seen.links.insert("eth1".into(), Link { mtu: 9000, ..link(3, None) });
    seen.addresses.push(Address { interface: "eth1".into(), net: "192.0.2.7/24".parse().expect("a net") });
    assert_eq!(mtu(&config(), None, &seen), 9000);
    seen.addresses[0].interface = "lo".into();
    assert_eq!(mtu(&config(), None, &seen), 1400);
    assert_eq!(mtu(&NetworkConfig { mtu: Some(1300), ..config() }, None, &seen), 1300);
}

#[test]
fn a_fresh_pod_gets_everything_in_order() {
    let mut seen = Seen::default();
    seen.links.insert("lo".into(), Link { up: false, ..link(1, None) });
    seen.links.insert(POD_INTERFACE.into(), Link { up: false, ..link(2, Some(9)) });
    let ops = steps(&wanted_in_pod(&record(), 1500), &seen, Strays::Keep);
    let kinds: Vec<&str> = ops
        .iter()
        .map(|op| match op {
            Op::SetLink(_) => "link",
            Op::AddAddress(_) => "address",
            Op::ReplaceNeighbour(_) => "neighbour",
            Op::ReplaceRoute(_) => "route",
            Op::DeleteLink(_) | Op::DeleteRoute(_) | Op::DeleteNeighbour(_) => "delete",
        })
        .collect();
    // The gateway's route comes before the default route that goes through it.
    assert_eq!(kinds, ["link", "link", "address", "neighbour", "route", "route"]);
    let Some(Op::ReplaceRoute(last)) = ops.last() else { panic!("{ops:?}") };
    assert_eq!(last.destination.to_string(), "0.0.0.0/0");
}

#[test]
fn a_record_is_recovered_from_its_devices() {
    let seen = settled(&config(), &[]);
    assert_eq!(recovered(UID, &config().pod_cidrs, &seen), Some(record()));
    assert_eq!(recovered("someone-else", &config().pod_cidrs, &seen), None);
    let two_families = [config().pod_cidrs[0], "fd00::/64".parse().expect("a range")];
    assert_eq!(recovered(UID, &two_families, &seen), None, "not all addresses are known");
}

#[test]
fn uplinks_are_where_the_node_is_reached() {
    let mut seen = settled(&config(), &[]);
    let names = |seen: &Seen| uplinks(&config(), seen).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&seen), ["eth9"]);
    seen.links.insert("wan".into(), link(3, None));
    seen.uplink = Some("wan".into());
    assert_eq!(names(&seen), ["eth9", "wan"]);
    seen.addresses[0].interface = "lo".into();
    seen.uplink = Some(record().host_interface);
    assert_eq!(names(&seen), Vec::<String>::new());
}
