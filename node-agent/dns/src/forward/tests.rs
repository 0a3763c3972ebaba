//! Name servers that are tasks of the test: they answer, refuse, truncate, lie, or say nothing.

use std::{cell::RefCell, future::Future, net::SocketAddr};

use hickory_proto::{
    op::{Message, OpCode},
    rr::{
        RData, Record,
        rdata::{A, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    runtime::{Builder, LocalOptions},
};

use super::*;
use crate::query::tests::message;

/// Runs a test as the answerer's thread would.
fn local<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(test())
}

/// How a server answers a message; `None` says nothing.
type Manner = Rc<dyn Fn(&Message) -> Option<Message>>;

/// A name server on loopback, UDP and TCP.
struct Upstream {
    address: SocketAddr,
    asked: Rc<RefCell<Vec<Message>>>,
    by_stream: Rc<Cell<usize>>,
}

impl Upstream {
    async fn start(manner: impl Fn(&Message) -> Option<Message> + 'static) -> Self {
        let manner: Manner = Rc::new(manner);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let socket = UdpSocket::bind(address).await.expect("a port");
        let upstream = Self { address, asked: Rc::default(), by_stream: Rc::default() };
        let (asked, datagrams) = (Rc::clone(&upstream.asked), Rc::clone(&manner));
        spawn_local(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
                let question = Message::from_vec(&buffer[..length]).expect("decodes");
                asked.borrow_mut().push(question.clone());
                if let Some(mut answer) = datagrams(&question) {
                    let limit =
                        usize::from(question.edns.as_ref().map_or(512, hickory_proto::op::Edns::max_payload));
                    let mut bytes = answer.to_vec().expect("encodes");
                    if bytes.len() > limit {
                        answer.answers.clear();
                        answer.metadata.truncation = true;
                        bytes = answer.to_vec().expect("encodes");
                    }
                    socket.send_to(&bytes, from).await.expect("sends");
                }
            }
        });
        let count = Rc::clone(&upstream.by_stream);
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                count.set(count.get() + 1);
                let mut bytes = vec![0; stream.read_u16().await.expect("a length").into()];
                stream.read_exact(&mut bytes).await.expect("a question");
                if let Some(answer) = manner(&Message::from_vec(&bytes).expect("decodes")) {
                    let bytes = answer.to_vec().expect("encodes");
                    stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("sends");
                    stream.write_all(&bytes).await.expect("sends");
                }
            }
        });
        upstream
    }

    fn count(&self) -> usize {
        // Questions that test for loops are not the test's.
        self.asked.borrow().iter().filter(|m| m.queries[0].query_type() != PROBE_KIND).count()
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

fn reply(question: &Message, code: ResponseCode, answers: Vec<Record>) -> Message {
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.response_code = code;
    reply.queries = question.queries.clone();
    reply.answers = answers;
    reply
}

fn address(question: &Message, ttl: u32, last: u8) -> Record {
    Record::from_rdata(question.queries[0].name().clone(), ttl, RData::A(A::new(192, 0, 2, last)))
}

/// Answers with 192.0.2.`last`.
fn says(last: u8) -> impl Fn(&Message) -> Option<Message> {
    move |question| Some(reply(question, ResponseCode::NoError, vec![address(question, 60, last)]))
}

fn fails(code: ResponseCode) -> impl Fn(&Message) -> Option<Message> {
    move |question| Some(reply(question, code, Vec::new()))
}

fn forwarder(servers: &[SocketAddr]) -> Rc<Forwarder> {
    let forwarder = Forwarder::new(Metrics::default());
    forwarder.follow(&Upstreams { servers: servers.into(), stub_domains: Vec::new() });
    forwarder
}

fn question(name: &str) -> Query {
    Query::parse(&message(name, RecordType::A).to_vec().expect("encodes")).expect("a question")
}

/// The answers' data, or the code.
async fn ask(forwarder: &Rc<Forwarder>, name: &str) -> String {
    let query = question(name);
    match forwarder.ask(&query).await {
        Ok((packet, ttl)) => {
            let mut out = Vec::new();
            packet.write(&query, crate::packet::Transport::Tcp, ttl, 0, &mut out);
            let message = Message::from_vec(&out).expect("decodes");
            match message.answers.as_slice() {
                [] => message.metadata.response_code.to_string(),
                answers => answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(" "),
            }
        }
        Err(code) => code.to_string(),
    }
}

#[test]
fn an_answer_is_asked_for_once_and_kept() {
    local(async || {
        let upstream = Upstream::start(says(1)).await;
        let forwarder = forwarder(&[upstream.address]);
        let both = tokio::join!(ask(&forwarder, "a.example."), ask(&forwarder, "A.example."));
        assert_eq!(both, ("192.0.2.1".to_owned(), "192.0.2.1".to_owned()));
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1");
        let query = question("a.EXAMPLE.");
        assert!(forwarder.look(&query, query.key().as_bytes()).is_some());
        assert_eq!(upstream.count(), 1);
        let asked = upstream.asked.borrow();
        let sent = asked.iter().find(|m| m.queries[0].query_type() == RecordType::A).expect("a question");
        assert_eq!(sent.edns.as_ref().map(hickory_proto::op::Edns::max_payload), Some(1232));
        assert!(sent.metadata.recursion_desired);
    });
}

#[test]
fn nobody_to_ask_is_said_at_once() {
    local(async || assert_eq!(ask(&forwarder(&[]), "a.example.").await, ResponseCode::Refused.to_string()));
}

#[test]
fn the_next_server_is_asked_when_one_is_gone_fails_or_is_slow() {
    local(async || {
        let good = Upstream::start(says(2)).await;
        let silent = Upstream::start(|_| None).await;
        let broken = Upstream::start(fails(ResponseCode::ServFail)).await;
        let refusing = Upstream::start(fails(ResponseCode::Refused)).await;
        for first in [nobody(), broken.address, refusing.address, silent.address] {
            let forwarder = forwarder(&[first, good.address]);
            let began = Instant::now();
            assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.2", "{first}");
            assert!(began.elapsed() < Duration::from_secs(2), "{first}: {:?}", began.elapsed());
        }
        // Who was slow is not asked first again.
        let forwarder = forwarder(&[silent.address, good.address]);
        ask(&forwarder, "b.example.").await;
        let before = silent.count();
        assert_eq!(ask(&forwarder, "c.example.").await, "192.0.2.2");
        assert_eq!(silent.count(), before);
    });
}

#[test]
fn when_all_fail_the_client_is_told_so_and_they_are_left_in_peace_for_a_moment() {
    local(async || {
        let broken = Upstream::start(fails(ResponseCode::ServFail)).await;
        let forwarder = forwarder(&[broken.address, nobody()]);
        let began = Instant::now();
        assert_eq!(ask(&forwarder, "a.example.").await, ResponseCode::ServFail.to_string());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(ask(&forwarder, "a.example.").await, ResponseCode::ServFail.to_string());
        assert_eq!(broken.count(), 1);
    });
}

#[test]
fn a_lost_datagram_is_sent_again() {
    local(async || {
        let lost = Cell::new(false);
        let upstream = Upstream::start(move |question| {
            if question.queries[0].query_type() != PROBE_KIND && !lost.replace(true) {
                return None;
            }
            says(1)(question)
        })
        .await;
        let forwarder = forwarder(&[upstream.address]);
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1");
        assert_eq!(upstream.count(), 2);
    });
}

#[test]
fn what_is_too_long_for_a_datagram_comes_by_stream() {
    local(async || {
        let upstream = Upstream::start(|question| {
            let answers = (0..200).map(|last| address(question, 60, last)).collect();
            Some(reply(question, ResponseCode::NoError, answers))
        })
        .await;
        let forwarder = forwarder(&[upstream.address]);
        assert_eq!(ask(&forwarder, "a.example.").await.split(' ').count(), 200);
        assert!(upstream.by_stream.get() >= 1);
    });
}

#[test]
fn an_answer_to_something_else_is_not_taken() {
    local(async || {
        let upstream = Upstream::start(|question| {
            let mut other = reply(question, ResponseCode::NoError, vec![address(question, 60, 66)]);
            if question.queries[0].query_type() == RecordType::A {
                other.metadata.id = other.metadata.id.wrapping_add(1);
            }
            Some(other)
        })
        .await;
        let forwarder = forwarder(&[upstream.address]);
        let asked = ask(&forwarder, "a.example.");
        assert!(time::timeout(Duration::from_millis(300), asked).await.is_err(), "the number is wrong");
    });
}

#[test]
fn servers_without_edns_are_asked_without() {
    local(async || {
        let upstream = Upstream::start(|question| match question.edns {
            Some(_) => fails(ResponseCode::FormErr)(question),
            None => says(1)(question),
        })
        .await;
        assert_eq!(ask(&forwarder(&[upstream.address]), "a.example.").await, "192.0.2.1");
    });
}

#[test]
fn an_old_answer_stands_in_when_nobody_answers() {
    local(async || {
        let alive = Rc::new(Cell::new(true));
        let answering = Rc::clone(&alive);
        let upstream = Upstream::start(move |question| {
            let answer = reply(question, ResponseCode::NoError, vec![address(question, 1, 1)]);
            answering.get().then_some(answer)
        })
        .await;
        let forwarder = forwarder(&[upstream.address]);
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1");
        alive.set(false);
        time::sleep(Duration::from_millis(1100)).await;
        let began = Instant::now();
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1");
        let waited = began.elapsed();
        assert!(waited >= STALE_PATIENCE && waited < STALE_PATIENCE * 3, "{waited:?}");
        assert_eq!(forwarder.metrics.stale.get(), 1);
    });
}

#[test]
fn negative_answers_are_kept_too() {
    local(async || {
        let upstream = Upstream::start(|question| {
            let mut answer = reply(question, ResponseCode::NXDomain, Vec::new());
            let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 10);
            answer.authorities = vec![Record::from_rdata(Name::root(), 60, RData::SOA(soa))];
            Some(answer)
        })
        .await;
        let forwarder = forwarder(&[upstream.address]);
        for _ in 0..3 {
            assert_eq!(ask(&forwarder, "gone.example.").await, ResponseCode::NXDomain.to_string());
        }
        assert_eq!(upstream.count(), 1);
    });
}

