//! Channels as SPDY streams (`v4.channel.k8s.io` and older): the client opens one for each channel that it
//! wants, and names it in `streamtype`. `v4` ends with a status, `v3` knows the size of a terminal.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Dialect, ERROR, STDERR, STDOUT, Said, Size};
use crate::server::query::Streams;
use crate::server::spdy::{self, Session, StreamReader, StreamWriter};

/// The protocols' names in the upgrade.
pub(in super::super) const PROTOCOLS: [&str; 4] = [V4, V3, "v2.channel.k8s.io", "channel.k8s.io"];

const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";

/// The client has this long to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// A terminal's size takes no more.
const MAX_SIZE: usize = 256;

/// What the client says.
pub(in super::super) struct Reader {
    session: Session,
    stdin: Option<StreamReader>,
    resize: Option<StreamReader>,
    size: BytesMut,
}

/// What the client gets.
pub(in super::super) struct Writer {
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    error: Option<StreamWriter>,
    /// The client's own directions, which end with ours.
    others: Vec<StreamWriter>,
    dialect: Dialect,
}

/// Waits for the client's streams, does the work with them and closes the connection.
pub(in super::super) async fn run<F>(
    io: impl AsyncRead + AsyncWrite + Send,
    protocol: &'static str,
    streams: Streams,
    work: impl FnOnce(super::Reader, super::Writer) -> F,
) where
    F: Future<Output = ()>,
{
    let (session, carry) = match spdy::serve(io) {
        Ok(both) => both,
        Err(error) => return tracing::warn!(%error, "streams do not start"),
    };
    let ender = session.ender();
    let talk = async {
        match tokio::time::timeout(OPENING, open(session, protocol, streams)).await {
            Ok(Some((reader, writer))) => {
                work(super::Reader::Streams(Box::new(reader)), super::Writer::Streams(Box::new(writer)))
                    .await;
            }
            Ok(None) => tracing::debug!("the client went before its streams came"),
            Err(_) => tracing::debug!("the client did not open its streams in time"),
        }
        if let Err(error) = ender.end().await {
            tracing::debug!(%error, "the client has gone");
        }
    };
    // Both: the work outlives the connection when it cleans up, the connection the work when it flushes.
    let (outcome, ()) = tokio::join!(carry, talk);
    if let Err(error) = outcome {
        tracing::debug!(%error, "streams ended");
    }
}

async fn open(mut session: Session, protocol: &str, streams: Streams) -> Option<(Reader, Writer)> {
    let (mut stdin, mut resize) = (None, None);
    let dialect = if protocol == V4 { Dialect::V4 } else { Dialect::V1 };
    let mut writer = Writer { stdout: None, stderr: None, error: None, others: Vec::new(), dialect };
    let sized = streams.tty && matches!(protocol, V4 | V3);
    loop {
        let complete = writer.error.is_some()
            && stdin.is_some() == streams.stdin
            && writer.stdout.is_some() == streams.stdout
            && writer.stderr.is_some() == streams.stderr
            && resize.is_some() == sized;
        if complete {
            return Some((Reader { session, stdin, resize, size: BytesMut::new() }, writer));
        }
        let stream = session.accept().await?;
        match stream.header("streamtype") {
            Some("error") if writer.error.is_none() => writer.error = Some(stream.writer),
            Some("stdout") if streams.stdout && writer.stdout.is_none() => {
                writer.stdout = Some(stream.writer);
            }
            Some("stderr") if streams.stderr && writer.stderr.is_none() => {
                writer.stderr = Some(stream.writer);
            }
            Some("stdin") if streams.stdin && stdin.is_none() => {
                stdin = Some(stream.reader);
                writer.others.push(stream.writer);
            }
            Some("resize") if sized && resize.is_none() => {
                resize = Some(stream.reader);
                writer.others.push(stream.writer);
            }
            _ => stream.refuse().await.ok()?,
        }
    }
}

impl Reader {
    /// The next thing the client says; `None` when it is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            tokio::select! {
                data = next(&mut self.stdin), if self.stdin.is_some() => {
                    if data.is_none() {
                        self.stdin = None;
                    }
                    return Some(data.map_or(Said::EndOfStdin, Said::Stdin));
                }
                data = next(&mut self.resize), if self.resize.is_some() => match data {
                    Some(data) => {
                        self.size.extend_from_slice(&data);
                        if let Some(said) = self.resized() {
                            return Some(said);
                        }
                    }
                    None => self.resize = None,
                },
                stream = self.session.accept() => {
                    // One more than there are channels.
                    stream?.refuse().await.ok()?;
                }
            }
        }
    }

    /// The newest size in what came; JSON texts follow one another.
    fn resized(&mut self) -> Option<Said> {
        let mut texts = serde_json::Deserializer::from_slice(&self.size).into_iter::<Size>();
        let mut newest = None;
        while let Some(Ok(size)) = texts.next() {
            newest = Some((size, texts.byte_offset()));
        }
        match newest {
            Some((size, read)) => {
                let _read = self.size.split_to(read);
                Some(Said::Resize { width: size.width, height: size.height })
            }
            None => {
                if self.size.len() > MAX_SIZE {
                    self.size.clear();
                }
                None
            }
        }
    }
}

async fn next(stream: &mut Option<StreamReader>) -> Option<Bytes> {
    match stream {
        Some(stream) => stream.next().await,
        None => None,
    }
}

impl Writer {
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), spdy::Error> {
        let stream = match channel {
            STDOUT => &mut self.stdout,
            STDERR => &mut self.stderr,
            ERROR => &mut self.error,
            _ => return Ok(()),
        };
        match stream {
            Some(stream) => stream.send(Bytes::copy_from_slice(bytes)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn finish(self) -> Result<(), spdy::Error> {
        let Self { stdout, stderr, error, others, .. } = self;
        for stream in [stdout, stderr, error].into_iter().flatten().chain(others) {
            stream.finish().await?;
        }
        Ok(())
    }
}
