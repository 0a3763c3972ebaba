//! Tables against a reference that reads policies as the API's documentation words them.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use skep_api::selector::LabelSelector;
use skep_ebpf_abi::{Addr, SCTP};
use skep_ebpf_loader::policy::{Decision, PolicyTables};

use super::*;
use crate::model::ObjectName;

const FIRST: u32 = peer::FIRST_POD;

/// Someone who may be at the other side.
#[derive(Clone, Debug)]
struct Other {
    addr: IpAddr,
    identity: Option<Identity>,
    is_node: bool,
}

#[derive(Clone, Debug)]
struct World {
    policies: Vec<Arc<Policy>>,
    namespaces: BTreeMap<String, Labels>,
    own: Identity,
    others: Vec<Other>,
    dns: ClusterDns,
}

impl World {
    fn around(&self) -> Surroundings<'_> {
        Surroundings { namespaces: &self.namespaces, dns: &self.dns }
    }

    fn selected(&self) -> Selected {
        let policies = self.policies.iter().filter(|policy| policy.selects(&self.own)).cloned().collect();
        Selected { policies, ports: self.own.ports.clone() }
    }

    /// The tables as the maps would hold them, and the isolated directions.
    fn tables(&self) -> (PolicyTables, u32) {
        let (selected, around) = (self.selected(), self.around());
        let fixed = fixed(&selected, around);
        let mut tables = PolicyTables::default();
        let mut put = |entries: &Entries| tables.rules.extend(entries.keys().map(|entry| (entry.at(0), 1)));
        put(&fixed.entries);
        let identities: BTreeSet<&Identity> =
            self.others.iter().filter_map(|o| o.identity.as_ref()).collect();
        for (id, identity) in (FIRST..).zip(&identities) {
            put(&of_identity(&selected, (id, identity), around));
        }
        tables.blocks = fixed.blocks;
        for other in &self.others {
            let number = other.identity.as_ref().and_then(|own| identities.iter().position(|i| *i == own));
            let id = match number {
                Some(number) => FIRST + u32::try_from(number).expect("few"),
                None if other.is_node => peer::NODE,
                None => continue,
            };
            tables.identities.insert(other.addr.into(), id);
        }
        (tables, fixed.isolated)
    }

    fn compiled(
        &self,
        (tables, isolated): &(PolicyTables, u32),
        direction: u8,
        other: &Other,
        protocol: u8,
        port: u16,
    ) -> bool {
        let addr = Addr::from(other.addr);
        let identity = tables.identities.get(&addr).copied().unwrap_or(peer::WORLD);
        isolated & (1 << direction) == 0
            || tables.decide_in(0, direction, (identity, addr), protocol, port) != Decision::Denied
    }

    /// As the documentation of NetworkPolicySpec words it.
    fn reference(&self, direction: u8, other: &Other, protocol: u8, port: u16) -> bool {
        let about: Vec<&Policy> = self
            .policies
            .iter()
            .map(AsRef::as_ref)
            .filter(|policy| policy.selects(&self.own) && policy.rules(direction).is_some())
            .collect();
        about.is_empty()
            || about.iter().any(|policy| {
                policy
                    .rules(direction)
                    .unwrap_or_default()
                    .iter()
                    .any(|rule| self.rule_allows(policy, rule, direction, other, protocol, port))
            })
    }

    fn is_pod_peer(&self, policy: &Policy, one: &Peer, identity: &Identity) -> bool {
        let Peer::Pods { namespaces, pods } = one else { return false };
        let namespace = match namespaces {
            Some(selector) => selector.matches_map(self.namespaces.get(&identity.namespace)),
            None => identity.namespace == policy.name.namespace,
        };
        namespace && pods.matches_map(Some(&identity.labels))
    }

    fn rule_allows(
        &self,
        policy: &Policy,
        rule: &Rule,
        direction: u8,
        other: &Other,
        protocol: u8,
        port: u16,
    ) -> bool {
        let none = BTreeSet::new();
        let named = |of_pod: bool| {
            if direction == direction::INGRESS {
                &self.own.ports
            } else if of_pod {
                other.identity.as_ref().map_or(&none, |identity| &identity.ports)
            } else {
                &none
            }
        };
        let port_is = |names: &BTreeSet<NamedPort>, protocol: u8, port: u16| {
            rule.ports.is_empty()
                || rule.ports.iter().any(|wanted| {
                    wanted.protocol == protocol
                        && match &wanted.ports {
                            Ports::All => true,
                            Ports::Range(first, last) => (*first..=*last).contains(&port),
                            Ports::Named(name) => names.iter().any(|known| {
                                known.name == *name && known.protocol == protocol && known.port == port
                            }),
                        }
                })
        };
        if rule.peers.is_empty() && port_is(named(true), protocol, port) {
            return true;
        }
        for one in &rule.peers {
            let allowed = match one {
                Peer::Block { net, except } => {
                    net.contains(&other.addr)
                        && !except.iter().any(|hole| hole.contains(&other.addr))
                        && port_is(named(false), protocol, port)
                }
                Peer::Pods { .. } => {
                    let identity = other.identity.as_ref();
                    identity.is_some_and(|identity| self.is_pod_peer(policy, one, identity))
                        && port_is(named(true), protocol, port)
                }
            };
            if allowed {
                return true;
            }
        }
        let dns = self.dns.identity();
        direction == direction::EGRESS
            && other.is_node
            && [TCP, UDP].contains(&protocol)
            && self.dns.port != 0
            && port == self.dns.port
            && (rule.peers.is_empty() || rule.peers.iter().any(|one| self.is_pod_peer(policy, one, &dns)))
            && port_is(&dns.ports, protocol, DNS_PORT)
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

const NAMESPACES: [&str; 3] = ["a", "b", "kube-system"];

fn some_labels() -> impl Strategy<Value = Labels> {
    let value = prop::option::of(prop::sample::select(vec!["x", "y"]));
    (value.clone(), value, prop::bool::weighted(0.2)).prop_map(|(app, tier, dns)| {
        let pairs = [("app", app), ("tier", tier), ("k8s-app", dns.then_some("kube-dns"))];
        pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect()
    })
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let texts =
        vec!["", "app=x", "app=y", "tier in (x,y)", "!tier", "app=x,tier=y", "app!=x", "k8s-app=kube-dns"];
    prop::sample::select(texts).prop_map(|text| LabelSelector::parse(text).expect("a selector"))
}

fn named_ports() -> impl Strategy<Value = BTreeSet<NamedPort>> {
    let port = (prop::sample::select(vec!["http", "dns"]), prop::sample::select(vec![TCP, UDP]), 78_u16..83);
    let port = port.prop_map(|(name, protocol, port)| NamedPort { name: name.into(), protocol, port });
    prop::collection::btree_set(port, 0..3)
}

fn identity() -> impl Strategy<Value = Identity> {
    (prop::sample::select(NAMESPACES.to_vec()), some_labels(), named_ports())
        .prop_map(|(namespace, labels, ports)| Identity { namespace: namespace.into(), labels, ports })
}

/// Few addresses and many networks, so that they overlap.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..16).prop_map(|last| IpAddr::from([10, 0, 0, last])),
        (0_u16..16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
    ]
}

