//! Cluster DNS: questions of pods, and answers of other name servers.

use std::sync::LazyLock;

use skep_dns::answer::{Answer, answer, authority};
use skep_dns::entry::{Endpoint, Entry, Port};
use skep_dns::packet::{Packet, Sections, Transport, Ttl, write_error, write_problem};
use skep_dns::query::{Problem, Query};
use skep_dns::{Index, ServiceKey, Zone};

use crate::Target;

/// Questions: whatever is asked, the answer can be read, repeats the question, is short enough, and says if
/// something is missing.
pub(crate) const QUESTION: Target = Target {
    name: "dns-question",
    about: "questions to the cluster DNS, answered",
    run: question,
    seeds: &[
        // web.default.svc.cluster.local A, with EDNS.
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03web\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01\x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00",
        // _pg._tcp.db.default.svc.cluster.local SRV.
        b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03_pg\x04_tcp\x02db\x07default\x03svc\x07cluster\x05local\x00\x00\x21\x00\x01",
        // out.default.svc.cluster.local ANY.
        b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03out\x07default\x03svc\x07cluster\x05local\x00\x00\xff\x00\x01",
        // 9.0.96.10.in-addr.arpa PTR.
        b"\x00\x01\x01\x20\x00\x01\x00\x00\x00\x00\x00\x00\x019\x010\x0296\x0210\x07in-addr\x04arpa\x00\x00\x0c\x00\x01",
        // 10-244-0-5.default.pod.cluster.local A.
        b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0a10-244-0-5\x07default\x03pod\x07cluster\x05local\x00\x00\x01\x00\x01",
    ],
};

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let ranges = vec!["10.96.0.0/12".parse().expect("a range")];
    let mut index = Index::new(Zone::new("cluster.local", ranges, 30).expect("a zone"));
    let port = |name: &str| Port { name: name.into(), protocol: "tcp".into(), number: 80 };
    let endpoint = |n: u32| {
        let endpoint = Endpoint { ips: vec![std::net::Ipv4Addr::from(n).into()], ports: vec![port("pg")] };
        (format!("db-{n}"), endpoint)
    };
    let entries = [
        (
            "web",
            Entry::Virtual {
                ips: vec!["10.96.0.9".parse().expect("an address"), "fd00::9".parse().expect("an address")],
                ports: vec![port("http")],
                endpoints: [endpoint(7)].into(),
            },
        ),
        ("db", Entry::Headless { endpoints: (0..90).map(endpoint).collect() }),
        ("out", Entry::Alias { target: "www.example.com".into() }),
        ("loop", Entry::Alias { target: "loop.default.svc.cluster.local".into() }),
    ];
    for (name, entry) in entries {
        index.put(&ServiceKey { namespace: "default".into(), name: name.into() }, Some(entry));
    }
    index
});

fn question(bytes: &[u8]) {
    let mut out = Vec::new();
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(Problem::Silence) => return,
        Err(Problem::Error { id, flags, code }) => {
            write_problem(id, flags, code, &mut out);
            assert_eq!(out[..2], bytes[..2]);
            return;
        }
    };
    write_error(&query, Default::default(), &mut out);
    assert_eq!(&out[12..12 + query.spelled().len()], query.spelled());
    let Ok(name) = query.name() else { return };
    let sections = match answer(&INDEX, &name, query.kind()) {
        Answer::Records { answers, additionals } => {
            Sections { answers, additionals, authoritative: true, ..Sections::default() }
        }
        Answer::Alias { answers, .. } => Sections { answers, ..Sections::default() },
        Answer::NoData | Answer::NxDomain => {
            Sections { authority: authority(&INDEX, &name).into_iter().collect(), ..Sections::default() }
        }
        Answer::Elsewhere => return,
    };
    let Some(packet) = Packet::encode(&query, sections) else { return };
    for transport in [Transport::Udp, Transport::Tcp] {
        packet.write(&query, transport, Ttl::Aged(1), 3, &mut out);
        assert!(out.len() <= transport.limit(&query));
        assert_eq!(&out[12..12 + query.spelled().len()], query.spelled());
        let again = Packet::read(out.clone()).expect("what is written can be read");
        assert_eq!(
            again.has_answers(),
            packet.has_answers() && (again.has_answers() || again.is_truncated())
        );
    }
}

/// Answers: a question and bytes that another server answers it with.
pub(crate) const ANSWER: Target = Target {
    name: "dns-answer",
    about: "answers of name servers, passed on",
    run: answer_of_another,
    seeds: &[
        b"\x12\x34\x81\x80\x00\x01\x00\x02\x00\x00\x00\x01\x01a\x04test\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x02\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00",
        b"\x12\x34\x81\x83\x00\x01\x00\x00\x00\x01\x00\x00\x01a\x04test\x00\x00\x01\x00\x01\x00\x00\x06\x00\x01\x00\x00\x00\x3c\x00\x16\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05",
    ],
};

fn answer_of_another(bytes: &[u8]) {
    let Some(packet) = Packet::read(bytes.to_vec()) else { return };
    let _ = (packet.ttl(), packet.size(), packet.code());
    // The question that it claims to answer.
    let mut asked = bytes.to_vec();
    asked[2] &= 0x01;
    asked[6..12].fill(0);
    let Ok(query) = Query::parse(&asked) else { return };
    assert!(packet.is_about(&query));
    let mut out = Vec::new();
    for (transport, ttl) in [(Transport::Udp, Ttl::Aged(7)), (Transport::Tcp, Ttl::Stale(30))] {
        packet.write(&query, transport, ttl, 1, &mut out);
        assert!(out.len() <= transport.limit(&query).max(bytes.len()));
        assert!(Packet::read(out.clone()).is_some(), "what is passed on can be read");
    }
}
