//! Packets are read back with the library, which knows nothing of how they were written.

use hickory_proto::{
    op::Edns as Said,
    rr::{
        Name, RData,
        rdata::{A as Address, CNAME, SOA as Start, SRV},
    },
};
use proptest::prelude::*;

use super::*;
use crate::query::{Problem, tests::message};

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Query {
    let mut asked = message(name, kind);
    if let Some(payload) = payload {
        let mut said = Said::new();
        said.set_max_payload(payload);
        asked.set_edns(said);
    }
    Query::parse(&asked.to_vec().expect("encodes")).expect("a question")
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn address(owner: &str, number: u32) -> Record {
    Record::from_rdata(name(owner), 30, RData::A(Address(number.into())))
}

fn soa(minimum: u32, ttl: u32) -> Record {
    let start = Start::new(name("ns.a.example."), name("h.a.example."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name("a.example."), ttl, RData::SOA(start))
}

fn many(owner: &str, count: u32) -> Sections {
    Sections { answers: (0..count).map(|n| address(owner, n)).collect(), ..Sections::default() }
}

fn written(packet: &Packet, query: &Query, transport: Transport) -> (Message, usize) {
    let mut out = Vec::new();
    packet.write(query, transport, Ttl::Aged(0), 0, &mut out);
    (Message::from_vec(&out).expect("decodes"), out.len())
}

#[test]
fn an_answer_repeats_its_question_to_the_letter() {
    let first = query("web.a.example.", RecordType::A, None);
    let sections = Sections { authoritative: true, ..many("web.a.example.", 2) };
    let packet = Packet::encode(&first, sections).expect("encodes");
    let second = query("WEB.a.eXample.", RecordType::A, Some(4096));
    assert!(packet.is_about(&second) && !packet.is_about(&query("web.b.example.", RecordType::A, None)));
    let (answer, _) = written(&packet, &second, Transport::Udp);
    assert_eq!(answer.metadata.id, second.id);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert!(answer.metadata.recursion_desired);
    assert_eq!(answer.queries[0].name().to_ascii(), "WEB.a.eXample.");
    assert_eq!(answer.answers[1].name.to_ascii(), "WEB.a.eXample.");
    assert_eq!(answer.edns.as_ref().map(Said::max_payload), Some(1232));
    assert_eq!(written(&packet, &first, Transport::Udp).0.edns, None);
}

#[test]
fn what_does_not_fit_is_cut_between_records_and_tc_says_so() {
    for (payload, limit) in [(None, 512), (Some(100), 512), (Some(1000), 1000), (Some(4096), 1232)] {
        let query = query("many.a.example.", RecordType::A, payload);
        let packet = Packet::encode(&query, many("many.a.example.", 200)).expect("encodes");
        let (cut, length) = written(&packet, &query, Transport::Udp);
        assert!(cut.metadata.truncation && length <= limit && length + 16 > limit, "{length} of {limit}");
        assert_eq!(cut.edns.is_some(), payload.is_some());
        let (whole, _) = written(&packet, &query, Transport::Tcp);
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 200);
    }
}

#[test]
fn addresses_that_only_help_may_be_missing_without_a_word() {
    let query = query("_a._tcp.a.example.", RecordType::SRV, None);
    let target = |n| name(&format!("{n}.a.example."));
    let answers = (0..9).map(|n| {
        Record::from_rdata(name("_a._tcp.a.example."), 30, RData::SRV(SRV::new(0, 1, 80, target(n))))
    });
    let additionals = (0..90).map(|n| address(&format!("{n}.a.example."), n));
    let sections =
        Sections { answers: answers.collect(), additionals: additionals.collect(), ..Sections::default() };
    let packet = Packet::encode(&query, sections).expect("encodes");
    let (answer, length) = written(&packet, &query, Transport::Udp);
    assert!(!answer.metadata.truncation && length <= 512);
    assert_eq!(answer.answers.len(), 9);
    assert!(!answer.additionals.is_empty() && answer.additionals.len() < 90);
}

#[test]
fn addresses_take_turns_and_aliases_stay_in_front() {
    let query = query("alias.a.example.", RecordType::A, None);
    let mut sections = many("web.a.example.", 3);
    let alias = RData::CNAME(CNAME(name("web.a.example.")));
    sections.answers.insert(0, Record::from_rdata(name("alias.a.example."), 30, alias));
    let packet = Packet::encode(&query, sections).expect("encodes");
    let mut firsts = Vec::new();
    for spin in 0..3 {
        let mut out = Vec::new();
        packet.write(&query, Transport::Udp, Ttl::Aged(0), spin, &mut out);
        let answer = Message::from_vec(&out).expect("decodes");
        assert_eq!(answer.answers[0].record_type(), RecordType::CNAME);
        let mut all: Vec<String> = answer.answers[1..].iter().map(|record| record.data.to_string()).collect();
        firsts.push(all[0].clone());
        all.sort();
        assert_eq!(all, ["0.0.0.0", "0.0.0.1", "0.0.0.2"]);
    }
    assert_eq!(firsts, ["0.0.0.0", "0.0.0.1", "0.0.0.2"]);
}

#[test]
fn ttls_age_and_end() {
    let query = query("web.a.example.", RecordType::A, None);
    let packet = Packet::encode(&query, many("web.a.example.", 1)).expect("encodes");
    assert_eq!(packet.ttl(), Some(30));
    for (ttl, want) in [(Ttl::Aged(10), 20), (Ttl::Aged(99), 0), (Ttl::Stale(5), 5), (Ttl::Stale(99), 30)] {
        let mut out = Vec::new();
        packet.write(&query, Transport::Udp, ttl, 0, &mut out);
        assert_eq!(Message::from_vec(&out).expect("decodes").answers[0].ttl, want, "{ttl:?}");
    }
}

#[test]
fn negative_answers_are_kept_as_their_soa_says() {
    let query = query("gone.a.example.", RecordType::A, None);
    let ttl = |code, authority: Vec<Record>| {
        let packet = Packet::encode(&query, Sections { code, authority, ..Sections::default() });
        packet.expect("encodes").ttl()
    };
    assert_eq!(ttl(ResponseCode::NXDomain, vec![soa(60, 300)]), Some(60));
    assert_eq!(ttl(ResponseCode::NoError, vec![soa(600, 300)]), Some(300));
    assert_eq!(ttl(ResponseCode::NXDomain, vec![]), None, "without an SOA not at all");
    assert_eq!(ttl(ResponseCode::ServFail, vec![soa(60, 300)]), None);
    assert_eq!(ttl(ResponseCode::Refused, vec![]), None);
}

#[test]
fn the_opt_of_another_server_is_not_passed_on() {
    let query = query("web.a.example.", RecordType::A, None);
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(Question::query(query.name().expect("a name"), RecordType::A));
    message.add_answer(address("web.a.example.", 1));
    message.set_edns(Said::new());
    let packet = Packet::read(message.to_vec().expect("encodes")).expect("reads");
    let (answer, _) = written(&packet, &query, Transport::Udp);
    assert_eq!((answer.answers.len(), answer.edns), (1, None));
}

#[test]
fn errors_have_the_question_where_it_could_be_read() {
    let query = query("a.example.", RecordType::A, Some(1232));
    let mut out = Vec::new();
    for code in [ResponseCode::Refused, ResponseCode::ServFail, ResponseCode::BADVERS] {
        write_error(&query, code, &mut out);
        let answer = Message::from_vec(&out).expect("decodes");
        assert_eq!(answer.queries.len(), 1);
        let high = answer.edns.as_ref().expect("edns").rcode_high();
        assert_eq!((answer.metadata.response_code.low(), high), (code.low(), code.high()));
    }
    write_problem(7, flag::RECURSION_DESIRED | 0x2800, ResponseCode::NotImp, &mut out);
    let answer = Message::from_vec(&out).expect("decodes");
    assert_eq!((answer.metadata.id, answer.metadata.op_code), (7, OpCode::Update));
    assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
}

fn labels() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-z_A-Z0-9][a-zA-Z0-9-]{0,18}[a-zA-Z0-9]", 1..6)
        .prop_map(|labels| labels.join(".") + ".")
}

