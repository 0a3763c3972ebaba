//! The engine against memory: plans are small, safe in every prefix, and come to what an engine made from nothing says.

use proptest::prelude::*;
use skep_api::selector::LabelSelector;
use skep_ebpf_abi::policy::{Role, isolated};
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::policy::{Decision, MemoryPolicyMaps, PolicyMaps};

use super::*;
use crate::model::{Peer, Port, Rule};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addr(text: &str) -> Addr {
    ip(text).into()
}

fn selector(text: &str) -> LabelSelector {
    LabelSelector::parse(text).expect("a selector")
}

fn identity(namespace: &str, app: &str) -> Identity {
    Identity {
        namespace: namespace.into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: BTreeSet::new(),
    }
}

fn pod(namespace: &str, app: &str, address: &str) -> Option<PodInfo> {
    Some(PodInfo { identity: identity(namespace, app), ips: vec![ip(address)] })
}

fn local(name: &str, app: &str, address: &str) -> Option<LocalPod> {
    let identity = identity("a", app);
    let name = ObjectName::new("a", name);
    Some(LocalPod { name, identity, ips: vec![ip(address)], ..LocalPod::default() })
}

fn ingress(selects: &str, peers: Vec<Peer>, port: u16) -> Policy {
    let ports = vec![Port { protocol: TCP, ports: Ports::Range(port, port) }];
    Policy {
        name: ObjectName::new("a", "p"),
        selects: selector(selects),
        ingress: Some(vec![Rule { peers, ports }]),
        egress: None,
    }
}

fn from_app(app: &str) -> Vec<Peer> {
    vec![Peer::Pods { namespaces: None, pods: selector(&format!("app={app}")) }]
}

/// Carries a plan out; how many batches it had.
fn run(engine: &mut Engine, maps: &MemoryPolicyMaps) -> usize {
    let plan = engine.plan();
    for change in &plan {
        maps.apply(change).expect("memory takes it");
        engine.applied(change);
    }
    plan.len()
}

/// A policy for `app=web` that lets `app=client` in at port 80; a local web pod, and two others.
fn started() -> (Engine, MemoryPolicyMaps) {
    let maps = MemoryPolicyMaps::default();
    let mut engine = Engine::restore(&maps.tables(), ClusterDns::default());
    let policy = ingress("app=web", from_app("client"), 80);
    engine.set_policy(&policy.name.clone(), Some(policy));
    engine.set_namespace("a", Some(Labels::new()));
    engine.set_local("web", local("web", "web", "10.0.0.1"));
    engine.set_pod(&ObjectName::new("a", "client"), pod("a", "client", "10.0.0.2"));
    engine.set_pod(&ObjectName::new("a", "other"), pod("a", "other", "10.0.0.3"));
    run(&mut engine, &maps);
    (engine, maps)
}

fn may(maps: &MemoryPolicyMaps, from: &str, to: &str, port: u16) -> bool {
    maps.tables().decide(addr(to), Role::Target, addr(from), TCP, port) != Decision::Denied
}

#[test]
fn a_policy_is_in_the_maps_and_goes_again() {
    let (mut engine, maps) = started();
    assert!(may(&maps, "10.0.0.2", "10.0.0.1", 80));
    assert!(!may(&maps, "10.0.0.2", "10.0.0.1", 81));
    assert!(!may(&maps, "10.0.0.3", "10.0.0.1", 80));
    assert_eq!(run(&mut engine, &maps), 0, "nothing changed, nothing is written");
    engine.set_policy(&ObjectName::new("a", "p"), None);
    run(&mut engine, &maps);
    let tables = maps.tables();
    assert!(tables.policed.is_empty() && tables.rules.is_empty() && tables.blocks.is_empty(), "{tables:?}");
    assert_eq!(tables.identities.len(), 3);
}

