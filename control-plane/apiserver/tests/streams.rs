//! Logs and upgraded streams pass through to a kubelet unchanged.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use skep_apiserver::proxy::Kubelets;
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::Chain;
use skep_auth::authorization::AlwaysAllow;
use skep_auth::pki::{ClientAuth, Pki, PkiOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::Server;

/// Answers with what it was asked; after an upgrade it sends everything back.
async fn kubelet(mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let asked = request.uri().to_string();
    let mut response = Response::new(asked);
    match request.uri().path() {
        "/redirect" => {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", "/there/x?y=1".parse().expect("a header"));
            return Ok(response);
        }
        "/page" => {
            let page = "<a href=\"/there\">there</a> <a href=\"here\">here</a>";
            *response.body_mut() = page.to_owned();
            response
                .headers_mut()
                .insert("content-type", "text/html; charset=utf-8".parse().expect("a header"));
            return Ok(response);
        }
        path if path.starts_with("/echo") => {
            let text = format!("{} {}", request.method(), request.uri());
            *response.body_mut() = text;
            return Ok(response);
        }
        _ => {}
    }
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.expect("upgraded")));
            tokio::io::copy(&mut read, &mut write).await.expect("echoed");
        });
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.body_mut().clear();
        response.headers_mut().insert("x-asked", request.uri().to_string().parse().expect("a header"));
        for name in ["connection", "upgrade", "sec-websocket-protocol", "x-stream-protocol-version"] {
            for value in request.headers().get_all(name) {
                response.headers_mut().append(name, value.clone());
            }
        }
    }
    Ok(response)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await.expect("a client with a certificate");
            let http = hyper::server::conn::http1::Builder::new();
            let connection = http.serve_connection(TokioIo::new(stream), service_fn(kubelet));
            connection.with_upgrades().await.expect("served");
        });
    }
}

/// A server, the address of its plain port, and a kubelet with the pod `p`.
pub(crate) async fn with_kubelet() -> (Server, SocketAddr) {
    let server = Server::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let options = PkiOptions { server_names: Vec::new(), server_ips: Vec::new() };
    let pki = Pki::load_or_create(dir.path(), &options).expect("a PKI");
    let node = pki.issue_server("system:node:n", &[], &[[127, 0, 0, 1].into()]).expect("a certificate");
    let tls = pki.server_config(&node, ClientAuth::Required).expect("TLS");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(serve(listener, TlsAcceptor::from(tls)));

    let client = pki.issue_client("skep-apiserver-kubelet", &["system:masters"]).expect("a certificate");
    let registry = server.api.registry().clone();
    let mut config = Config::new(registry, Chain::new(Vec::new(), true), Arc::new(AlwaysAllow));
    config.kubelets =
        Some(Kubelets::new(pki.ca_pem(), &client.cert_pem, &client.key_pem).expect("certificates"));
    let api = ApiServer::build(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(api.serve_plain(listener, server.cancel.clone()));

    let node = json!({
        "metadata": {"name": "n"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    });
    let (status, answer) = server.send("POST", "/api/v1/nodes", Some(node)).await;
    assert_eq!(status, 201, "{answer}");
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    });
    let (status, answer) = server.send("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(status, 201, "{answer}");
    (server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec_reach_the_kubelet() {
    let (_server, address) = with_kubelet().await;
    let ask = async |head: &str| {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
        stream
    };
    let pods = "/api/v1/namespaces/default/pods/p";
    let mut stream =
        ask(&format!("GET {pods}/log?follow=true&tailLines=5 HTTP/1.1\r\nConnection: close")).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert!(text.ends_with("/containerLogs/default/p/c?tailLines=5&follow=true"), "{text}");

    let head = format!(
        "GET {pods}/exec?command=ls&command=-l%20a&stdin=true&stdout=true&container=c HTTP/1.1\r\n\
         Connection: Upgrade\r\nUpgrade: websocket"
    );
    let mut stream = ask(&head).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.expect("a head"));
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    stream.write_all(b"hello").await.expect("written");
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.expect("echoed");
    assert_eq!(&echo, b"hello");

    let mut stream = ask(&format!("GET {pods}/log?container=x HTTP/1.1\r\nConnection: close")).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert!(text.contains("container x is not valid for pod p"), "{text}");
}

/// Sends a head; the head of the answer.
async fn begin(address: SocketAddr, head: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(format!("{head}\r\nHost: x\r\n\r\n").as_bytes()).await.expect("written");
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.expect("a head"));
    }
    (stream, String::from_utf8_lossy(&seen).into_owned())
}

