//! WebSockets that end here (logs, watches), and what is behind `/proxy`.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::streams::with_kubelet;

/// Opens a WebSocket; the protocol that was agreed on.
async fn open(
    address: SocketAddr,
    path: &str,
    protocols: &str,
) -> Result<(WebSocketStream<TcpStream>, String), u16> {
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
    if !protocols.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().expect("a header"));
    }
    let stream = TcpStream::connect(address).await.expect("connected");
    match client_async(request, stream).await {
        Ok((socket, response)) => {
            let agreed = response.headers().get("sec-websocket-protocol");
            let agreed = agreed.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            Ok((socket, agreed))
        }
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        // Without a protocol in common the client gives up by itself.
        Err(error) => panic!("{error}"),
    }
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("in time");
        match message?.expect("a message") {
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return None,
            message => return Some(message),
        }
    }
}

const LOG: &str = "/api/v1/namespaces/default/pods/p/log?tailLines=5";
const ASKED: &str = "/containerLogs/default/p/c?tailLines=5";

/// Holds NO-65.
#[tokio::test(flavor = "multi_thread")]
async fn logs_come_over_a_websocket_in_every_framing() {
    let (_server, address) = with_kubelet().await;
    for (protocols, wanted) in
        [("", ""), ("binary.k8s.io", "binary.k8s.io"), ("x, binary.k8s.io", "binary.k8s.io")]
    {
        let (mut socket, agreed) = open(address, LOG, protocols).await.expect("opened");
        assert_eq!(agreed, wanted);
        assert_eq!(next(&mut socket).await, Some(Message::binary(ASKED)), "{protocols}");
        assert_eq!(next(&mut socket).await, None);
    }
    let (mut socket, _) = open(address, LOG, "base64.binary.k8s.io").await.expect("opened");
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(ASKED);
    assert_eq!(next(&mut socket).await, Some(Message::text(encoded)));
    assert_eq!(open(address, LOG, "channel.k8s.io").await.err(), Some(403));
    let missing = "/api/v1/namespaces/default/pods/none/log";
    assert_eq!(open(address, missing, "binary.k8s.io").await.err(), Some(404));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_a_websocket_sends_each_event_as_a_message() {
    let (server, address) = with_kubelet().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name}});
        assert_eq!(server.send("POST", path, Some(map)).await.0, 201);
    }
    let (mut socket, agreed) =
        open(address, &format!("{path}?watch=true"), "v1.example").await.expect("opened");
    assert_eq!(agreed, "v1.example");
    let mut event = async || {
        let Some(Message::Text(text)) = next(&mut socket).await else { panic!("no text") };
        let event: Value = serde_json::from_str(&text).expect("one JSON document");
        format!("{} {}", event["type"].as_str().unwrap_or_default(), event["object"]["metadata"]["name"])
    };
    assert_eq!([event().await, event().await], ["ADDED \"a\"", "ADDED \"b\""]);
    assert_eq!(server.send("DELETE", &format!("{path}/a"), None).await.0, 200);
    assert_eq!(event().await, "DELETED \"a\"");
    socket.send(Message::Close(None)).await.expect("sent");
    // Closing the server ends what is still open.
    let (mut socket, _) = open(address, &format!("{path}?watch=true"), "").await.expect("opened");
    assert!(next(&mut socket).await.is_some());
    server.cancel.cancel();
    assert_eq!(next(&mut socket).await, None);
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: front:80\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_proxy_leads_back_through_it() {
    let (_server, address) = with_kubelet().await;
    let proxy = "/api/v1/nodes/n/proxy";
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let text = ask(address, method, &format!("{proxy}/echo/a/b/?c=d%20e&c=f")).await;
        assert!(text.ends_with(&format!("{method} /echo/a/b/?c=d%20e&c=f")), "{text}");
    }
    let text = ask(address, "GET", proxy).await;
    assert!(text.starts_with("HTTP/1.1 301 ") && text.contains(&format!("location: {proxy}/\r\n")), "{text}");
    let text = ask(address, "POST", proxy).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\n/"), "{text}");
    let text = ask(address, "GET", &format!("{proxy}/redirect")).await;
    assert!(text.contains(&format!("location: {proxy}/there/x?y=1\r\n")), "{text}");
    let text = ask(address, "GET", &format!("{proxy}/page")).await;
    assert!(
        text.ends_with(&format!("<a href=\"{proxy}/there\">there</a> <a href=\"here\">here</a>")),
        "{text}"
    );
}
