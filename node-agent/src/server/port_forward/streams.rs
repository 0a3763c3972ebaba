//! Port-forwards over SPDY. A connection is a pair of streams with the same `requestid`: `data` carries
//! the bytes, `error` says what went wrong and is empty otherwise.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{BLOCK, dial};
use crate::server::spdy::{self, Incoming, Session};

/// A stream whose other half does not come is sent away.
const PAIRING: Duration = Duration::from_secs(30);

/// Streams that wait for their other half.
#[derive(Default)]
struct Half {
    data: Option<Incoming>,
    error: Option<Incoming>,
    since: Option<Instant>,
}

/// Forwards until the client is gone.
pub(super) async fn run(io: impl AsyncRead + AsyncWrite + Send, netns: Option<PathBuf>) {
    let (session, work) = match spdy::serve(io) {
        Ok(both) => both,
        Err(error) => return tracing::warn!(%error, "a port-forward does not start"),
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        outcome = pairs(session, netns) => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a port-forward ended");
    }
}

/// Never returns unless the connection is broken: the client may close its last stream and open more.
async fn pairs(mut session: Session, netns: Option<PathBuf>) -> Result<(), spdy::Error> {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    let mut look = tokio::time::interval(PAIRING / 6);
    let mut more = true;
    loop {
        tokio::select! {
            stream = session.accept(), if more => match stream {
                Some(stream) => {
                    if let Some((data, error, port)) = pair(&mut halves, stream).await? {
                        forwards.spawn(forward(data, error, port, netns.clone()));
                    }
                }
                None => more = false,
            },
            Some(ended) = forwards.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a forwarded connection ended"),
                Err(error) => tracing::error!(%error, "a forwarded connection failed"),
            },
            _ = look.tick() => {
                let late = |half: &Half| half.since.is_some_and(|since| since.elapsed() > PAIRING);
                let names: Vec<String> =
                    halves.iter().filter(|(_, half)| late(half)).map(|(name, _)| name.clone()).collect();
                for half in names.iter().filter_map(|name| halves.remove(name)).collect::<Vec<_>>() {
                    for stream in [half.data, half.error].into_iter().flatten() {
                        stream.refuse().await?;
                    }
                }
            }
        }
    }
}

/// Takes a stream in; gives a complete pair back. What makes no sense is sent away.
async fn pair(
    halves: &mut HashMap<String, Half>,
    stream: Incoming,
) -> Result<Option<(Incoming, Incoming, u16)>, spdy::Error> {
    let port = stream.header("port").and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    let (Some(port), Some(id)) = (port, stream.header("requestid").map(str::to_owned)) else {
        stream.refuse().await?;
        return Ok(None);
    };
    let is_data = match stream.header("streamtype") {
        Some("data") => true,
        Some("error") => false,
        _ => {
            stream.refuse().await?;
            return Ok(None);
        }
    };
    let half = halves.entry(id.clone()).or_default();
    half.since.get_or_insert_with(Instant::now);
    let place = if is_data { &mut half.data } else { &mut half.error };
    if place.is_some() {
        stream.refuse().await?;
        return Ok(None);
    }
    *place = Some(stream);
    if half.data.is_none() || half.error.is_none() {
        return Ok(None);
    }
    let Some(Half { data: Some(data), error: Some(error), .. }) = halves.remove(&id) else { return Ok(None) };
    Ok(Some((data, error, port)))
}

async fn forward(
    data: Incoming,
    error: Incoming,
    port: u16,
    netns: Option<PathBuf>,
) -> Result<(), spdy::Error> {
    let (mut reader, mut writer, mut complaint) = (data.reader, data.writer, error.writer);
    let connection = match dial(port, netns).await {
        Ok(connection) => connection,
        Err(error) => {
            let text = format!("error forwarding port {port} to the pod: {error}");
            complaint.send(text.into()).await?;
            complaint.finish().await?;
            return writer.finish().await;
        }
    };
    let closed = writer.closed();
    let (mut from, mut to) = connection.into_split();
    let up = async {
        while let Some(bytes) = reader.next().await {
            if to.write_all(&bytes).await.is_err() {
                // The pod takes no more; what it still says counts.
                break;
            }
        }
        // The client's end is the pod's end of input. A pod that is gone already needs no telling.
        to.shutdown().await.ok();
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut block = vec![0; BLOCK];
        while let Ok(count @ 1..) = from.read(&mut block).await {
            writer.send(Bytes::copy_from_slice(&block[..count])).await?;
        }
        Ok::<(), spdy::Error>(())
    };
    // A reset stream has no use for a connection whose pod is silent.
    tokio::select! {
        () = up => {}
        () = closed => return complaint.finish().await,
        outcome = down => outcome?,
    }
    writer.finish().await?;
    complaint.finish().await
}
