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
        for name in ["connection", "upgrade"] {
            response.headers_mut().insert(name, request.headers()[name].clone());
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
