//! Table tests: a question, and the answer as text.

use std::collections::BTreeMap;

use super::*;
use crate::index::Zone;

fn port(name: &str, protocol: &str, number: u16) -> Port {
    Port { name: name.into(), protocol: protocol.into(), number }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().expect("an address")).collect()
}

fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.into(), name: name.into() }
}

fn alias(target: &str) -> Option<Entry> {
    Some(Entry::Alias { target: target.into() })
}

fn virtual_service(addresses: &[&str]) -> Option<Entry> {
    Some(Entry::Virtual {
        ips: ips(addresses),
        ports: vec![port("http", "tcp", 80), port("dns", "udp", 53), port("m3ua", "sctp", 2905)],
        endpoints: BTreeMap::new(),
    })
}

fn headless() -> Option<Entry> {
    let endpoint =
        |addresses: &[&str]| Endpoint { ips: ips(addresses), ports: vec![port("pg", "tcp", 5432)] };
    let endpoints = BTreeMap::from([
        ("db-0".to_owned(), endpoint(&["10.244.0.5", "fd00:244::5"])),
        ("10-244-0-6".to_owned(), endpoint(&["10.244.0.6"])),
    ]);
    Some(Entry::Headless { endpoints })
}

/// A service with an address, in front of pods that have names.
fn set() -> Option<Entry> {
    let pod = Endpoint { ips: ips(&["10.244.0.8"]), ports: Vec::new() };
    Some(Entry::Virtual {
        ips: ips(&["10.96.0.8"]),
        ports: Vec::new(),
        endpoints: BTreeMap::from([("set-0".to_owned(), pod)]),
    })
}

fn index() -> Index {
    let ranges =
        ["10.96.0.0/12", "10.244.0.0/16", "fd00:96::/108"].map(|range| range.parse().expect("a range"));
    let mut index = Index::new(Zone::new("Cluster.Local", ranges.into(), 300).expect("a zone"));
    for (namespace, name, entry) in [
        ("default", "web", virtual_service(&["10.96.0.9", "fd00:96::9"])),
        ("default", "web4", virtual_service(&["10.96.0.4"])),
        ("default", "db", headless()),
        ("default", "set", set()),
        ("default", "empty", Some(Entry::Headless { endpoints: BTreeMap::new() })),
        ("default", "outside", alias("www.example.com")),
        ("default", "inside", alias("web4.default.svc.cluster.local")),
        ("default", "nowhere", alias("gone.default.svc.cluster.local")),
        ("default", "loop-a", alias("loop-b.default.svc.cluster.local")),
        ("default", "loop-b", alias("loop-a.default.svc.cluster.local")),
        ("kube-system", "kube-dns", virtual_service(&["10.96.0.10"])),
    ] {
        assert!(index.put(&key(namespace, name), entry));
    }
    index
}

/// The answer in short: records as `TYPE data`, joined by `, `.
fn ask(index: &Index, name: &str, kind: RecordType) -> String {
    let list = |records: &[Record]| {
        let mut texts: Vec<String> =
            records.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
        texts.sort();
        texts.join(", ")
    };
    match answer(index, &Name::from_ascii(name).expect("a name"), kind) {
        Answer::Records { answers, .. } => {
            assert!(answers.iter().all(|record| record.ttl == 30), "{answers:?}");
            list(&answers)
        }
        Answer::Alias { answers, target } => format!("{} -> {target}", list(&answers)),
        Answer::NoData => "NODATA".into(),
        Answer::NxDomain => "NXDOMAIN".into(),
        Answer::Elsewhere => "ELSEWHERE".into(),
    }
}

