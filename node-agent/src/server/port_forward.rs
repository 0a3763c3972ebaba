//! `/portForward/…`: connections to ports of a pod. Either over WebSocket `v4.channel.k8s.io` with
//! `?ports=…`: two channels a port, data and error, where the first message on each names the port in two
//! bytes, little endian; or over SPDY, plain (POST) or in a WebSocket, where streams name their ports.

mod streams;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use axum::Extension;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::channels::{self, Framing, LINGER};
use super::query::{Parameters, ports};
use super::refusal::Refusal;
use super::spdy;
use super::{Open, Shared};

const BINARY: &str = "v4.channel.k8s.io";
const BASE64: &str = "v4.base64.channel.k8s.io";
/// What kubectl asks for: SPDY, and on it the older protocol, inside of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const STREAMS: &str = "portforward.k8s.io";
/// A client may send this much in one message.
const MAX_MESSAGE: usize = 1 << 20;
const BLOCK: usize = 32 << 10;
/// Channels are one byte, two a port.
const MAX_PORTS: usize = 120;
const QUEUE: usize = 16;

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    Extension(open): Extension<Open>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| Refusal::bad_request("Upgrade request required"))?;
    let netns = node.network_namespace(&namespace, &pod)?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let upgrade = upgrade.protocols([TUNNEL, BINARY, BASE64]);
    if upgrade.selected_protocol().is_some_and(|protocol| protocol == TUNNEL) {
        let run = move |socket| open.until_closed(streams::run(spdy::tunnel(socket), netns));
        return Ok(upgrade.on_upgrade(run));
    }
    let ports = ports(&parameters)?;
    if ports.len() > MAX_PORTS {
        return Err(Refusal::bad_request(format!("at most {MAX_PORTS} ports")));
    }
    let framing = match upgrade.selected_protocol() {
        Some(protocol) if protocol == BASE64 => Framing::Base64,
        _ => Framing::Binary,
    };
    let run = move |socket| open.until_closed(async move { run(socket, framing, &ports, netns).await });
    Ok(upgrade.on_upgrade(run))
}

pub(super) async fn post(
    State(node): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
    Extension(open): Extension<Open>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let netns = node.network_namespace(&namespace, &pod)?;
    let offer = spdy::Offer::new(&mut request, &[STREAMS], &open)?;
    Ok(offer.accept(async move |connection| streams::run(connection, netns).await))
}

async fn run(socket: WebSocket, framing: Framing, ports: &[u16], netns: Option<PathBuf>) {
    let (sink, stream) = socket.split();
    let (sender, receiver) = mpsc::channel::<(u8, Bytes)>(QUEUE);
    let mut tasks = JoinSet::new();
    let mut inputs = HashMap::new();
    for (at, &port) in ports.iter().enumerate() {
        let Ok(channel) = u8::try_from(at * 2) else { return };
        for channel in [channel, channel + 1] {
            if sender.send((channel, Bytes::copy_from_slice(&port.to_le_bytes()))).await.is_err() {
                return;
            }
        }
        match dial(port, netns.clone()).await {
            Ok(connection) => {
                let (from, to) = connection.into_split();
                inputs.insert(channel, to);
                tasks.spawn(upstream(channel, from, sender.clone()));
            }
            Err(error) => {
                let text = format!("error forwarding port {port} to the pod: {error}");
                if sender.send((channel + 1, text.into())).await.is_err() {
                    return;
                }
            }
        }
    }
    drop(sender);
    let mut downstream = std::pin::pin!(downstream(stream, framing, inputs));
    tokio::select! {
        () = &mut downstream => {}
        () = speak(sink, framing, receiver) => {
            // Closing over input that is not read would reset the connection, and what is on its way with it.
            let _late = tokio::time::timeout(LINGER, downstream).await;
        }
    }
    tasks.shutdown().await;
}

/// Connects to the port on the pod's own loopback, where `kubectl port-forward` promises to reach. A
/// thread enters the namespace and ends: the runtime's threads never leave theirs.
async fn dial(port: u16, netns: Option<PathBuf>) -> io::Result<TcpStream> {
    let connected = tokio::task::spawn_blocking(move || {
        let thread = std::thread::Builder::new().name("dial".to_owned()).spawn(move || {
            if let Some(path) = netns {
                setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            }
            let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            let [first, second] = loopback.map(|address| (address, port));
            // What IPv4 says is the better message when neither answers.
            std::net::TcpStream::connect(first)
                .or_else(|error| std::net::TcpStream::connect(second).map_err(|_| error))
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the dialing thread panicked")))
    });
    let stream = connected.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

async fn upstream(channel: u8, mut from: OwnedReadHalf, sender: mpsc::Sender<(u8, Bytes)>) {
    let mut block = vec![0; BLOCK];
    while let Ok(count @ 1..) = from.read(&mut block).await {
        if sender.send((channel, Bytes::copy_from_slice(&block[..count]))).await.is_err() {
            return;
        }
    }
}

async fn downstream(
    mut stream: SplitStream<WebSocket>,
    framing: Framing,
    mut inputs: HashMap<u8, OwnedWriteHalf>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match (framing, message) {
            (Framing::Binary, Message::Binary(bytes)) => bytes,
            (Framing::Base64, Message::Text(text)) => channels::decode(&text).unwrap_or_default(),
            _ => continue,
        };
        let Some((channel, data)) = bytes.split_first() else { continue };
        if let Some(to) = inputs.get_mut(channel)
            && to.write_all(data).await.is_err()
        {
            inputs.remove(channel);
        }
    }
}

async fn speak(
    mut sink: SplitSink<WebSocket, Message>,
    framing: Framing,
    mut receiver: mpsc::Receiver<(u8, Bytes)>,
) {
    while let Some((channel, data)) = receiver.recv().await {
        if sink.send(channels::message(framing, channel, &data)).await.is_err() {
            return;
        }
    }
    if let Err(error) = sink.close().await {
        tracing::debug!(%error, "the client is gone");
    }
}