#[test]
fn a_pod_that_comes_costs_its_own_entries_and_nobody_is_asked_again() {
    let (mut engine, maps) = started();
    let epoch = maps.tables().policed[&addr("10.0.0.1")].epoch;
    engine.set_pod(&ObjectName::new("a", "second"), pod("a", "client", "10.0.0.4"));
    assert_eq!(run(&mut engine, &maps), 1, "an address more of a known identity");
    let mut third = pod("a", "client", "10.0.0.5").expect("a pod");
    third.identity.labels.insert("hash".into(), "x".into());
    engine.set_pod(&ObjectName::new("a", "third"), Some(third));
    let plan = engine.plan();
    assert!(
        matches!(plan.as_slice(), [PolicyChange::PutRules(rules), PolicyChange::PutIdentities(_)] if rules.len() == 1),
        "{plan:?}"
    );
    for change in &plan {
        maps.apply(change).expect("memory takes it");
        engine.applied(change);
    }
    assert!(may(&maps, "10.0.0.4", "10.0.0.1", 80) && may(&maps, "10.0.0.5", "10.0.0.1", 80));
    assert_eq!(maps.tables().policed[&addr("10.0.0.1")].epoch, epoch);
    engine.set_pod(&ObjectName::new("a", "second"), None);
    run(&mut engine, &maps);
    assert!(!may(&maps, "10.0.0.4", "10.0.0.1", 80));
    assert_ne!(maps.tables().policed[&addr("10.0.0.1")].epoch, epoch, "its flows are asked about again");
}

#[test]
fn labels_that_change_change_what_is_allowed() {
    let (mut engine, maps) = started();
    engine.set_pod(&ObjectName::new("a", "other"), pod("a", "client", "10.0.0.3"));
    run(&mut engine, &maps);
    assert!(may(&maps, "10.0.0.3", "10.0.0.1", 80));
    // The local pod itself: it is selected no more, by what the list says of it.
    engine.set_pod(&ObjectName::new("a", "web"), pod("a", "tools", "10.0.0.1"));
    run(&mut engine, &maps);
    assert!(maps.tables().policed.is_empty());
    let rule = vec![Peer::Pods { namespaces: Some(selector("team=b")), pods: selector("") }];
    let policy = ingress("", rule, 80);
    engine.set_policy(&policy.name.clone(), Some(policy));
    engine.set_pod(&ObjectName::new("b", "x"), pod("b", "x", "10.0.0.9"));
    run(&mut engine, &maps);
    assert!(!may(&maps, "10.0.0.9", "10.0.0.1", 80));
    engine.set_namespace("b", Some([("team".to_owned(), "b".to_owned())].into()));
    run(&mut engine, &maps);
    assert!(may(&maps, "10.0.0.9", "10.0.0.1", 80));
    engine.set_namespace("b", None);
    run(&mut engine, &maps);
    assert!(!may(&maps, "10.0.0.9", "10.0.0.1", 80));
}

#[test]
fn blocks_that_change_are_a_table_of_another_number() {
    let (mut engine, maps) = started();
    let before = maps.tables().policed[&addr("10.0.0.1")].table;
    let block = |net: &str| vec![Peer::Block { net: net.parse().expect("a network"), except: vec![] }];
    let policy = ingress("app=web", block("192.0.2.0/24"), 80);
    engine.set_policy(&policy.name.clone(), Some(policy));
    run(&mut engine, &maps);
    assert!(may(&maps, "192.0.2.1", "10.0.0.1", 80));
    let tables = maps.tables();
    assert_ne!(tables.policed[&addr("10.0.0.1")].table, before);
    assert!(tables.rules.keys().all(|rule| rule.key.table != before), "the old one is gone");
}

#[test]
fn a_new_agent_finds_everything_as_it_was() {
    let (engine, maps) = started();
    let before = maps.tables();
    drop(engine);
    let mut engine = Engine::restore(&before, ClusterDns::default());
    let policy = ingress("app=web", from_app("client"), 80);
    engine.set_policy(&policy.name.clone(), Some(policy));
    engine.set_namespace("a", Some(Labels::new()));
    engine.set_pod(&ObjectName::new("a", "other"), pod("a", "other", "10.0.0.3"));
    engine.set_pod(&ObjectName::new("a", "client"), pod("a", "client", "10.0.0.2"));
    run(&mut engine, &maps);
    let policed = |maps: &MemoryPolicyMaps| maps.tables().policed.get(&addr("10.0.0.1")).copied();
    assert_eq!(
        policed(&maps),
        before.policed.get(&addr("10.0.0.1")).copied(),
        "a pod that nobody told of yet"
    );
    assert!(may(&maps, "10.0.0.2", "10.0.0.1", 80) && !may(&maps, "10.0.0.3", "10.0.0.1", 80));
    engine.set_local("web", local("web", "web", "10.0.0.1"));
    run(&mut engine, &maps);
    assert_eq!(maps.tables().identities, before.identities, "the same numbers");
    assert!(may(&maps, "10.0.0.2", "10.0.0.1", 80) && !may(&maps, "10.0.0.3", "10.0.0.1", 80));
    let tables: BTreeSet<u32> = maps.tables().rules.keys().map(|rule| rule.key.table).collect();
    assert_eq!(tables.len(), 1, "the old table is gone");
    // Another agent, and the pod went while none was there.
    let mut engine = Engine::restore(&maps.tables(), ClusterDns::default());
    engine.keep_only(&BTreeSet::new());
    run(&mut engine, &maps);
    assert!(maps.tables().policed.is_empty());
}