#[test]
fn domains_have_their_own_servers_and_a_change_loses_nothing() {
    local(async || {
        let (one, two) = (Upstream::start(says(1)).await, Upstream::start(says(2)).await);
        let slow = Upstream::start(|_| None).await;
        let domain = Name::from_ascii("corp.example.").expect("a name");
        let upstreams =
            Upstreams { servers: vec![one.address], stub_domains: vec![(domain, vec![two.address])] };
        let forwarder = Forwarder::new(Metrics::default());
        forwarder.follow(&upstreams);
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1");
        assert_eq!(ask(&forwarder, "a.corp.example.").await, "192.0.2.2");
        // Under way with one server, while the servers change, twice.
        forwarder.follow(&Upstreams { servers: vec![slow.address, one.address], ..upstreams.clone() });
        let change = async {
            time::sleep(Duration::from_millis(50)).await;
            forwarder.follow(&Upstreams { servers: vec![two.address], ..Upstreams::default() });
        };
        let (under_way, ()) = tokio::join!(ask(&forwarder, "b.example."), change);
        assert_eq!(under_way, "192.0.2.1");
        assert_eq!(ask(&forwarder, "c.example.").await, "192.0.2.2");
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1", "what is kept is kept");
    });
}

#[test]
fn a_server_that_asks_us_back_is_left_out() {
    local(async || {
        let forwarder = Forwarder::new(Metrics::default());
        let (ours, good) = (Rc::clone(&forwarder), Upstream::start(says(1)).await);
        let mirror = Upstream::start(move |asked| {
            let query = Query::parse(&asked.to_vec().expect("encodes")).expect("a question");
            ours.is_probe(query.key().name_bytes());
            fails(ResponseCode::Refused)(asked)
        })
        .await;
        forwarder.follow(&Upstreams { servers: vec![mirror.address, good.address], ..Upstreams::default() });
        while mirror.asked.borrow().is_empty() {
            time::sleep(Duration::from_millis(5)).await;
        }
        time::sleep(Duration::from_millis(50)).await;
        let before = mirror.asked.borrow().len();
        assert_eq!(ask(&forwarder, "a.example.").await, "192.0.2.1");
        assert_eq!(mirror.asked.borrow().len(), before, "the mirror is not asked any more");
    });
}

#[test]
fn questions_under_way_do_not_pile_up() {
    local(async || {
        let silent = Upstream::start(|_| None).await;
        let forwarder = forwarder(&[silent.address]);
        for n in 0..MAX_UNDER_WAY {
            let query = question(&format!("{n}.example."));
            assert!(forwarder.fly(&query, query.key().as_bytes()).is_some());
        }
        assert_eq!(ask(&forwarder, "more.example.").await, ResponseCode::ServFail.to_string());
        assert_eq!(forwarder.metrics.rejected.get(), 1);
    });
}
