//! Limits and ends: watchers that do not read, bodies and headers that are too large, requests that take
//! too long, panics, and a server that closes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use skep_api::resource::GroupVersionResource;
use skep_apiserver::Config;
use skep_apiserver::health::Check;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server on a loopback port, until the token is cancelled.
struct Listening {
    server: Server,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn listen(change: impl FnOnce(&mut Config)) -> Listening {
    let server = Server::start_with(change).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serve = server.api.clone().serve_plain(listener, stop.clone());
    let task = tokio::spawn(async move { serve.await.expect("served") });
    Listening { server, address, stop, task }
}

async fn ask(stream: &mut TcpStream, head: &str) {
    stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
}

/// Reads until the text ends with this.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        seen.push(stream.read_u8().await.expect("more"));
    }
    String::from_utf8_lossy(&seen).into_owned()
}

/// One request on a connection of its own.
async fn once(listening: &Listening, head: &str) -> String {
    let mut stream = TcpStream::connect(listening.address).await.expect("connected");
    ask(&mut stream, &format!("{head} HTTP/1.1\r\nConnection: close")).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_stalls_nobody() {
    let listening = listen(|_| {}).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stuck = socket.connect(listening.address).await.expect("connected");
    ask(&mut stuck, &format!("GET {MAPS}?watch=1&resourceVersion=0 HTTP/1.1")).await;
    read_until(&mut stuck, "\r\n\r\n").await;
    let maps = GroupVersionResource::new("", "v1", "configmaps");
    let resource = listening.server.api.registry().resource(&maps).expect("a resource").clone();
    assert_eq!(resource.watchers(), 1);
    // One that reads, of another form.
    let mut eager = TcpStream::connect(listening.address).await.expect("connected");
    let head = format!(
        "GET {MAPS}?watch=1&resourceVersion=0 HTTP/1.1\r\n\
         Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    );
    ask(&mut eager, &head).await;
    read_until(&mut eager, "\r\n\r\n").await;
    let text = "x".repeat(1 << 20);
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for index in 0..48 {
        let one = Instant::now();
        let map = json!({"metadata": {"name": format!("m{index}")}, "data": {"text": text}});
        assert_eq!(listening.server.send("POST", MAPS, Some(map)).await.0, 201);
        let told = read_until(&mut eager, "\n\r\n");
        let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("told of at once");
        assert!(told.contains(&format!("\"name\":\"m{index}\"")), "{told}");
        slowest = slowest.max(one.elapsed());
        if resource.watchers() == 1 {
            break;
        }
    }
    assert_eq!(resource.watchers(), 1, "dropped after {:?}", begun.elapsed());
    assert!(slowest < Duration::from_secs(5), "a write took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_request_only() {
    let broken = Check { name: "broken", passes: Arc::new(|| panic!("as the test wants it")) };
    let server = Server::start_with(|config| config.checks.push(broken)).await;
    let (status, answer) = server.send("GET", "/readyz", None).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer["message"].as_str().expect("words").contains("caused apiserver to panic"), "{answer}");
    assert!(!answer.to_string().contains("as the test wants it"), "the words are for the log");
    assert_eq!(server.send("GET", "/livez", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_too_slow_is_refused() {
    let listening = listen(|_| {}).await;
    let server = &listening.server;
    let large = json!({"metadata": {"name": "large"}, "data": {"text": "x".repeat(4 << 20)}});
    let (status, answer) = server.send("POST", MAPS, Some(large)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    let never = stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::post(format!("{MAPS}?timeout=50ms"));
    let request = request.header("content-type", "application/json").body(Body::from_stream(never));
    let (status, text) = server.text(request.expect("a request")).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{text}");
    let long = once(&listening, &format!("GET /api?x={}", "y".repeat(70_000))).await;
    assert!(long.starts_with("HTTP/1.1 414"), "{long}");
    let mut stream = TcpStream::connect(listening.address).await.expect("connected");
    let head = format!("GET /api HTTP/1.1\r\nX-Large: {}\r\nHost: x\r\n\r\n", "y".repeat(2 << 20));
    // The server may close before it has read all of it.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&text));
    assert!(once(&listening, "GET /livez").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_server_is_not_ready_first_and_ends_what_it_began() {
    let listening = listen(|config| config.shutdown_delay = Duration::from_millis(600)).await;
    let mut watch = TcpStream::connect(listening.address).await.expect("connected");
    ask(&mut watch, &format!("GET {MAPS}?watch=1&resourceVersion=0 HTTP/1.1")).await;
    read_until(&mut watch, "\r\n\r\n").await;
    let mut slow = TcpStream::connect(listening.address).await.expect("connected");
    let body = "{\"metadata\":{\"name\":\"slow\"}}";
    let length = body.len();
    let head = format!("POST {MAPS} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}");
    ask(&mut slow, &head).await;
    assert!(once(&listening, "GET /readyz").await.starts_with("HTTP/1.1 200"));

    listening.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ready = once(&listening, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 500") && ready.contains("[-]shutdown"), "{ready}");
    assert!(once(&listening, "GET /livez").await.starts_with("HTTP/1.1 200"));
    assert!(once(&listening, &format!("GET {MAPS}")).await.starts_with("HTTP/1.1 200"), "still served");

    let mut rest = String::new();
    watch.read_to_string(&mut rest).await.expect("read");
    assert!(rest.ends_with("0\r\n\r\n"), "the watch ends as a stream should: {rest}");
    assert!(TcpStream::connect(listening.address).await.is_err(), "no new connections");
    slow.write_all(body.as_bytes()).await.expect("written");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 201"), "what was under way ends well: {answer}");
    tokio::time::timeout(Duration::from_secs(5), listening.task).await.expect("ends").expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_server_may_send_clients_away() {
    let listening = listen(|config| {
        config.shutdown_delay = Duration::from_secs(2);
        config.shutdown_retry_after = true;
    })
    .await;
    listening.stop.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = once(&listening, &format!("GET {MAPS}")).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 5"), "{answer}");
    assert!(once(&listening, "GET /livez").await.starts_with("HTTP/1.1 200"), "health is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_http2_may_be_told_to_connect_anew() {
    let listening = listen(|config| config.goaway_chance = 1.0).await;
    let stream = TcpStream::connect(listening.address).await.expect("connected");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{}{MAPS}", listening.address)).body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.expect("a request")).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.expect("all of it");
    let ended =
        tokio::time::timeout(Duration::from_secs(5), connection).await.expect("the server says goodbye");
    ended.expect("no panic").expect("in good order");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_limits_hold_without_priority_and_fairness() {
    let server = Server::start_with(|config| {
        config.priority_and_fairness = false;
        (config.max_reads, config.max_writes) = (1, 1);
    })
    .await;
    let never = stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::post(format!("{MAPS}?timeout=500ms"));
    let mut request =
        request.header("content-type", "application/json").body(Body::from_stream(never)).expect("a request");
    request.extensions_mut().insert(server.user.clone());
    let held = tokio::spawn(tower::ServiceExt::oneshot(server.router.clone(), request));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let map = json!({"metadata": {"name": "a"}});
    let request = Request::post(MAPS).header("content-type", "application/json");
    let answer = server.raw(request.body(Body::from(map.to_string())).expect("a request")).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1");
    let answer = answer.into_body().collect().await.expect("a body").to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(
        (&answer["reason"], &answer["details"]["retryAfterSeconds"]),
        (&json!("TooManyRequests"), &json!(1))
    );
    assert_eq!(server.send("GET", MAPS, None).await.0, 200, "reads have a limit of their own");
    assert_eq!(held.await.expect("no panic").expect("infallible").status(), 504);
    assert_eq!(server.send("POST", MAPS, Some(map)).await.0, 201);
}