#[test]
fn every_kind_of_name_has_its_answer() {
    use RecordType as T;
    let index = index();
    let cases = [
        // Services with addresses.
        ("web.default.svc.cluster.local.", T::A, "A 10.96.0.9"),
        ("web.default.svc.cluster.local.", T::AAAA, "AAAA fd00:96::9"),
        ("WEB.Default.SVC.cluster.LOCAL.", T::A, "A 10.96.0.9"),
        ("web4.default.svc.cluster.local.", T::AAAA, "NODATA"),
        ("web.default.svc.cluster.local.", T::TXT, "NODATA"),
        ("web.default.svc.cluster.local.", T::ANY, "A 10.96.0.9, AAAA fd00:96::9"),
        ("absent.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("web.other.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("x.web.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        // Ports.
        ("_http._tcp.web.default.svc.cluster.local.", T::SRV, "SRV 0 100 80 web.default.svc.cluster.local."),
        ("_dns._udp.web.default.svc.cluster.local.", T::SRV, "SRV 0 100 53 web.default.svc.cluster.local."),
        ("_http._udp.web.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
        ("_http._tcp.web.default.svc.cluster.local.", T::A, "NODATA"),
        ("_tcp.web.default.svc.cluster.local.", T::SRV, "NODATA"),
        ("_sctp.db.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
        (
            "_m3ua._sctp.web.default.svc.cluster.local.",
            T::SRV,
            "SRV 0 100 2905 web.default.svc.cluster.local.",
        ),
        ("_HTTP._TCP.web.default.svc.cluster.local.", T::SRV, "SRV 0 100 80 web.default.svc.cluster.local."),
        (
            "_pg._tcp.db.default.svc.cluster.local.",
            T::SRV,
            "SRV 0 50 5432 10-244-0-6.db.default.svc.cluster.local., SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
        ),
        // Headless services.
        ("db.default.svc.cluster.local.", T::A, "A 10.244.0.5, A 10.244.0.6"),
        ("db.default.svc.cluster.local.", T::AAAA, "AAAA fd00:244::5"),
        ("db-0.db.default.svc.cluster.local.", T::A, "A 10.244.0.5"),
        ("10-244-0-6.db.default.svc.cluster.local.", T::A, "A 10.244.0.6"),
        ("10-244-0-6.db.default.svc.cluster.local.", T::AAAA, "NODATA"),
        ("db-9.db.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("empty.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("set.default.svc.cluster.local.", T::A, "A 10.96.0.8"),
        ("set-0.set.default.svc.cluster.local.", T::A, "A 10.244.0.8"),
        ("set-1.set.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        // Nothing is a wild card.
        ("*.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("any.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("web.*.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("_any._tcp.web.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
        ("*._tcp.web.default.svc.cluster.local.", T::SRV, "NXDOMAIN"),
        ("*.db.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        // Aliases.
        ("outside.default.svc.cluster.local.", T::A, "CNAME www.example.com. -> www.example.com."),
        ("outside.default.svc.cluster.local.", T::CNAME, "CNAME www.example.com."),
        ("outside.default.svc.cluster.local.", T::ANY, "CNAME www.example.com."),
        ("x.outside.default.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("inside.default.svc.cluster.local.", T::A, "A 10.96.0.4, CNAME web4.default.svc.cluster.local."),
        ("nowhere.default.svc.cluster.local.", T::A, "CNAME gone.default.svc.cluster.local."),
        // Pods.
        ("10-244-3-4.default.pod.cluster.local.", T::A, "A 10.244.3.4"),
        ("10-244-3-4.default.pod.cluster.local.", T::AAAA, "NODATA"),
        ("2001-db8-0-0-0-0-0-7.default.pod.cluster.local.", T::AAAA, "AAAA 2001:db8::7"),
        ("fd00--4.default.pod.cluster.local.", T::AAAA, "AAAA fd00::4"),
        ("not-an-ip.default.pod.cluster.local.", T::A, "NXDOMAIN"),
        // Reverse.
        ("9.0.96.10.in-addr.arpa.", T::PTR, "PTR web.default.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa.", T::PTR, "PTR db-0.db.default.svc.cluster.local."),
        ("77.0.244.10.in-addr.arpa.", T::PTR, "NXDOMAIN"),
        ("244.10.in-addr.arpa.", T::PTR, "NODATA"),
        ("244.10.in-addr.arpa.", T::NS, "NS ns.dns.cluster.local."),
        ("0.244.10.in-addr.arpa.", T::NS, "NODATA"),
        ("10.in-addr.arpa.", T::PTR, "ELSEWHERE"),
        ("8.0.244.10.in-addr.arpa.", T::PTR, "PTR set-0.set.default.svc.cluster.local."),
        ("6.0.244.10.IN-ADDR.arpa.", T::PTR, "PTR 10-244-0-6.db.default.svc.cluster.local."),
        ("9.0.96.10.in-addr.arpa.", T::A, "NODATA"),
        ("8.8.8.8.in-addr.arpa.", T::PTR, "ELSEWHERE"),
        (
            "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
            T::PTR,
            "PTR web.default.svc.cluster.local.",
        ),
        // Names in between, and the zone itself.
        ("default.svc.cluster.local.", T::A, "NODATA"),
        ("nobody.svc.cluster.local.", T::A, "NXDOMAIN"),
        ("svc.cluster.local.", T::A, "NODATA"),
        ("default.pod.cluster.local.", T::A, "NODATA"),
        ("cluster.local.", T::NS, "NS ns.dns.cluster.local."),
        ("cluster.local.", T::A, "NODATA"),
        ("ns.dns.cluster.local.", T::A, "A 10.96.0.10"),
        ("dns-version.cluster.local.", T::TXT, "TXT 1.1.0"),
        ("cluster.local.", T::SOA, "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"),
        ("absent.cluster.local.", T::A, "NXDOMAIN"),
        // Not ours.
        ("www.example.com.", T::A, "ELSEWHERE"),
        ("local.", T::A, "ELSEWHERE"),
        ("web.default.svc.cluster.local.example.com.", T::A, "ELSEWHERE"),
        ("notcluster.local.", T::A, "ELSEWHERE"),
        ("localhost.", T::A, "A 127.0.0.1"),
    ];
    for (name, kind, want) in cases {
        assert_eq!(ask(&index, name, kind), want, "{name} {kind}");
    }
}

#[test]
fn aliases_in_a_circle_end() {
    let text = ask(&index(), "loop-a.default.svc.cluster.local.", RecordType::A);
    assert_eq!(text.matches("CNAME").count(), MAX_ALIASES);
}

#[test]
fn negative_answers_name_the_zone_they_are_about() {
    let owner = |name: &str| {
        let name = Name::from_ascii(name).expect("a name");
        let record = authority(&index(), &name).expect("a record");
        let RData::SOA(soa) = &record.data else { panic!("{record}") };
        assert_eq!((record.ttl, soa.minimum), (5, 5));
        assert!(record.name.zone_of(&name), "{name} is not in {}", record.name);
        record.name.to_ascii()
    };
    assert_eq!(owner("x.default.svc.cluster.local."), "cluster.local.");
    // A range of 12 bits is sixteen zones.
    assert_eq!(owner("9.0.97.10.in-addr.arpa."), "97.10.in-addr.arpa.");
    assert_eq!(owner("9.0.244.10.in-addr.arpa."), "244.10.in-addr.arpa.");
    let v6 = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(owner(v6), v6[10..]);
}

#[test]
fn answers_keep_the_spelling_of_the_question() {
    let name = Name::from_ascii("WeB.default.svc.cluster.local.").expect("a name");
    let Answer::Records { answers, .. } = answer(&index(), &name, RecordType::A) else {
        panic!("no records")
    };
    assert_eq!(answers[0].name.to_ascii(), "WeB.default.svc.cluster.local.");
}

#[test]
fn targets_come_with_their_addresses() {
    let name = Name::from_ascii("_pg._tcp.db.default.svc.cluster.local.").expect("a name");
    let Answer::Records { additionals, .. } = answer(&index(), &name, RecordType::SRV) else {
        panic!("no records")
    };
    assert_eq!(additionals.len(), 3);
}

#[test]
fn a_service_that_changes_or_goes_takes_its_names_along() {
    let mut index = index();
    let web = key("default", "web");
    let before = index.clone();
    assert!(!index.put(&web, virtual_service(&["10.96.0.9", "fd00:96::9"])), "nothing changed");
    assert!(index.put(&web, virtual_service(&["10.96.0.77"])));
    assert_eq!(ask(&index, "9.0.96.10.in-addr.arpa.", RecordType::PTR), "NXDOMAIN");
    let want = "PTR web.default.svc.cluster.local.";
    assert_eq!(ask(&index, "77.0.96.10.in-addr.arpa.", RecordType::PTR), want);
    assert!(index.put(&web, None));
    assert!(!index.put(&web, None));
    assert_eq!(ask(&index, "web.default.svc.cluster.local.", RecordType::A), "NXDOMAIN");
    assert_eq!(ask(&before, "web.default.svc.cluster.local.", RecordType::A), "A 10.96.0.9", "an old copy");
    assert!(index.put(&key("kube-system", "kube-dns"), None));
    assert_eq!(ask(&index, "kube-system.svc.cluster.local.", RecordType::A), "NXDOMAIN", "its namespace too");
}

#[test]
fn bytes_that_are_no_name_do_no_harm() {
    let zone = Name::from_ascii("svc.cluster.local.").expect("a name");
    let name = Name::from_labels([&[0xff, 0xfe][..], b"default"]).expect("labels");
    let name = name.append_domain(&zone).expect("a name");
    assert_eq!(answer(&index(), &name, RecordType::A), Answer::NxDomain);
}
