//! Questions over real sockets, with an API that is a router in this process.

use std::{collections::HashMap, sync::Mutex};

use axum::{Json, Router, body::Body, extract::Query, routing::get};
use bytes_of::{ask_tcp, ask_udp};
use futures::{StreamExt, stream};
use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::RecordType,
};
use serde_json::{Value, json};
use tokio::{sync::broadcast, time};

use super::*;
use crate::{entry::Entry, index::ServiceKey, query::tests::message as question};

/// Sending over the wire.
mod bytes_of {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpStream, UdpSocket},
    };

    use super::{Message, SocketAddr};

    pub(super) async fn ask_udp(server: SocketAddr, question: &Message) -> (Message, usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.send_to(&question.to_vec().expect("encodes"), server).await.expect("sends");
        let mut buffer = [0; 65_535];
        let length = socket.recv(&mut buffer).await.expect("an answer");
        (Message::from_vec(&buffer[..length]).expect("decodes"), length)
    }

    pub(super) async fn ask_tcp(server: SocketAddr, question: &Message) -> Message {
        let mut stream = TcpStream::connect(server).await.expect("connects");
        let bytes = question.to_vec().expect("encodes");
        stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("sends");
        stream.write_all(&bytes).await.expect("sends");
        let length = stream.read_u16().await.expect("an answer");
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.expect("the whole answer");
        Message::from_vec(&answer).expect("decodes")
    }
}

fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// The lists of the API, and what is sent to watchers.
struct FakeApi {
    services: Mutex<Vec<Value>>,
    events: broadcast::Sender<String>,
}

impl FakeApi {
    fn new(services: Vec<Value>) -> Arc<Self> {
        Arc::new(Self { services: Mutex::new(services), events: broadcast::Sender::new(16) })
    }

    fn client(self: &Arc<Self>) -> Client {
        let api = Arc::clone(self);
        let services = move |Query(query): Query<HashMap<String, String>>| async move {
            if !query.contains_key("watch") {
                let items = api.services.lock().expect("not poisoned").clone();
                return Body::from(list(&items).to_string());
            }
            let events = stream::unfold(api.events.subscribe(), |mut events| async {
                let event = events.recv().await.ok()?;
                Some((Ok::<_, std::convert::Infallible>(event), events))
            });
            Body::from_stream(events)
        };
        let slices = |Query(query): Query<HashMap<String, String>>| async move {
            if query.contains_key("watch") {
                Body::from_stream(stream::pending::<Result<String, std::convert::Infallible>>().boxed())
            } else {
                Body::from(list(&[]).to_string())
            }
        };
        let router = Router::new()
            .route("/api/v1/services", get(services))
            .route("/apis/discovery.k8s.io/v1/endpointslices", get(slices))
            .layer(axum::middleware::map_response(|mut response: axum::response::Response| async {
                let json = http_json();
                response.headers_mut().insert(axum::http::header::CONTENT_TYPE, json);
                response
            }))
            .fallback(|| async { Json(json!({"kind": "Status", "status": "Failure", "code": 404})) });
        Client::in_process(router, skep_api::user::UserInfo::default())
    }

    fn add(&self, service: &Value) {
        let event = json!({"type": "ADDED", "object": service});
        // Nobody is watching yet: the list will have it.
        let _ = self.events.send(format!("{event}\n"));
    }
}

fn http_json() -> axum::http::HeaderValue {
    axum::http::HeaderValue::from_static("application/json")
}

fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items})
}

fn service(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
           "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "6"},
           "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}})
}

/// An answerer over an index that the test made; it ends with this value.
struct Fixed {
    address: SocketAddr,
    published: Arc<Published>,
    servers: watch::Sender<Upstreams>,
    metrics: Metrics,
    ended: oneshot::Receiver<Result<()>>,
    cancel: CancellationToken,
}

