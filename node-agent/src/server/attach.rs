//! `/attach/…`: the streams of a container's own process, over a WebSocket (GET) or SPDY (POST). Output comes from the container's log
//! writer as frames (stream, length in four bytes, data); input goes to its FIFO.

use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use skep_runtime::{ContainerRecord, ContainerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::channels::{self, Reader, Said, Writer};
use super::query::{Parameters, Streams};
use super::refusal::Refusal;
use super::spdy;
use super::{Open, Shared};

/// No frame of the log writer is larger.
const MAX_FRAME: usize = 1 << 20;

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
    Extension(open): Extension<Open>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| Refusal::bad_request("Upgrade request required"))?;
    let (record, streams) = target(&node, &namespace, &pod, &container, &parameters).await?;
    Ok(channels::offer(upgrade).on_upgrade(move |socket| {
        open.until_closed(async move {
            let (reader, writer) = channels::split(socket);
            run(&node, reader, writer, &record, streams).await;
        })
    }))
}

pub(super) async fn post(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
    Extension(open): Extension<Open>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let (record, streams) = target(&node, &namespace, &pod, &container, &parameters).await?;
    let offer = spdy::Offer::new(&mut request, &channels::STREAMS, &open)?;
    let protocol = offer.protocol();
    Ok(offer.accept(async move |connection| {
        channels::run_streams(connection, protocol, streams, async |reader, writer| {
            run(&node, reader, writer, &record, streams).await;
        })
        .await;
    }))
}

/// The container and which of its streams are wanted.
async fn target(
    node: &Shared,
    namespace: &str,
    pod: &str,
    container: &str,
    parameters: &Parameters,
) -> Result<(ContainerRecord, Streams), Refusal> {
    let streams = Streams::parse(parameters)?;
    let record = node.container(namespace, pod, Some(container), false).await?;
    if !matches!(record.state, ContainerState::Running { .. }) {
        return Err(Refusal::bad_request(format!("container {container} is not running in pod {pod}")));
    }
    if streams.tty && !record.tty {
        return Err(Refusal::bad_request(format!(
            "container {container} has no terminal: its pod says tty: false"
        )));
    }
    Ok((record, streams))
}

async fn run(
    node: &Shared,
    mut reader: Reader,
    mut writer: Writer,
    record: &ContainerRecord,
    streams: Streams,
) {
    let runtime = node.runtime();
    let mut stdin = None;
    if streams.stdin && record.stdin {
        match pipe::OpenOptions::new().open_sender(runtime.stdin_path(&record.id)) {
            Ok(open) => stdin = Some(open),
            Err(error) => tracing::warn!(container = %record.id, %error, "opening the container's input"),
        }
    }
    let listen = async {
        while let Some(said) = reader.next().await {
            match said {
                Said::Stdin(bytes) => {
                    if let Some(pipe) = &mut stdin
                        && pipe.write_all(&bytes).await.is_err()
                    {
                        stdin = None;
                    }
                }
                // The container's input outlives this client, unless its pod says stdinOnce.
                Said::EndOfStdin => stdin = None,
                Said::Resize { width, height } => {
                    if let Err(error) = runtime.resize(&record.id, "", width, height).await {
                        tracing::debug!(%error, "resizing the terminal");
                    }
                }
            }
        }
    };
    let path = runtime.attach_path(&record.id);
    let speak = async {
        match UnixStream::connect(&path).await {
            Ok(stream) => copy(stream, streams, &mut writer).await,
            Err(error) => tracing::warn!(path = %path.display(), %error, "reaching the log writer"),
        }
    };
    tokio::select! {
        () = listen => return,
        () = speak => {}
    }
    let code = node.container(&record.pod.namespace, &record.pod.name, Some(&record.name), false).await;
    let code = match code.map(|now| now.state) {
        Ok(ContainerState::Exited(exit)) => exit.code,
        _ => 0,
    };
    if let Err(error) = writer.finish(&channels::exit_status(code)).await {
        tracing::debug!(%error, "the client is gone");
    }
    reader.drain().await;
}

/// Passes frames on until the writer or the client is gone.
async fn copy(mut stream: UnixStream, streams: Streams, writer: &mut Writer) {
    let mut data = Vec::new();
    loop {
        let mut header = [0; 5];
        if stream.read_exact(&mut header).await.is_err() {
            return;
        }
        let [channel, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return tracing::warn!(length, "the log writer sent too large a frame");
        }
        data.resize(length, 0);
        if stream.read_exact(&mut data).await.is_err() {
            return;
        }
        let wanted = match channel {
            channels::STDOUT => streams.stdout,
            channels::STDERR => streams.stderr,
            _ => false,
        };
        if wanted && writer.send(channel, &data).await.is_err() {
            return;
        }
    }
}