proptest! {
    /// Whatever the sections and the client's limits: the answer is one that the library reads, it is not too long,
    /// and all of it is there or it says what is not.
    #[test]
    fn any_answer_is_whole_or_says_so(
        owner in labels(),
        targets in prop::collection::vec(labels(), 0..60),
        helping in 0_u32..90,
        payload in prop::option::of(any::<u16>()),
        tcp in any::<bool>(),
        spin in any::<usize>(),
        age in 0_u32..100,
    ) {
        let query = query(&owner, RecordType::SRV, payload);
        let answers: Vec<Record> = targets
            .iter()
            .map(|target| Record::from_rdata(name(&owner), 30, RData::SRV(SRV::new(0, 1, 80, name(target)))))
            .collect();
        let additionals = (0..helping).map(|n| address(targets.first().unwrap_or(&owner), n)).collect();
        let authority = vec![soa(5, 5)];
        let sections = Sections { answers: answers.clone(), additionals, authority, ..Sections::default() };
        let packet = Packet::encode(&query, sections).expect("encodes");
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let mut out = Vec::new();
        packet.write(&query, transport, Ttl::Aged(age), spin, &mut out);
        prop_assert!(out.len() <= transport.limit(&query), "{} bytes", out.len());
        let answer = Message::from_vec(&out).expect("decodes");
        let whole = answer.answers.len() == answers.len() && answer.authorities.len() == 1;
        prop_assert_eq!(answer.metadata.truncation, !whole);
        prop_assert!(answer.answers.iter().zip(&answers).all(|(got, want)| got.data == want.data));
        prop_assert!(answer.answers.iter().all(|record| record.ttl == 30_u32.saturating_sub(age)));
    }

    /// No bytes are too strange to be a question or an answer of another server.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        match Query::parse(&bytes) {
            Ok(query) => {
                let mut out = Vec::new();
                write_error(&query, ResponseCode::Refused, &mut out);
                prop_assert!(Message::from_vec(&out).is_ok());
            }
            Err(Problem::Error { id, flags, code }) => {
                let mut out = Vec::new();
                write_problem(id, flags, code, &mut out);
                let answer = Message::from_vec(&out).expect("decodes");
                prop_assert_eq!((answer.metadata.id, answer.queries.len()), (id, 0));
            }
            Err(Problem::Silence) => {}
        }
        if let Some(packet) = Packet::read(bytes) {
            let _ = packet.ttl();
        }
    }
}
