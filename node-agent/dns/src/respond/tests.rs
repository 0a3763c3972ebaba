//! Messages in, messages out, without sockets.

use hickory_proto::{
    op::{Edns as Said, OpCode},
    rr::{RData, RecordType},
};

use super::*;
use crate::{entry::Entry, index::ServiceKey, query::tests::message};

fn zone() -> Zone {
    Zone::new("cluster.local", vec!["10.96.0.0/16".parse().expect("a range")], 30).expect("a zone")
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "default".into(), name: name.into() }
}

fn put(index: &mut Index, name: &str, ip: &str) {
    let ips = vec![ip.parse().expect("an address")];
    index.put(&key(name), Some(Entry::Virtual { ips, ports: Vec::new(), endpoints: Default::default() }));
}

fn responder(index: Option<Index>) -> Responder {
    let published = Arc::new(Published::new(index.map(Arc::new)));
    Responder::new(zone(), published, Forwarder::new(Metrics::default()), Metrics::default())
}

fn web() -> Index {
    let mut index = Index::new(zone());
    put(&mut index, "web", "10.96.0.9");
    index
}

fn answered(responder: &Responder, bytes: &[u8]) -> Option<Message> {
    let mut out = Vec::new();
    match responder.take(bytes, Transport::Udp, &mut out) {
        Taken::Answered => Some(Message::from_vec(&out).expect("decodes")),
        Taken::Silence | Taken::Later(_) => None,
    }
}

fn ask(responder: &Responder, name: &str, kind: RecordType) -> Message {
    let asked = message(name, kind);
    let answer = answered(responder, &asked.to_vec().expect("encodes")).expect("an answer");
    assert_eq!((answer.metadata.id, &answer.queries), (asked.metadata.id, &asked.queries));
    answer
}

fn code(responder: &Responder, name: &str, kind: RecordType) -> ResponseCode {
    ask(responder, name, kind).metadata.response_code
}

#[test]
fn kept_answers_are_those_of_the_newest_index() {
    let responder = responder(Some(web()));
    let address = |name| match ask(&responder, name, RecordType::A).answers.as_slice() {
        [record] => record.data.to_string(),
        other => format!("{other:?}"),
    };
    for _ in 0..2 {
        assert_eq!(address("web.default.svc.cluster.local."), "10.96.0.9");
        assert_eq!(address("WEB.default.svc.cluster.local."), "10.96.0.9");
    }
    assert_eq!(responder.kept.borrow().packets.len(), 1, "one answer for both spellings");
    let mut newer = web();
    put(&mut newer, "web", "10.96.0.77");
    responder.published.store(Some(Arc::new(newer)));
    assert_eq!(address("web.default.svc.cluster.local."), "10.96.0.77");
    assert_eq!(code(&responder, "9.0.96.10.in-addr.arpa.", RecordType::PTR), ResponseCode::NXDomain);
}

#[test]
fn what_is_kept_has_an_end() {
    let responder = responder(Some(web()));
    for n in 0..=MAX_KEPT {
        let name = format!("x{n}.default.svc.cluster.local.");
        assert_eq!(code(&responder, &name, RecordType::A), ResponseCode::NXDomain);
    }
    assert!(responder.kept.borrow().packets.len() <= MAX_KEPT);
}

#[test]
fn before_the_lists_are_in_nothing_is_said_not_to_exist() {
    let responder = responder(None);
    for name in ["web.default.svc.cluster.local.", "cluster.local.", "1.0.96.10.in-addr.arpa."] {
        assert_eq!(code(&responder, name, RecordType::A), ResponseCode::ServFail, "{name}");
    }
    assert!(matches!(
        responder.take(
            &message("example.com.", RecordType::A).to_vec().expect("encodes"),
            Transport::Udp,
            &mut Vec::new()
        ),
        Taken::Later(_)
    ));
}

#[test]
fn what_an_earlier_life_knew_is_given_and_what_it_did_not_is_not_denied() {
    let mut index = Index::provisional(zone());
    put(&mut index, "web", "10.96.0.9");
    let responder = responder(Some(index));
    let web = "web.default.svc.cluster.local.";
    assert_eq!(ask(&responder, web, RecordType::A).answers.len(), 1);
    assert_eq!(
        code(&responder, web, RecordType::AAAA),
        ResponseCode::NoError,
        "its other family is known too"
    );
    assert_eq!(code(&responder, "new.default.svc.cluster.local.", RecordType::A), ResponseCode::ServFail);
    assert_eq!(code(&responder, "8.0.96.10.in-addr.arpa.", RecordType::PTR), ResponseCode::ServFail);
}

#[test]
fn negative_answers_carry_the_soa() {
    let responder = responder(Some(web()));
    for (name, want) in [("absent", ResponseCode::NXDomain), ("web", ResponseCode::NoError)] {
        let reply = ask(&responder, &format!("{name}.default.svc.cluster.local."), RecordType::AAAA);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (want, 0));
        assert!(reply.metadata.authoritative);
        assert!(matches!(reply.authorities[0].data, RData::SOA(_)), "{reply:?}");
    }
}

#[test]
fn odd_requests_get_their_error() {
    let responder = responder(Some(web()));
    let of = |message: &Message| answered(&responder, &message.to_vec().expect("encodes"));
    let code = |message: &Message| of(message).expect("an answer").metadata.response_code;
    let mut update = message("cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Status;
    assert_eq!(code(&update), ResponseCode::NotImp);
    for kind in [RecordType::AXFR, RecordType::IXFR, RecordType::OPT] {
        assert_eq!(code(&message("cluster.local.", kind)), ResponseCode::Refused);
    }
    let mut chaos = message("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut future = message("cluster.local.", RecordType::A);
    let mut said = Said::new();
    said.set_version(9);
    future.set_edns(said);
    let reply = of(&future).expect("an answer");
    assert_eq!(reply.edns.expect("edns").rcode_high(), ResponseCode::BADVERS.high());
    // A response is not answered, and neither is noise.
    let mut response = message("cluster.local.", RecordType::A);
    response.metadata.message_type = hickory_proto::op::MessageType::Response;
    assert!(of(&response).is_none());
    assert!(answered(&responder, b"noise").is_none());
}

#[test]
fn addresses_of_a_headless_service_take_turns() {
    let mut index = Index::new(zone());
    let ips = (1..=3).map(|n| std::net::IpAddr::from([10, 244, 0, n]));
    let endpoints =
        ips.map(|ip| (crate::entry::dashed(ip), crate::entry::Endpoint { ips: vec![ip], ports: Vec::new() }));
    index.put(&key("db"), Some(Entry::Headless { endpoints: endpoints.collect() }));
    let responder = responder(Some(index));
    let mut firsts: Vec<String> = (0..6)
        .map(|_| ask(&responder, "db.default.svc.cluster.local.", RecordType::A).answers[0].data.to_string())
        .collect();
    assert_eq!(firsts[..3], firsts[3..], "in turn");
    firsts.sort();
    firsts.dedup();
    assert_eq!(firsts.len(), 3, "each is the first once");
}
