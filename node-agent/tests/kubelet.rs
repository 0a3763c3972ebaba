//! A client of the kubelet API: TLS with a client certificate, plain requests and WebSockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

const ADDRESS: &str = "192.0.2.10";
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Kubelet(TlsConnector);

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Kubelet {
    pub(crate) fn new(ca: &str, pair: Option<(&str, &str)>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match pair {
            Some((cert, key)) => {
                let chain = CertificateDer::pem_slice_iter(cert.as_bytes())
                    .map(|c| c.expect("a certificate"))
                    .collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
            None => config.with_no_client_auth(),
        };
        Self(TlsConnector::from(Arc::new(config)))
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, Failure> {
        let stream = TcpStream::connect((ADDRESS, 10250)).await?;
        Ok(self.0.connect(ServerName::try_from(ADDRESS)?, stream).await?)
    }

    /// A GET whose body is still to be read.
    pub(crate) async fn open(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await?)).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", ADDRESS).body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?)
    }

    /// A GET.
    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, String), Failure> {
        let response = self.open(path).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// A WebSocket that speaks `protocol`.
    pub(crate) async fn socket(&self, path: &str, protocol: &str) -> Socket {
        let request = Request::get(format!("wss://{ADDRESS}:10250{path}"))
            .header("host", ADDRESS)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol)
            .body(())
            .expect("a request");
        let stream = self.connect().await.expect("a connection");
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
        let agreed = response.headers().get("sec-websocket-protocol").expect("a protocol");
        assert_eq!(agreed, protocol);
        Socket(socket)
    }
}

/// What came on the channels by the end.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) error: String,
}

impl Heard {
    /// The exit code that the status tells.
    pub(crate) fn code(&self) -> i32 {
        let status: serde_json::Value = serde_json::from_str(&self.error).expect("a status");
        if status["status"] == "Success" {
            return 0;
        }
        status["details"]["causes"][0]["message"].as_str().expect("a code").parse().expect("a number")
    }
}

pub(crate) struct Socket(WebSocketStream<TlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn say(&mut self, channel: u8, data: &[u8]) {
        self.0.send(Message::Binary([&[channel], data].concat().into())).await.expect("sent");
    }

    /// The next message: channel and data. None when the server has closed.
    pub(crate) async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something in time");
            match message? {
                Ok(Message::Binary(bytes)) => return Some((bytes[0], bytes.slice(1..))),
                Ok(Message::Close(_)) => return None,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Everything on a channel until it contains a text.
    pub(crate) async fn until(&mut self, channel: u8, text: &str) -> String {
        let mut all = String::new();
        while !all.contains(text) {
            let (from, data) = self.next().await.unwrap_or_else(|| panic!("the end, after {all:?}"));
            if from == channel {
                all.push_str(&String::from_utf8_lossy(&data));
            } else {
                assert!(data.is_empty() || from != 3, "{}", String::from_utf8_lossy(&data));
            }
        }
        all
    }

    /// Everything until the end.
    pub(crate) async fn rest(mut self) -> Heard {
        let mut heard = Heard::default();
        while let Some((channel, data)) = self.next().await {
            let text = String::from_utf8_lossy(&data);
            match channel {
                1 => heard.stdout.push_str(&text),
                2 => heard.stderr.push_str(&text),
                3 => heard.error.push_str(&text),
                other => panic!("channel {other}"),
            }
        }
        heard
    }
}