impl Fixed {
    fn start(index: Index, upstreams: &[SocketAddr]) -> Self {
        let doors = Doors::open(&["127.0.0.1:0".parse().expect("an address")]).expect("listens");
        let address = doors.0[0].1.local_addr().expect("an address");
        let zone = index.zone().clone();
        let published = Arc::new(Published::new(Some(Arc::new(index))));
        let (servers, following) =
            watch::channel(Upstreams { servers: upstreams.into(), stub_domains: Vec::new() });
        let allowed = watch::channel(Clients::default()).1;
        let (metrics, cancel) = (Metrics::default(), CancellationToken::new());
        let thread = Answerer {
            zone,
            published: Arc::clone(&published),
            doors,
            servers: following,
            gate: Gate { clients: allowed, metrics: metrics.clone() },
            cancel: cancel.clone(),
        };
        let ended = thread.start().expect("starts");
        Self { address, published, servers, metrics, ended, cancel }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.ended.await.expect("no panic").expect("ends well");
    }
}

fn index_of(domain: &str, services: &[(&str, Vec<IpAddr>)]) -> Index {
    let mut index = Index::new(Zone::new(domain, Vec::new(), 30).expect("a zone"));
    for (name, ips) in services {
        let key = ServiceKey { namespace: "default".into(), name: (*name).to_owned() };
        let entry = Entry::Virtual { ips: ips.clone(), ports: Vec::new(), endpoints: Default::default() };
        index.put(&key, Some(entry));
    }
    index
}

fn index(services: &[(&str, Vec<IpAddr>)]) -> Index {
    index_of("cluster.local", services)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[tokio::test]
async fn udp_and_tcp_give_the_same_answer() {
    let server = Fixed::start(index(&[("web", vec![ip("10.96.0.9")])]), &[]);
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    for reply in [ask_udp(server.address, &asked).await.0, ask_tcp(server.address, &asked).await] {
        assert_eq!(texts(&reply), ["10.96.0.9"]);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.metadata.id, asked.metadata.id);
    }
    // Nobody to ask about the rest.
    let reply = ask_udp(server.address, &question("example.com.", RecordType::A)).await.0;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    server.stop().await;
}

