//! Messages made by the library, and by hand where it would not make them.

use hickory_proto::op::{Edns as Said, Message, OpCode, Query as Question};

use super::*;

pub(crate) fn message(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn code(bytes: &[u8]) -> Option<ResponseCode> {
    match Query::parse(bytes) {
        Err(Problem::Error { code, .. }) => Some(code),
        Err(Problem::Silence) | Ok(_) => None,
    }
}

#[test]
fn questions_are_read_and_compared_without_case() {
    let mut asked = message("WeB.default.svc.cluster.local.", RecordType::SRV);
    let plain = Query::parse(&asked.to_vec().expect("encodes")).expect("a question");
    assert_eq!(plain.id, asked.metadata.id);
    assert_eq!(plain.name().expect("a name"), asked.queries[0].name().clone());
    assert_eq!(plain.name().expect("a name").to_ascii(), "WeB.default.svc.cluster.local.");
    assert_eq!((plain.kind(), plain.class(), plain.edns), (RecordType::SRV, 1, None));
    let lower = message("web.DEFAULT.svc.cluster.local.", RecordType::SRV).to_vec().expect("encodes");
    let lower = Query::parse(&lower).expect("a question");
    assert_eq!(lower.key().as_bytes(), plain.key().as_bytes());
    assert_ne!(lower.spelled(), plain.spelled());

    let mut said = Said::new();
    said.set_max_payload(4096).set_dnssec_ok(true);
    asked.set_edns(said);
    let with = Query::parse(&asked.to_vec().expect("encodes")).expect("a question");
    assert_eq!(with.edns, Some(Edns { payload: 4096, version: 0, dnssec_ok: true }));
    assert_ne!(with.key().as_bytes(), plain.key().as_bytes(), "signatures make another answer");
}

#[test]
fn the_root_can_be_asked_about() {
    let query = Query::parse(&message(".", RecordType::NS).to_vec().expect("encodes")).expect("a question");
    assert!(query.name().expect("a name").is_root());
    assert_eq!(query.key().name_bytes(), [0]);
}

#[test]
fn what_is_no_question_gets_its_error_or_silence() {
    let good = message("a.example.", RecordType::A).to_vec().expect("encodes");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    assert_eq!(code(&good), None);
    for length in 0..HEADER {
        assert!(matches!(Query::parse(&good[..length]), Err(Problem::Silence)), "{length}");
    }
    for length in HEADER..good.len() {
        assert_eq!(code(&good[..length]), Some(ResponseCode::FormErr), "{length}");
    }
    let response = with(&|bytes| bytes[2] |= 0x80);
    assert!(matches!(Query::parse(&response), Err(Problem::Silence)));
    let mut update = message("a.example.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update.to_vec().expect("encodes")), Some(ResponseCode::NotImp));
    for (what, bytes) in [
        ("no question", with(&|bytes| bytes[5] = 0)),
        ("two questions", with(&|bytes| bytes[5] = 2)),
        ("a pointer in the question", with(&|bytes| bytes[HEADER..HEADER + 2].copy_from_slice(&[0xc0, 0]))),
        ("a label of 64 bytes", with(&|bytes| bytes[HEADER] = 64)),
        ("a record that is not there", with(&|bytes| bytes[11] = 1)),
    ] {
        assert_eq!(code(&bytes), Some(ResponseCode::FormErr), "{what}");
    }
    let mut long = good[..HEADER].to_vec();
    for _ in 0..4 {
        long.push(63);
        long.extend([b'a'; 63]);
    }
    long.extend([0, 0, 1, 0, 1]);
    assert_eq!(code(&long), Some(ResponseCode::FormErr), "a name of 257 bytes");
}

#[test]
fn edns_is_said_once_and_of_the_root() {
    let mut asked = message("a.example.", RecordType::A);
    asked.set_edns(Said::new());
    let good = asked.to_vec().expect("encodes");
    let opt = &good[good.len() - 11..];
    let mut twice = [&good[..], opt].concat();
    twice[11] = 2;
    assert_eq!(code(&twice), Some(ResponseCode::FormErr));
    let mut named = [&good[..good.len() - 11], b"\x01a", opt].concat();
    assert_eq!(code(&named), Some(ResponseCode::FormErr));
    // In another section it is an unknown record.
    named = good.clone();
    (named[7], named[11]) = (1, 0);
    assert_eq!(Query::parse(&named).expect("a question").edns, None);
}

#[test]
fn names_end_and_point_backwards() {
    let cases: &[(&[u8], usize, Option<usize>)] = &[
        (b"\0", 0, Some(1)),
        (b"\x01a\0", 0, Some(3)),
        (b"\x01a\0\x01b\xc0\0", 3, Some(7)),
        (b"\x01a\xc0\0", 0, None),
        (b"\xc0\x05\0\0\0\0", 0, None),
        (b"\x01", 0, None),
        (b"\x40a", 0, None),
        (b"", 0, None),
    ];
    for (bytes, at, want) in cases {
        assert_eq!(skip_name(bytes, *at), *want, "{bytes:?}");
    }
}
