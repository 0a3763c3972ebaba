//! Questions over real sockets, with an API that is a router in this process.

use std::{net::SocketAddr, sync::Mutex};

use axum::{Json, Router, body::Body, extract::Query, routing::get};
use bytes_of::{ask_tcp, ask_udp};
use futures::{StreamExt, stream};
use hickory_proto::{
    op::{Message, Query as Question},
    rr::{Name, RData},
};
use hickory_server::resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::*;
use crate::index::{Index, ServiceKey};

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

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(Name::from_ascii(name).expect("a name"), kind));
    message
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
        let services = move |Query(query): Query<std::collections::HashMap<String, String>>| async move {
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
        let slices = |Query(query): Query<std::collections::HashMap<String, String>>| async move {
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

/// A port that was free a moment ago, for UDP and TCP.
fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// A server over an index that the test made.
async fn fixed(index: Option<Index>, upstream: Option<SocketAddr>) -> (SocketAddr, Server<Handler>) {
    let handler = Handler::new(Zone::new("cluster.local", Vec::new(), 30).expect("a zone"));
    handler.published.store(index.map(Arc::new));
    if let Some(upstream) = upstream {
        let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = upstream.port();
            connection
        });
        let server = NameServerConfig::new(upstream.ip(), true, connections.into());
        handler.forwarder.use_configs(vec![server]).expect("forwards");
    }
    let address = free_port();
    let server = listen(&DnsConfig::new(vec![address]), handler).await.expect("listens");
    (address, server)
}

fn index(services: &[(&str, Vec<IpAddr>)]) -> Index {
    let mut index = Index::new(Zone::new("cluster.local", Vec::new(), 30).expect("a zone"));
    for (name, ips) in services {
        let key = ServiceKey { namespace: "default".into(), name: (*name).to_owned() };
        index.put(
            &key,
            Some(crate::entry::Entry::Virtual {
                ips: ips.clone(),
                ports: Vec::new(),
                endpoints: Default::default(),
            }),
        );
    }
    index
}

#[tokio::test]
async fn udp_and_tcp_answer_and_negative_answers_carry_the_soa() {
    let (server, _running) =
        fixed(Some(index(&[("web", vec!["10.96.0.9".parse().expect("ip")])])), None).await;
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    for reply in [ask_udp(server, &asked).await.0, ask_tcp(server, &asked).await] {
        assert_eq!(texts(&reply), ["10.96.0.9"]);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.metadata.id, asked.metadata.id);
    }
    for (name, code) in [("absent", ResponseCode::NXDomain), ("web", ResponseCode::NoError)] {
        let asked = question(&format!("{name}.default.svc.cluster.local."), RecordType::AAAA);
        let reply = ask_udp(server, &asked).await.0;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0));
        assert!(matches!(reply.authorities[0].data, RData::SOA(_)), "{reply:?}");
    }
    // Nobody to ask about the rest.
    let reply = ask_udp(server, &question("example.com.", RecordType::A)).await.0;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn large_answers_are_cut_on_udp_and_whole_on_tcp() {
    let many: Vec<IpAddr> = (0..200_u32).map(|n| IpAddr::V4((0x0af4_0000 + n).into())).collect();
    let (server, _running) = fixed(Some(index(&[("many", many)])), None).await;
    let mut asked = question("many.default.svc.cluster.local.", RecordType::A);
    let (plain, length) = ask_udp(server, &asked).await;
    assert!(plain.metadata.truncation && length <= 512, "{length}");
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let (larger, length) = ask_udp(server, &asked).await;
    assert!(larger.metadata.truncation && (513..=1232).contains(&length), "{length}");
    assert!(larger.edns.is_some());
    let whole = ask_tcp(server, &asked).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[tokio::test]
async fn before_the_lists_are_in_nothing_is_said_not_to_exist() {
    let (server, _running) = fixed(None, None).await;
    let reply = ask_udp(server, &question("web.default.svc.cluster.local.", RecordType::A)).await.0;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn other_names_are_asked_upstream_and_kept() {
    // The upstream is another answerer whose "cluster" is example.com.
    let mut far = Index::new(Zone::new("example.com", Vec::new(), 30).expect("a zone"));
    let key = ServiceKey { namespace: "a".into(), name: "www".into() };
    let ips = vec!["192.0.2.80".parse().expect("an address")];
    far.put(
        &key,
        Some(crate::entry::Entry::Virtual { ips, ports: Vec::new(), endpoints: Default::default() }),
    );
    let handler = Handler::new(far.zone().clone());
    handler.published.store(Some(Arc::new(far)));
    let upstream = free_port();
    let mut running = listen(&DnsConfig::new(vec![upstream]), handler).await.expect("listens");

    let mut near = index(&[]);
    let alias = crate::entry::Entry::Alias { target: "www.a.svc.example.com".into() };
    near.put(&ServiceKey { namespace: "default".into(), name: "out".into() }, Some(alias));
    let (server, _running) = fixed(Some(near), Some(upstream)).await;
    let asked = question("www.a.svc.example.com.", RecordType::A);
    assert_eq!(texts(&ask_udp(server, &asked).await.0), ["192.0.2.80"]);
    let through_alias = question("out.default.svc.cluster.local.", RecordType::A);
    let reply = ask_udp(server, &through_alias).await.0;
    assert_eq!(texts(&reply), ["www.a.svc.example.com.", "192.0.2.80"]);
    let absent = ask_udp(server, &question("gone.svc.example.com.", RecordType::A)).await.0;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent.authorities.len(), 1);
    running.shutdown_gracefully().await.expect("stops");
    assert_eq!(texts(&ask_udp(server, &asked).await.0), ["192.0.2.80"], "from the cache");
}

#[tokio::test]
async fn odd_requests_get_their_error() {
    let (server, _running) = fixed(Some(index(&[])), None).await;
    let code = async |message: &Message| ask_udp(server, message).await.0.metadata.response_code;
    let mut update = question("cluster.local.", RecordType::A);
    update.metadata.op_code = OpCode::Status;
    assert_eq!(code(&update).await, ResponseCode::NotImp);
    assert_eq!(code(&question("cluster.local.", RecordType::AXFR)).await, ResponseCode::Refused);
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos).await, ResponseCode::Refused);
    let mut future = question("cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(9);
    future.set_edns(edns);
    let reply = ask_udp(server, &future).await.0;
    assert_eq!(reply.edns.expect("edns").rcode_high(), ResponseCode::BADVERS.high());
}

#[tokio::test]
async fn the_whole_thing_follows_the_api_and_stops() {
    let api = FakeApi::new(vec![service("web", "10.96.0.9")]);
    let address = free_port();
    let (ready, mut is_ready) = watch::channel(false);
    let config = DnsConfig { resolv_conf: None, ready, ..DnsConfig::new(vec![address]) };
    let cancel = CancellationToken::new();
    let running = tokio::spawn(run(config, api.client(), cancel.clone()));
    is_ready.wait_for(|ready| *ready).await.expect("becomes ready");
    let asked = question("web.default.svc.cluster.local.", RecordType::A);
    assert_eq!(texts(&ask_udp(address, &asked).await.0), ["10.96.0.9"]);
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
    tokio::time::timeout(Duration::from_secs(10), late).await.expect("the new service is known");
    cancel.cancel();
    running.await.expect("no panic").expect("stops cleanly");
    assert!(!*is_ready.borrow());
    assert!(TcpListener::bind(address).await.is_ok(), "the port is free again");
}