#[tokio::test]
async fn large_answers_are_cut_on_udp_and_whole_on_tcp() {
    let many: Vec<IpAddr> = (0..200_u32).map(|n| IpAddr::V4((0x0af4_0000 + n).into())).collect();
    let server = Fixed::start(index(&[("many", many)]), &[]);
    let mut asked = question("many.default.svc.cluster.local.", RecordType::A);
    let (plain, length) = ask_udp(server.address, &asked).await;
    assert!(plain.metadata.truncation && length <= 512, "{length}");
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let (larger, length) = ask_udp(server.address, &asked).await;
    assert!(larger.metadata.truncation && (513..=1232).contains(&length), "{length}");
    let whole = ask_tcp(server.address, &asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
    server.stop().await;
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_aliases_lead_there() {
    // The upstream is another answerer whose "cluster" is example.com.
    let upstream = Fixed::start(index_of("example.com", &[("www", vec![ip("192.0.2.80")])]), &[]);
    let mut near = index(&[]);
    let alias = Entry::Alias { target: "www.default.svc.example.com".into() };
    near.put(&ServiceKey { namespace: "default".into(), name: "out".into() }, Some(alias));
    let alias = Entry::Alias { target: "gone.default.svc.example.com".into() };
    near.put(&ServiceKey { namespace: "default".into(), name: "gone".into() }, Some(alias));
    let server = Fixed::start(near, &[upstream.address]);
    let asked = question("www.default.svc.example.com.", RecordType::A);
    let reply = ask_udp(server.address, &asked).await.0;
    assert_eq!(texts(&reply), ["192.0.2.80"]);
    assert!(!reply.metadata.authoritative);
    let through_alias = question("out.default.svc.cluster.local.", RecordType::A);
    for reply in
        [ask_udp(server.address, &through_alias).await.0, ask_tcp(server.address, &through_alias).await]
    {
        assert_eq!(texts(&reply), ["www.default.svc.example.com.", "192.0.2.80"]);
    }
    let absent = question("gone.default.svc.cluster.local.", RecordType::A);
    let reply = ask_udp(server.address, &absent).await.0;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        (texts(&reply), reply.authorities.len()),
        (vec!["gone.default.svc.example.com.".to_owned()], 1)
    );
    upstream.stop().await;
    assert_eq!(texts(&ask_udp(server.address, &asked).await.0), ["192.0.2.80"], "from the cache");
    server.stop().await;
}

#[tokio::test]
async fn servers_that_change_are_followed() {
    let one = Fixed::start(index_of("example.com", &[("a", vec![ip("192.0.2.1")])]), &[]);
    let two = Fixed::start(index_of("example.com", &[("b", vec![ip("192.0.2.2")])]), &[]);
    let server = Fixed::start(index(&[]), &[one.address]);
    let ask = async |name: &str| {
        let name = format!("{name}.default.svc.example.com.");
        texts(&ask_udp(server.address, &question(&name, RecordType::A)).await.0)
    };
    assert_eq!(ask("a").await, ["192.0.2.1"]);
    server.servers.send_replace(Upstreams { servers: vec![two.address], stub_domains: Vec::new() });
    let followed = async {
        while ask("b").await != ["192.0.2.2"] {
            time::sleep(Duration::from_millis(200)).await;
        }
    };
    // That there was no such name may have been kept for a moment.
    time::timeout(Duration::from_secs(20), followed).await.expect("the new server is asked");
}

#[tokio::test]
async fn a_ring_of_forwarders_is_broken() {
    let first = Fixed::start(index(&[]), &[]);
    let second = Fixed::start(index(&[]), &[first.address]);
    first.servers.send_replace(Upstreams { servers: vec![second.address], stub_domains: Vec::new() });
    let began = time::Instant::now();
    let reply = ask_udp(first.address, &question("example.com.", RecordType::A)).await.0;
    assert!(!matches!(reply.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain));
    // Before and after the ring is found out, a question goes round once.
    let asked: u64 = [&first, &second].iter().map(|one| one.metrics.misses.get()).sum();
    assert!(asked < 20, "{asked} questions");
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[test]
fn strangers_are_counted_and_not_let_in() {
    let (clients, allowed) = watch::channel(Clients::default());
    let gate = Gate { clients: allowed, metrics: Metrics::default() };
    assert!(gate.admits(ip("192.0.2.1")));
    clients.send_replace(Clients { addresses: [ip("192.0.2.2")].into(), ..Clients::default() });
    assert!(gate.admits(ip("192.0.2.2")) && !gate.admits(ip("192.0.2.1")));
    assert_eq!(gate.metrics.refused_clients.get(), 1);
}

#[tokio::test]
async fn many_questions_on_one_connection_are_answered_as_answers_come() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // A name server that never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let upstream = silent.local_addr().expect("an address");
    let server = Fixed::start(index(&[("web", vec![ip("10.96.0.9")])]), &[upstream]);
    let mut stream = tokio::net::TcpStream::connect(server.address).await.expect("connects");
    let slow = question("example.com.", RecordType::A);
    let quick = question("web.default.svc.cluster.local.", RecordType::A);
    let mut bytes = Vec::new();
    for asked in std::iter::once(&slow).chain(std::iter::repeat_n(&quick, 100)) {
        let encoded = asked.to_vec().expect("encodes");
        bytes.extend(u16::try_from(encoded.len()).expect("short").to_be_bytes());
        bytes.extend(encoded);
    }
    // In pieces that are not questions.
    for piece in bytes.chunks(7) {
        stream.write_all(piece).await.expect("sends");
    }
    let began = time::Instant::now();
    for _ in 0..100 {
        let mut answer = vec![0; stream.read_u16().await.expect("a length").into()];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(Message::from_vec(&answer).expect("decodes").metadata.id, quick.metadata.id);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "the slow one holds up the others");
    let mut answer = vec![0; stream.read_u16().await.expect("a length").into()];
    stream.read_exact(&mut answer).await.expect("an answer");
    let last = Message::from_vec(&answer).expect("decodes");
    assert_eq!((last.metadata.id, last.metadata.response_code), (slow.metadata.id, ResponseCode::ServFail));
}

#[tokio::test]
async fn connections_have_an_end_and_a_limit() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Fixed::start(index(&[]), &[]);
    let connect = async || tokio::net::TcpStream::connect(server.address).await.expect("connects");
    // A question that is too long ends it.
    let mut bad = connect().await;
    bad.write_all(&[0xff; 64]).await.expect("sends");
    assert_eq!(bad.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let mut open = Vec::new();
    for _ in 0..128 {
        open.push(connect().await);
    }
    let mut surplus = connect().await;
    assert_eq!(surplus.read(&mut [0; 1]).await.unwrap_or(0), 0, "one client has so many at most");
    assert_eq!(server.metrics.refused_connections.get(), 1);
    drop(open.pop());
    let again = async {
        loop {
            let mut stream = connect().await;
            let asked = question("x.cluster.local.", RecordType::A).to_vec().expect("encodes");
            let length = u16::try_from(asked.len()).expect("short").to_be_bytes();
            if stream.write_all(&[&length[..], &asked].concat()).await.is_ok()
                && stream.read_u16().await.is_ok()
            {
                break;
            }
        }
    };
    time::timeout(Duration::from_secs(5), again).await.expect("a place that was left is free again");
    // Nobody said anything: they are let go.
    let idle = async { open[0].read(&mut [0; 1]).await.unwrap_or(0) };
    assert_eq!(time::timeout(Duration::from_secs(15), idle).await.expect("is closed"), 0);
}

#[tokio::test]
async fn a_new_index_is_seen_by_the_next_question() {
    let server = Fixed::start(index(&[("web", vec![ip("10.96.0.9")])]), &[]);
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    for last in 1..50_u8 {
        let new = IpAddr::from([10, 96, 0, last]);
        server.published.store(Some(Arc::new(index(&[("web", vec![new])]))));
        assert_eq!(texts(&ask_udp(server.address, &asked).await.0), [new.to_string()]);
    }
}

/// A port that was free a moment ago, for UDP and TCP.
fn free_port() -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn the_whole_thing_follows_the_api_stops_and_remembers() {
    let folder = tempfile::tempdir().expect("a folder");
    let api = FakeApi::new(vec![service("web", "10.96.0.9")]);
    let address = free_port();
    let (ready, mut is_ready) = watch::channel(false);
    let mut config = DnsConfig { ready, ..DnsConfig::new(vec![address]) };
    config.upstreams.resolv_conf = None;
    config.snapshot = Some(folder.path().join("services.json"));
    let cancel = CancellationToken::new();
    let running = tokio::spawn(run(config.clone(), api.client(), cancel.clone()));
    is_ready.wait_for(|ready| *ready).await.expect("becomes ready");
    let web = question("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(texts(&ask_udp(address, &web).await.0), ["10.96.0.9"]);
    let asked = question("late.default.svc.cluster.local.", RecordType::A);
    let late = async {
        loop {
            // Sent again until the watch is there to see it.
            api.add(&service("late", "10.96.0.10"));
            if texts(&ask_udp(address, &asked).await.0) == ["10.96.0.10"] {
                break;
            }
        }
    };
    time::timeout(Duration::from_secs(10), late).await.expect("the new service is known");
    cancel.cancel();
    running.await.expect("no panic").expect("stops cleanly");
    assert!(!*is_ready.borrow());
    assert!(TcpListener::bind(address).await.is_ok(), "the port is free again");

    // The next life knows what this one knew, though the API is away; what it does not know may be there.
    let away = Client::in_process(Router::new(), skep_api::user::UserInfo::default());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(run(config, away, cancel.clone()));
    let answered = async {
        loop {
            let reply = time::timeout(Duration::from_millis(100), ask_udp(address, &web)).await;
            if let Ok((reply, _)) = reply {
                break reply;
            }
        }
    };
    let reply = time::timeout(Duration::from_secs(5), answered).await.expect("an answer");
    assert_eq!(texts(&reply), ["10.96.0.9"]);
    let unknown = question("newer.default.svc.cluster.local.", RecordType::A);
    let reply = ask_udp(address, &unknown).await.0;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(!*is_ready.borrow(), "others know better");
    cancel.cancel();
    running.await.expect("no panic").expect("stops cleanly");
}