/// Also whole families: 0.0.0.0/0 and ::/0.
fn network() -> impl Strategy<Value = IpNet> {
    (address(), 0_u8..=6).prop_map(|(ip, shorter)| {
        let length = match (ip, shorter) {
            (_, 6) => 0,
            (IpAddr::V4(_), shorter) => 32 - shorter,
            (IpAddr::V6(_), shorter) => 128 - shorter,
        };
        IpNet::new(ip, length).expect("a length").trunc()
    })
}

fn block() -> impl Strategy<Value = Peer> {
    (network(), prop::collection::vec(network(), 0..3)).prop_map(|(net, holes)| {
        let except = holes.into_iter().filter(|hole| net.contains(hole) && *hole != net).collect();
        Peer::Block { net, except }
    })
}

fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let pods = (prop::option::of(selector()), selector())
        .prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods });
    prop::collection::vec(prop_oneof![pods, block()], 0..3)
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let ports = prop_oneof![
        Just(Ports::All),
        (76_u16..84, 0_u16..6).prop_map(|(first, more)| Ports::Range(first, first + more)),
        Just(Ports::Range(53, 53)),
        prop::sample::select(vec!["http", "dns"]).prop_map(|name| Ports::Named(name.to_owned())),
    ];
    let port = (prop::sample::select(vec![TCP, UDP, SCTP]), ports)
        .prop_map(|(protocol, ports)| Port { protocol, ports });
    prop::collection::vec(port, 0..3)
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = || {
        let rule = (peers(), ports()).prop_map(|(peers, ports)| Rule { peers, ports });
        prop::option::of(prop::collection::vec(rule, 0..3))
    };
    (prop::sample::select(NAMESPACES.to_vec()), selector(), rules(), rules()).prop_map(
        |(namespace, selects, ingress, egress)| Policy {
            name: ObjectName::new(namespace, "p"),
            selects,
            ingress,
            egress,
        },
    )
}