#[test]
fn after_a_refusal_everything_is_compared_anew() {
    let (mut engine, maps) = started();
    engine.set_pod(&ObjectName::new("a", "second"), pod("a", "client", "10.0.0.4"));
    maps.refuse(1);
    let plan = engine.plan();
    let refused = plan.iter().try_for_each(|change| maps.apply(change));
    assert!(refused.is_err());
    engine.take_over(&maps.tables());
    run(&mut engine, &maps);
    assert!(may(&maps, "10.0.0.4", "10.0.0.1", 80));
}

#[test]
fn a_local_pod_is_known_before_the_list_tells_of_it() {
    let (mut engine, maps) = started();
    engine.set_local("client2", local("client2", "client", "10.0.0.8"));
    run(&mut engine, &maps);
    assert!(may(&maps, "10.0.0.8", "10.0.0.1", 80));
    engine.set_local("client2", None);
    run(&mut engine, &maps);
    assert!(!may(&maps, "10.0.0.8", "10.0.0.1", 80));
}

#[test]
fn names_tell_what_numbers_stand_for() {
    let (engine, maps) = started();
    let names = engine.names();
    let tables = maps.tables();
    let Decision::Rule(id) = tables.decide(addr("10.0.0.1"), Role::Target, addr("10.0.0.2"), TCP, 80) else {
        panic!("{tables:?}")
    };
    assert_eq!(names.rules[&id].to_string(), "a/p ingress[0]");
    assert_eq!(names.tables[&tables.policed[&addr("10.0.0.1")].table].policies, ["a/p"]);
    assert_eq!(names.pods["10.0.0.1"], "a/web");
    assert_eq!(tables.policed[&addr("10.0.0.1")].isolated, isolated::INGRESS);
}

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    Policy(u8, Option<Policy>),
    Namespace(&'static str, Option<&'static str>),
    Pod(usize, Option<Identity>),
    Local(usize, Option<Identity>),
}

fn happening() -> impl Strategy<Value = Happening> {
    let app = prop::sample::select(vec!["x", "y", "z"]);
    let namespace = prop::sample::select(vec!["a", "b"]);
    let who = (namespace.clone(), app.clone()).prop_map(|(namespace, app)| identity(namespace, app));
    let peer = prop_oneof![
        (
            prop::option::of(prop::sample::select(vec!["", "team=t"])),
            prop::sample::select(vec!["", "app=x", "app=y"])
        )
            .prop_map(|(namespaces, pods)| Peer::Pods {
                namespaces: namespaces.map(selector),
                pods: selector(pods)
            }),
        (0_u8..8, 28_u8..=32).prop_map(|(last, length)| {
            let net = ipnet::IpNet::new(IpAddr::from([10, 0, 0, last]), length).expect("a length").trunc();
            Peer::Block { net, except: vec![] }
        }),
    ];
    let port = (prop::sample::select(vec![TCP, UDP]), 80_u16..83)
        .prop_map(|(protocol, port)| Port { protocol, ports: Ports::Range(port, port) });
    let rule = (prop::collection::vec(peer, 0..2), prop::collection::vec(port, 0..2))
        .prop_map(|(peers, ports)| Rule { peers, ports });
    let rules = prop::option::of(prop::collection::vec(rule, 0..2));
    let policy = (namespace.clone(), prop::sample::select(vec!["", "app=x"]), rules.clone(), rules).prop_map(
        |(namespace, selects, ingress, egress)| Policy {
            name: ObjectName::new(namespace, ""),
            selects: selector(selects),
            ingress,
            egress,
        },
    );
    prop_oneof![
        (0_u8..2, prop::option::weighted(0.8, policy)).prop_map(|(n, policy)| Happening::Policy(n, policy)),
        (prop::sample::select(vec!["a", "b"]), prop::option::of(prop::sample::select(vec!["t", "u"])))
            .prop_map(|(name, team)| Happening::Namespace(name, team)),
        (0_usize..6, prop::option::weighted(0.8, who.clone())).prop_map(|(n, who)| Happening::Pod(n, who)),
        (0_usize..3, prop::option::weighted(0.8, who)).prop_map(|(n, who)| Happening::Local(n, who)),
    ]
}

