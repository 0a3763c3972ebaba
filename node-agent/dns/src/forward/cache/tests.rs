//! Time passes by saying so.

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, SOA},
};

use super::*;
use crate::{
    packet::Sections,
    query::{Query, tests::message},
};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn question(name: &str) -> Query {
    let bytes = message(name, RecordType::A).to_vec().expect("encodes");
    Query::parse(&bytes).expect("a question")
}

fn positive(query: &Query, ttl: u32, count: u32) -> Rc<Packet> {
    let name = query.name().expect("a name");
    let answers = (0..count).map(|n| Record::from_rdata(name.clone(), ttl, RData::A(A(n.into()))));
    Rc::new(
        Packet::encode(query, Sections { answers: answers.collect(), ..Sections::default() })
            .expect("encodes"),
    )
}

fn negative(query: &Query, code: ResponseCode, ttl: u32) -> Rc<Packet> {
    let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, ttl);
    let authority = vec![Record::from_rdata(Name::root(), ttl, RData::SOA(soa))];
    Rc::new(Packet::encode(query, Sections { code, authority, ..Sections::default() }).expect("encodes"))
}

fn key(query: &Query) -> Rc<[u8]> {
    query.key().as_bytes().into()
}

#[test]
fn answers_age_and_then_stand_in() {
    let (query, began) = (question("a.example."), Instant::now());
    let mut cache = Cache::new();
    assert!(matches!(cache.look(&key(&query), began), Found::Absent));
    cache.keep(&key(&query), &positive(&query, 60, 1), began);
    let look = |after| cache.look(&key(&query), began + seconds(after));
    assert!(matches!(look(0), Found::Fresh { ttl: Ttl::Aged(0), refresh: false, .. }));
    assert!(matches!(look(59), Found::Fresh { ttl: Ttl::Aged(59), .. }));
    assert!(matches!(look(60), Found::Stale { ttl: Ttl::Stale(30), retry: true, .. }));
    assert!(cache.failed(&key(&query), began + seconds(60)));
    assert!(matches!(look(61), Found::Stale { retry: false, .. }), "the servers have just failed");
    assert!(matches!(look(65), Found::Stale { retry: true, .. }));
    assert!(matches!(look(60 + 3600), Found::Absent));
}

#[test]
fn the_popular_are_refreshed_before_they_are_over() {
    let (query, began) = (question("a.example."), Instant::now());
    let mut cache = Cache::new();
    cache.keep(&key(&query), &positive(&query, 100, 1), began);
    let refresh = |after| match cache.look(&key(&query), began + seconds(after)) {
        Found::Fresh { refresh, .. } => refresh,
        other => panic!("{other:?}"),
    };
    assert!(!refresh(1) && !refresh(2) && !refresh(50), "not yet");
    assert!(refresh(95));
    assert!(!refresh(96), "it is being asked for");
    let mut cache = Cache::new();
    cache.keep(&key(&query), &positive(&query, 100, 1), began);
    let found = cache.look(&key(&query), began + seconds(95));
    assert!(matches!(found, Found::Fresh { refresh: false, .. }), "asked for once");
}

#[test]
fn how_long_each_kind_is_kept() {
    let query = question("a.example.");
    let cases = [
        (positive(&query, 7200, 1), Some(3600)),
        (positive(&query, 0, 1), None),
        (negative(&query, ResponseCode::NXDomain, 10), Some(10)),
        (negative(&query, ResponseCode::NXDomain, 3600), Some(30)),
        (negative(&query, ResponseCode::NoError, 3600), Some(30)),
        (negative(&query, ResponseCode::ServFail, 3600), Some(1)),
        (negative(&query, ResponseCode::Refused, 3600), None),
    ];
    for (packet, want) in cases {
        let (mut cache, began) = (Cache::new(), Instant::now());
        cache.keep(&key(&query), &packet, began);
        let fresh = |after| matches!(cache.look(&key(&query), began + after), Found::Fresh { .. });
        let kept = (0..=3600).rev().find(|after| fresh(seconds(*after))).map(|last| last + 1);
        assert_eq!(kept, want, "{packet:?}");
    }
}

#[test]
fn a_failure_is_not_given_when_it_is_over_and_no_answer_makes_way_for_it() {
    let (query, began) = (question("a.example."), Instant::now());
    let mut cache = Cache::new();
    cache.keep(&key(&query), &negative(&query, ResponseCode::ServFail, 1), began);
    assert!(matches!(cache.look(&key(&query), began + seconds(2)), Found::Absent));
    assert!(!cache.failed(&key(&query), began), "a failure is not worth anything");
}

#[test]
fn however_much_is_asked_the_memory_has_an_end() {
    let (mut cache, now) = (Cache::new(), Instant::now());
    for n in 0..60_000 {
        let query = question(&format!("{n}.example."));
        cache.keep(&key(&query), &positive(&query, 60, 1 + n % 60), now);
    }
    assert!(cache.weight() <= CAPACITY, "{} bytes", cache.weight());
    assert!(cache.len() > 4000, "{} answers", cache.len());
    let long = question("long.example.");
    cache.keep(&key(&long), &positive(&long, 60, 2000), now);
    assert!(matches!(cache.look(&key(&long), now), Found::Absent), "too long to be kept");
}