prop_compose! {
    fn world()(
        policies in prop::collection::vec(policy(), 0..4),
        known in prop::collection::vec(some_labels(), 3),
        own in identity(),
        others in prop::collection::vec((address(), prop::option::of(identity()), any::<bool>()), 1..6),
        dns in prop::sample::select(vec![0_u16, 80]),
    ) -> World {
        let namespaces = NAMESPACES.iter().map(|name| (*name).to_owned()).zip(known).collect();
        let mut policies = policies;
        for (number, policy) in policies.iter_mut().enumerate() {
            policy.name.name = format!("p{number}");
        }
        let mut seen = BTreeSet::new();
        let others = others
            .into_iter()
            .filter(|(addr, ..)| seen.insert(*addr))
            .map(|(addr, identity, node)| Other { addr, is_node: node && identity.is_none(), identity })
            .collect();
        let policies = policies.into_iter().map(Arc::new).collect();
        World { policies, namespaces, own, others, dns: ClusterDns { port: dns } }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_table_decides_as_the_documentation_says(world in world()) {
        let tables = world.tables();
        for other in &world.others {
            for direction in DIRECTIONS {
                for protocol in [TCP, UDP, SCTP, skep_ebpf_abi::ICMP] {
                    for port in [0, 53, 77, 78, 79, 80, 81, 82, 83, 9000] {
                        prop_assert_eq!(
                            world.compiled(&tables, direction, other, protocol, port),
                            world.reference(direction, other, protocol, port),
                            "{:?} {} {} {}", other, direction_name(direction), protocol, port
                        );
                    }
                }
            }
        }
    }
}

/// A world with one policy of namespace `a` and a few others.
fn fixed_world(ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> World {
    let own = Identity {
        namespace: "a".into(),
        labels: labels(&[("app", "web")]),
        ports: [NamedPort { name: "http".into(), protocol: TCP, port: 8080 }].into(),
    };
    let pod = |addr: &str, namespace: &str, app: &str| Other {
        addr: addr.parse().expect("an address"),
        identity: Some(Identity {
            namespace: namespace.into(),
            labels: labels(&[("app", app)]),
            ..Identity::default()
        }),
        is_node: false,
    };
    let nobody =
        |addr: &str, is_node| Other { addr: addr.parse().expect("an address"), identity: None, is_node };
    let selects = LabelSelector::parse("app=web").expect("a selector");
    let policy = Policy { name: ObjectName::new("a", "p"), selects, ingress, egress };
    World {
        policies: vec![Arc::new(policy)],
        namespaces: [("a", labels(&[("team", "a")])), ("b", labels(&[("team", "b")]))]
            .map(|(name, labels)| (name.to_owned(), labels))
            .into(),
        own,
        others: vec![
            pod("10.0.0.1", "a", "client"),
            pod("10.0.0.2", "b", "client"),
            pod("10.0.0.3", "b", "other"),
            nobody("192.0.2.1", true),
            nobody("198.51.100.7", false),
        ],
        dns: ClusterDns { port: 10053 },
    }
}

/// Which of the others may, for each question.
fn who(world: &World, direction: u8, protocol: u8, port: u16) -> Vec<String> {
    let tables = world.tables();
    let may = |other: &&Other| world.compiled(&tables, direction, other, protocol, port);
    world.others.iter().filter(may).map(|other| other.addr.to_string()).collect()
}

fn pods(namespaces: Option<&str>, pods: &str) -> Peer {
    let parse = |text: &str| LabelSelector::parse(text).expect("a selector");
    Peer::Pods { namespaces: namespaces.map(parse), pods: parse(pods) }
}

fn tcp(first: u16, last: u16) -> Port {
    Port { protocol: TCP, ports: Ports::Range(first, last) }
}

#[test]
fn deny_and_allow_everything() {
    use direction::{EGRESS, INGRESS};
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1", "198.51.100.7"];
    let none: [&str; 0] = [];
    let deny = fixed_world(Some(vec![]), None);
    assert_eq!(who(&deny, INGRESS, TCP, 80), none);
    assert_eq!(who(&deny, EGRESS, TCP, 80), all, "not isolated");
    let allow = fixed_world(Some(vec![Rule::default()]), Some(vec![]));
    assert_eq!(who(&allow, INGRESS, SCTP, 9), all);
    assert_eq!(who(&allow, EGRESS, TCP, 80), none);
}

#[test]
fn selectors_of_pods_and_namespaces() {
    use direction::INGRESS;
    let from = |peers: Vec<Peer>| fixed_world(Some(vec![Rule { peers, ports: vec![] }]), None);
    for (peers, want) in [
        (vec![pods(None, "")], vec!["10.0.0.1"]),
        (vec![pods(None, "app=client")], vec!["10.0.0.1"]),
        (vec![pods(Some("team=b"), "")], vec!["10.0.0.2", "10.0.0.3"]),
        (vec![pods(Some("team=b"), "app=client")], vec!["10.0.0.2"]),
        (vec![pods(Some(""), "")], vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        (vec![pods(Some("team=b"), ""), pods(None, "app=client")], vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        (vec![pods(Some("team=c"), "")], vec![]),
    ] {
        assert_eq!(who(&from(peers.clone()), INGRESS, TCP, 80), want, "{peers:?}");
    }
}

#[test]
fn blocks_with_exceptions_ports_and_names() {
    use direction::INGRESS;
    let block = Peer::Block { net: net("198.51.100.0/24"), except: vec![net("198.51.100.128/25")] };
    let rule = Rule { peers: vec![block], ports: vec![tcp(80, 90)] };
    let world = fixed_world(Some(vec![rule]), None);
    assert_eq!(who(&world, INGRESS, TCP, 85), ["198.51.100.7"]);
    assert!(who(&world, INGRESS, TCP, 91).is_empty());
    let name = Port { protocol: TCP, ports: Ports::Named("http".into()) };
    let world = fixed_world(Some(vec![Rule { peers: vec![pods(None, "")], ports: vec![name] }]), None);
    assert_eq!(who(&world, INGRESS, TCP, 8080), ["10.0.0.1"], "the pod's own port of the name");
    assert!(who(&world, INGRESS, TCP, 80).is_empty());
}

#[test]
fn who_allows_dns_by_its_labels_or_its_port_reaches_it_on_nodes() {
    use direction::EGRESS;
    let udp = |port| Port { protocol: UDP, ports: Ports::Range(port, port) };
    let mut world = fixed_world(None, Some(vec![Rule { peers: vec![], ports: vec![udp(53)] }]));
    assert_eq!(who(&world, EGRESS, UDP, 10053), ["192.0.2.1"]);
    assert!(who(&world, EGRESS, TCP, 10053).is_empty());
    let name = "kubernetes.io/metadata.name";
    world.namespaces.insert("kube-system".into(), labels(&[(name, "kube-system")]));
    let usual = pods(Some("kubernetes.io/metadata.name=kube-system"), "k8s-app=kube-dns");
    let rule = Rule { peers: vec![usual], ports: vec![udp(53), tcp(53, 53)] };
    world.policies = fixed_world(None, Some(vec![rule])).policies;
    assert_eq!(who(&world, EGRESS, TCP, 10053), ["192.0.2.1"]);
    assert_eq!(who(&world, EGRESS, UDP, 10053), ["192.0.2.1"]);
    assert!(who(&world, EGRESS, UDP, 53).is_empty(), "only as what answers it");
}

#[test]
fn every_pod_is_one_entry_however_many_there_are() {
    let rule = Rule { peers: vec![pods(Some(""), "")], ports: vec![tcp(80, 80)] };
    let world = fixed_world(Some(vec![rule]), None);
    let selected = world.selected();
    assert_eq!(fixed(&selected, world.around()).entries.len(), 1);
    let client = world.others[0].identity.clone().expect("a pod");
    assert!(of_identity(&selected, (FIRST, &client), world.around()).is_empty());
}

#[test]
fn the_rule_that_allows_is_named() {
    let first = Rule { peers: vec![pods(None, "app=client")], ports: vec![tcp(80, 80)] };
    let second = Rule { peers: vec![pods(None, "")], ports: vec![tcp(80, 80)] };
    let world = fixed_world(Some(vec![first, second]), None);
    let client = world.others[0].identity.clone().expect("a pod");
    let entries = of_identity(&world.selected(), (FIRST, &client), world.around());
    let names: Vec<String> = entries.values().map(ToString::to_string).collect();
    assert_eq!(names, ["a/p ingress[0]"]);
}