/// Every protocol that clients speak with kubelets: what they offer comes there, what is agreed on comes back, and the
/// bytes are nobody's business on the way.
#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_passes_both_ways() {
    let (server, address) = with_kubelet().await;
    let pod = "/api/v1/namespaces/default/pods/p";
    let exec = format!("{pod}/exec?command=cat&command=a%20%26b&stdin=true&stdout=1&stderr=false&tty=true");
    let exec_there = "/exec/default/p/c?input=1&output=1&tty=1&command=cat&command=a%20%26b";
    let websocket = |protocols: &str| {
        format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocols}"
        )
    };
    let spdy = |protocols: &[&str]| {
        let lines = protocols.iter().map(|name| format!("\r\nX-Stream-Protocol-Version: {name}"));
        format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1{}", lines.collect::<String>())
    };
    let attach = format!("{pod}/attach?stdout=true&container=c");
    let ports = format!("{pod}/portforward?ports=80,81&ports=82");
    let cases = [
        (
            "GET",
            exec.as_str(),
            websocket("v5.channel.k8s.io"),
            vec!["sec-websocket-protocol: v5.channel.k8s.io"],
            exec_there,
        ),
        (
            "GET",
            &exec,
            websocket("v4.channel.k8s.io"),
            vec!["sec-websocket-protocol: v4.channel.k8s.io"],
            exec_there,
        ),
        (
            "GET",
            &exec,
            websocket("base64.channel.k8s.io"),
            vec!["sec-websocket-protocol: base64.channel.k8s.io"],
            exec_there,
        ),
        (
            "GET",
            &exec,
            websocket(
                "base64url.bearer.authorization.k8s.io.c2VjcmV0, v4.base64.channel.k8s.io, channel.k8s.io",
            ),
            vec!["sec-websocket-protocol: v4.base64.channel.k8s.io, channel.k8s.io"],
            exec_there,
        ),
        (
            "POST",
            &exec,
            spdy(&["v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"]),
            vec![
                "x-stream-protocol-version: v4.channel.k8s.io",
                "x-stream-protocol-version: v3.channel.k8s.io",
                "x-stream-protocol-version: channel.k8s.io",
                "upgrade: SPDY/3.1",
            ],
            exec_there,
        ),
        (
            "GET",
            &attach,
            websocket("v5.channel.k8s.io"),
            vec!["upgrade: websocket"],
            "/attach/default/p/c?output=1",
        ),
        (
            "POST",
            &attach,
            spdy(&["v4.channel.k8s.io"]),
            vec!["upgrade: SPDY/3.1"],
            "/attach/default/p/c?output=1",
        ),
        (
            "GET",
            &ports,
            websocket("SPDY/3.1+portforward.k8s.io"),
            vec!["sec-websocket-protocol: SPDY/3.1+portforward.k8s.io"],
            "/portForward/default/p?port=80&port=81&port=82",
        ),
        (
            "POST",
            &ports,
            spdy(&["portforward.k8s.io"]),
            vec!["x-stream-protocol-version: portforward.k8s.io"],
            "/portForward/default/p?port=80&port=81&port=82",
        ),
    ];
    for (method, path, headers, wanted, there) in cases {
        let (mut stream, head) = begin(address, &format!("{method} {path} HTTP/1.1\r\n{headers}")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{method} {path} {headers}: {head}");
        for line in wanted.iter().copied().chain([format!("x-asked: {there}").as_str()]) {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line:?} in {head}");
        }
        assert!(!head.contains("c2VjcmV0"), "a token goes no further: {head}");
        // More than any buffer on the way, both ways at once.
        let sent: Vec<u8> = (0..3 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let (mut read, mut write) = stream.split();
        let mut back = vec![0; sent.len()];
        let (wrote, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        wrote.expect("written");
        got.expect("echoed");
        assert!(back == sent, "{method} {path}");
        // The client's end is the kubelet's, and its answer's.
        stream.shutdown().await.expect("closed");
        let rest = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read(&mut [0; 1])).await;
        assert_eq!(rest.expect("it ends").expect("in good order"), 0, "{method} {path}");
    }
    // Closing the server ends what is still open.
    let (mut stream, _) =
        begin(address, &format!("GET {exec} HTTP/1.1\r\n{}", websocket("v5.channel.k8s.io"))).await;
    server.cancel.cancel();
    let rest = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read(&mut [0; 1])).await;
    assert!(matches!(rest.expect("it ends"), Ok(0) | Err(_)));
}

/// Only the methods that have a right of their own lead to a kubelet.
#[tokio::test(flavor = "multi_thread")]
async fn other_methods_lead_nowhere() {
    let (_server, address) = with_kubelet().await;
    for subresource in ["exec?command=ls&stdout=1", "attach?stdout=1", "portforward", "log"] {
        let methods: &[&str] = if subresource == "log" {
            &["POST", "PUT", "DELETE"]
        } else {
            &["PUT", "PATCH", "DELETE", "OPTIONS"]
        };
        for method in methods {
            let upgrade =
                "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io";
            let path = format!("/api/v1/namespaces/default/pods/p/{subresource}");
            let (_, head) = begin(address, &format!("{method} {path} HTTP/1.1\r\n{upgrade}")).await;
            assert!(head.starts_with("HTTP/1.1 405 "), "{method} {path}: {head}");
        }
    }
    for (path, wanted) in [
        ("pods/p/exec", "400"),
        ("pods/none/exec?command=ls", "404"),
        ("pods/p/exec?command=ls&container=none", "400"),
        ("pods/p/exec/more?command=ls", "404"),
    ] {
        let (_, head) =
            begin(address, &format!("POST /api/v1/namespaces/default/{path} HTTP/1.1\r\nContent-Length: 0"))
                .await;
        assert!(head.starts_with(&format!("HTTP/1.1 {wanted} ")), "{path}: {head}");
    }
}
