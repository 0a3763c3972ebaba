//! `/exec/…`: a command in a container, with its streams over a WebSocket (GET) or SPDY (POST).

use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use skep_runtime::{ContainerState, ExecRequest, ExecSession};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::channels::{self, Gone, Reader, Said, Writer, exit_status};
use super::query::{Parameters, Streams, command};
use super::refusal::Refusal;
use super::spdy;
use super::{Open, Shared};

/// Output is passed on in pieces of this size at most.
const BLOCK: usize = 32 << 10;

pub(super) async fn get(
    State(node): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
    Extension(open): Extension<Open>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| Refusal::bad_request("Upgrade request required"))?;
    let order = Order::new(&node, &namespace, &pod, &container, &parameters).await?;
    Ok(channels::offer(upgrade).on_upgrade(move |socket| {
        open.until_closed(async move {
            let (reader, writer) = channels::split(socket);
            order.run(&node, reader, writer).await;
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
    let order = Order::new(&node, &namespace, &pod, &container, &parameters).await?;
    let offer = spdy::Offer::new(&mut request, &channels::STREAMS, &open)?;
    let protocol = offer.protocol();
    Ok(offer.accept(async move |connection| {
        let streams = order.streams;
        channels::run_streams(connection, protocol, streams, async |reader, writer| {
            order.run(&node, reader, writer).await;
        })
        .await;
    }))
}

/// What is to be run, and where.
struct Order {
    id: String,
    request: ExecRequest,
    streams: Streams,
}

impl Order {
    async fn new(
        node: &Shared,
        namespace: &str,
        pod: &str,
        container: &str,
        parameters: &Parameters,
    ) -> Result<Self, Refusal> {
        let streams = Streams::parse(parameters)?;
        let request = ExecRequest { command: command(parameters), stdin: streams.stdin, tty: streams.tty };
        if request.command.is_empty() {
            return Err(Refusal::bad_request("you must specify at least one command for the container"));
        }
        let record = node.container(namespace, pod, Some(container), false).await?;
        if !matches!(record.state, ContainerState::Running { .. }) {
            return Err(Refusal::bad_request(format!("container {container} is not running in pod {pod}")));
        }
        Ok(Self { id: record.id, request, streams })
    }

    async fn run(&self, node: &Shared, reader: Reader, writer: Writer) {
        let started = node.runtime().exec(&self.id, &self.request).await;
        run(reader, writer, started, self.streams).await;
    }
}

async fn run(
    mut reader: Reader,
    mut writer: Writer,
    started: Result<ExecSession, skep_runtime::Error>,
    streams: Streams,
) {
    let mut session = match started {
        Ok(session) => session,
        Err(error) => {
            let refusal = Refusal::from(error);
            if let Err(error) = writer.finish(&refusal.to_status()).await {
                tracing::debug!(%error, "the client is gone");
            }
            return;
        }
    };
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let mut stdin = session.stdin.take();
    let listen = async {
        while let Some(said) = reader.next().await {
            match said {
                Said::Stdin(bytes) => {
                    if let Some(pipe) = &mut stdin
                        && pipe.write_all(&bytes).await.is_err()
                    {
                        // The process has closed its end: what more comes is for nobody.
                        stdin = None;
                    }
                }
                Said::EndOfStdin => {
                    stdin = None;
                    if let Err(error) = session.close_stdin().await {
                        tracing::debug!(%error, "closing stdin");
                    }
                }
                Said::Resize { width, height } => {
                    if let Err(error) = session.resize(width, height).await {
                        tracing::debug!(%error, "resizing the terminal");
                    }
                }
            }
        }
    };
    let speak = async {
        let outcome = copy(stdout, stderr, streams, &mut writer).await;
        outcome.map(|()| writer)
    };
    let code = tokio::select! {
        // The client is gone before the command's end: nobody is left to want it.
        () = listen => None,
        (code, spoken) = async { tokio::join!(session.wait(), speak) } => spoken.ok().map(|writer| (code, writer)),
    };
    match code {
        Some((code, writer)) => {
            let status = match code {
                Ok(code) => exit_status(code),
                Err(error) => Refusal::from(error).to_status(),
            };
            if let Err(error) = writer.finish(&status).await {
                tracing::debug!(%error, "the client is gone");
            }
            reader.drain().await;
        }
        None => {
            if let Err(error) = session.kill().await {
                tracing::debug!(%error, "killing an abandoned command");
            }
        }
    }
    if let Err(error) = session.finish().await {
        tracing::warn!(%error, "forgetting an exec");
    }
}

/// Copies both outputs to the client until both end.
async fn copy(
    mut stdout: Option<impl AsyncRead + Unpin>,
    mut stderr: Option<impl AsyncRead + Unpin>,
    streams: Streams,
    writer: &mut Writer,
) -> Result<(), Gone> {
    let (mut out, mut err) = (vec![0; BLOCK], vec![0; BLOCK]);
    while stdout.is_some() || stderr.is_some() {
        tokio::select! {
            read = read(&mut stdout, &mut out), if stdout.is_some() => match read {
                0 => stdout = None,
                count if streams.stdout => writer.send(channels::STDOUT, &out[..count]).await?,
                _ => {}
            },
            read = read(&mut stderr, &mut err), if stderr.is_some() => match read {
                0 => stderr = None,
                count if streams.stderr => writer.send(channels::STDERR, &err[..count]).await?,
                _ => {}
            },
        }
    }
    Ok(())
}

/// An error ends a stream like its end does.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}