fn happens(engine: &mut Engine, happening: &Happening) {
    match happening.clone() {
        Happening::Policy(number, policy) => {
            // One name, whatever namespace the policy is in.
            for namespace in ["a", "b"] {
                let name = ObjectName::new(namespace, &format!("p{number}"));
                let here = policy.clone().filter(|policy| policy.name.namespace == namespace);
                engine.set_policy(&name, here.map(|policy| Policy { name: name.clone(), ..policy }));
            }
        }
        Happening::Namespace(name, team) => {
            let labels = team.map(|team| [("team".to_owned(), team.to_owned())].into());
            engine.set_namespace(name, labels);
        }
        Happening::Pod(number, who) => {
            let info = who.map(|identity| PodInfo { identity, ips: vec![ip(ADDRESSES[number])] });
            engine.set_pod(&ObjectName::new("all", &number.to_string()), info);
        }
        Happening::Local(number, who) => {
            let pod = who.map(|identity| LocalPod {
                name: ObjectName::new("local", &number.to_string()),
                identity,
                ips: vec![ip(ADDRESSES[number])],
                ..LocalPod::default()
            });
            engine.set_local(&number.to_string(), pod);
        }
    }
}

/// Everything that may be asked, and the answers.
fn answers(tables: &PolicyTables) -> BTreeMap<(usize, bool, usize, u8, u16), bool> {
    let mut all = BTreeMap::new();
    for (pod, own) in ADDRESSES.iter().enumerate().take(3) {
        for (other, peer) in ADDRESSES.iter().enumerate() {
            for (protocol, port) in [(TCP, 80), (TCP, 81), (UDP, 80), (UDP, 82), (TCP, 99)] {
                for role in [Role::Opener, Role::Target] {
                    let decision = tables.decide(addr(own), role, addr(peer), protocol, port);
                    let key = (pod, role == Role::Opener, other, protocol, port);
                    all.insert(key, decision != Decision::Denied);
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn changes_come_to_what_an_engine_from_nothing_says_and_no_prefix_lets_more_through(
        history in prop::collection::vec(happening(), 1..14),
    ) {
        let maps = MemoryPolicyMaps::default();
        let mut engine = Engine::restore(&maps.tables(), ClusterDns::default());
        for (count, happening) in history.iter().enumerate() {
            happens(&mut engine, happening);
            let (before, policed) = (answers(&maps.tables()), maps.tables().policed);
            let plan = engine.plan();
            let mut prefixes = Vec::new();
            for change in &plan {
                maps.apply(change).expect("memory takes it");
                engine.applied(change);
                prefixes.push(answers(&maps.tables()));
            }
            let tables = maps.tables();
            let after = answers(&tables);
            for (number, prefix) in prefixes.iter().enumerate() {
                for (question, allowed) in prefix {
                    prop_assert!(!allowed || before[question] || after[question],
                        "batch {number} of {plan:?} lets {question:?} through");
                }
            }
            // What is forbidden now and was not before is asked about again.
            for (question, allowed) in &after {
                let pod = addr(ADDRESSES[question.0]);
                if !allowed && before[question] {
                    prop_assert_ne!(policed.get(&pod), tables.policed.get(&pod), "{:?}", question);
                }
            }
            let fresh_maps = MemoryPolicyMaps::default();
            let mut fresh = Engine::restore(&fresh_maps.tables(), ClusterDns::default());
            history[..=count].iter().for_each(|happening| happens(&mut fresh, happening));
            run(&mut fresh, &fresh_maps);
            prop_assert_eq!(&answers(&fresh_maps.tables()), &after);
            let fresh = fresh_maps.tables();
            prop_assert_eq!(tables.rules.len(), fresh.rules.len(), "nothing is left over");
            prop_assert_eq!(tables.blocks.len(), fresh.blocks.len());
            prop_assert_eq!(tables.identities.len(), fresh.identities.len());
        }
    }
}
