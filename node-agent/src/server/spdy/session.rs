//! A connection's streams. One loop reads and hands data to the streams, one writes what they say.
//!
//! Bounded are: streams, the data that waits in each, frames that wait to be written. A peer that sends
//! more than its streams take is not read until they have: that holds whether or not it keeps windows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Error;
use super::flow::{INITIAL, Window};
use super::frame::{Decoder, Encoder, Frame, Reset};
use super::headers::Headers;

/// A connection has no more streams than this at a time: two for each forwarded connection.
const MAX_STREAMS: usize = 512;
/// Pieces of data that wait in a stream, each of a [`BLOCK`] at most.
const WAITING: usize = 8;
const BLOCK: usize = 16 << 10;
/// Frames that wait to be written, and how many are written at once.
const OUT: usize = 32;
/// New streams that wait for somebody to accept them.
const NEW: usize = 16;
/// Room is given back in portions of this size.
const CREDIT: u32 = INITIAL / 2;
/// How long a client may still send after our end.
const LINGER: Duration = Duration::from_secs(1);

enum Out {
    Frame(Frame),
    End,
}

struct Entry {
    /// None after the peer's end.
    data: Option<mpsc::Sender<Bytes>>,
    window: Arc<Window>,
    /// We have not ended it.
    open: bool,
}

struct Shared {
    streams: Mutex<HashMap<u32, Entry>>,
    window: Window,
    out: mpsc::Sender<Out>,
    last: AtomicU32,
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn say(&self, frame: Frame) -> Result<(), Error> {
        self.out.send(Out::Frame(frame)).await.map_err(|_| Error::Ended)
    }

    fn forget(&self, stream: u32) {
        if let Some(entry) = self.streams().remove(&stream) {
            entry.window.close();
        }
    }
}

/// A stream that the peer has opened.
pub(in super::super) struct Incoming {
    /// Its headers.
    pub(in super::super) headers: Headers,
    /// What the peer sends.
    pub(in super::super) reader: StreamReader,
    /// What the peer gets.
    pub(in super::super) writer: StreamWriter,
}

impl Incoming {
    /// The value of a header; names are in lower case.
    pub(in super::super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Sends it away.
    pub(in super::super) async fn refuse(self) -> Result<(), Error> {
        let StreamWriter { stream, shared, .. } = self.writer;
        shared.forget(stream);
        shared.say(Frame::Reset { stream, status: Reset::Refused as u32 }).await
    }
}

/// The receiving half of a stream.
pub(in super::super) struct StreamReader {
    stream: u32,
    data: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    owed: u32,
}

impl StreamReader {
    /// The next piece; `None` at the end or when the connection is gone. Cancel safe.
    pub(in super::super) async fn next(&mut self) -> Option<Bytes> {
        if self.owed >= CREDIT
            && let Ok(permit) = self.shared.out.reserve().await
        {
            permit.send(Out::Frame(Frame::WindowUpdate { stream: self.stream, more: self.owed }));
            self.owed = 0;
        }
        let data = self.data.recv().await?;
        self.owed = self.owed.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
        Some(data)
    }
}

/// The sending half of a stream.
pub(in super::super) struct StreamWriter {
    stream: u32,
    window: Arc<Window>,
    shared: Arc<Shared>,
}

impl StreamWriter {
    /// Sends data, waiting for room.
    pub(in super::super) async fn send(&mut self, mut data: Bytes) -> Result<(), Error> {
        while !data.is_empty() {
            let wanted = u32::try_from(data.len().min(BLOCK)).unwrap_or(u32::MAX);
            let taken = self.window.take(wanted).await.ok_or(Error::Ended)?;
            let both = self.shared.window.take(taken).await.ok_or(Error::Ended)?;
            self.window.give_back(taken - both);
            let data = data.split_to(both as usize);
            self.shared.say(Frame::Data { stream: self.stream, fin: false, data }).await?;
        }
        Ok(())
    }

    /// Waits until the peer wants nothing of this stream any more.
    pub(in super::super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let window = self.window.clone();
        async move { window.closed().await }
    }

    /// Ends our side.
    pub(in super::super) async fn finish(self) -> Result<(), Error> {
        {
            let mut streams = self.shared.streams();
            let ended = match streams.get_mut(&self.stream) {
                Some(entry) => {
                    entry.open = false;
                    entry.data.is_none()
                }
                // Reset: there is nobody to tell.
                None => return Ok(()),
            };
            if ended {
                streams.remove(&self.stream);
            }
        }
        self.shared.say(Frame::Data { stream: self.stream, fin: true, data: Bytes::new() }).await
    }
}

/// The streams to accept.
pub(in super::super) struct Session {
    incoming: mpsc::Receiver<Incoming>,
    shared: Arc<Shared>,
}

impl Session {
    /// The next stream; `None` when the peer opens no more. Cancel safe.
    pub(in super::super) async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// What ends the connection.
    pub(in super::super) fn ender(&self) -> Ender {
        Ender(self.shared.clone())
    }
}

/// Ends a connection from our side.
pub(in super::super) struct Ender(Arc<Shared>);

impl Ender {
    /// Says goodbye. What was sent before still arrives.
    pub(in super::super) async fn end(self) -> Result<(), Error> {
        let last = self.0.last.load(Ordering::Relaxed);
        self.0.say(Frame::GoAway { last, status: 0 }).await?;
        self.0.out.send(Out::End).await.map_err(|_| Error::Ended)
    }
}

/// A session over a connection, and the work that carries it, which ends with the connection.
pub(in super::super) fn serve(
    io: impl AsyncRead + AsyncWrite + Send,
) -> Result<(Session, impl Future<Output = Result<(), Error>> + Send), Error> {
    let encoder = Encoder::new()?;
    let (out, frames) = mpsc::channel(OUT);
    let (sender, incoming) = mpsc::channel(NEW);
    let shared = Arc::new(Shared {
        streams: Mutex::default(),
        window: Window::new(INITIAL, false),
        out,
        last: AtomicU32::new(0),
    });
    let session = Session { incoming, shared: shared.clone() };
    let work = async move {
        let (from, to) = tokio::io::split(io);
        let end = shared.clone();
        let read = async move {
            let mut reading =
                Reading { shared, sender: Some(sender), last: 0, window: INITIAL, binding: false, owed: 0 };
            let result = reading.run(from).await;
            if let Err(Error::Protocol(_)) = &result {
                // As a courtesy; a peer that does not read will not get it.
                reading.shared.out.try_send(Out::Frame(Frame::GoAway { last: reading.last, status: 1 })).ok();
                reading.shared.out.try_send(Out::End).ok();
            }
            result
        };
        let (mut read, mut write) = (Box::pin(read), Box::pin(write(to, frames, encoder)));
        let result = tokio::select! {
            result = &mut read => match result {
                Err(Error::Protocol(_)) => {
                    let _late = tokio::time::timeout(LINGER, write).await;
                    result
                }
                _ => result,
            },
            result = &mut write => match result {
                // Closing before everything is read would take from the client what it has not read yet.
                Ok(()) => tokio::time::timeout(LINGER, read).await.unwrap_or(Ok(())),
                failed => failed,
            },
        };
        end.window.close();
        for (_, entry) in end.streams().drain() {
            entry.window.close();
        }
        result
    };
    Ok((session, work))
}

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Out>,
    mut encoder: Encoder,
) -> Result<(), Error> {
    let (mut batch, mut bytes) = (Vec::with_capacity(OUT), BytesMut::new());
    loop {
        if frames.recv_many(&mut batch, OUT).await == 0 {
            return Ok(());
        }
        let mut end = false;
        for out in batch.drain(..) {
            match out {
                Out::Frame(frame) => encoder.encode(&frame, &mut bytes)?,
                Out::End => end = true,
            }
        }
        to.write_all_buf(&mut bytes).await?;
        to.flush().await?;
        if end {
            to.shutdown().await?;
            return Ok(());
        }
    }
}

/// The state of the loop that reads.
struct Reading {
    shared: Arc<Shared>,
    /// None after the peer's GOAWAY.
    sender: Option<mpsc::Sender<Incoming>>,
    last: u32,
    window: u32,
    binding: bool,
    owed: u32,
}

impl Reading {
    async fn run(&mut self, mut from: impl AsyncRead + Unpin) -> Result<(), Error> {
        let mut decoder = Decoder::new();
        loop {
            while let Some(frame) = decoder.next()? {
                self.take(frame).await?;
            }
            let buffer = decoder.buffer();
            buffer.reserve(BLOCK);
            if (&mut from).take(BLOCK as u64).read_buf(buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Open { stream, fin, unidirectional, headers } => {
                self.open(stream, fin, unidirectional, headers).await
            }
            Frame::Data { stream, fin, data } => self.data(stream, fin, data).await,
            Frame::Headers { stream, fin } => self.data(stream, fin, Bytes::new()).await,
            Frame::Reset { stream, .. } => {
                self.shared.forget(stream);
                Ok(())
            }
            // Ours would be even; we send none.
            Frame::Ping(id) if id % 2 == 1 => self.shared.say(Frame::Ping(id)).await,
            Frame::Ping(_) | Frame::Settings { initial_window: None } => Ok(()),
            Frame::GoAway { .. } => {
                self.sender = None;
                Ok(())
            }
            Frame::Reply { .. } => Err(Error::Protocol("an answer to a stream nobody opened")),
            Frame::Settings { initial_window: Some(size) } => {
                let by = i64::from(size) - i64::from(self.window);
                (self.window, self.binding) = (size, true);
                for entry in self.shared.streams().values() {
                    entry.window.shift(by);
                }
                Ok(())
            }
            Frame::WindowUpdate { more: 0, .. } => Ok(()),
            Frame::WindowUpdate { stream: 0, more } => {
                if self.shared.window.grow(more) {
                    return Ok(());
                }
                Err(Error::Protocol("the session's window is too large"))
            }
            Frame::WindowUpdate { stream, more } => {
                let window = self.shared.streams().get(&stream).map(|entry| entry.window.clone());
                if window.is_none_or(|window| window.grow(more)) {
                    return Ok(());
                }
                self.shared.forget(stream);
                self.reset(stream, Reset::FlowControl).await
            }
        }
    }

    async fn reset(&self, stream: u32, why: Reset) -> Result<(), Error> {
        self.shared.say(Frame::Reset { stream, status: why as u32 }).await
    }

    async fn open(
        &mut self,
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), Error> {
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(Error::Protocol("a stream's number is out of order"));
        }
        self.last = stream;
        self.shared.last.store(stream, Ordering::Relaxed);
        if unidirectional {
            return self.reset(stream, Reset::Protocol).await;
        }
        let Some(sender) = self.sender.clone() else { return self.reset(stream, Reset::Refused).await };
        if self.shared.streams().len() >= MAX_STREAMS {
            return self.reset(stream, Reset::Refused).await;
        }
        let window = Arc::new(Window::new(self.window, self.binding));
        let (data, receiver) = mpsc::channel(WAITING);
        let entry = Entry { data: (!fin).then_some(data), window: window.clone(), open: true };
        self.shared.streams().insert(stream, entry);
        // Clients drop what comes before the answer.
        self.shared.say(Frame::Reply { stream, fin: false, headers: Headers::new() }).await?;
        let shared = &self.shared;
        let incoming = Incoming {
            headers,
            reader: StreamReader { stream, data: receiver, shared: shared.clone(), owed: 0 },
            writer: StreamWriter { stream, window, shared: shared.clone() },
        };
        if sender.send(incoming).await.is_err() {
            self.shared.forget(stream);
            return self.reset(stream, Reset::Refused).await;
        }
        Ok(())
    }

    async fn data(&mut self, stream: u32, fin: bool, data: Bytes) -> Result<(), Error> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let sender = self.shared.streams().get(&stream).map(|entry| entry.data.clone());
        match sender {
            Some(Some(sender)) if length > 0 => {
                let unwanted = sender.send(data).await.is_err();
                if unwanted {
                    // Nobody reads it any more: the peer must not wait for its window.
                    self.shared.say(Frame::WindowUpdate { stream, more: length }).await?;
                }
            }
            Some(Some(_)) => {}
            Some(None) => {
                self.shared.forget(stream);
                self.reset(stream, Reset::Protocol).await?;
            }
            None if stream > self.last || stream.is_multiple_of(2) => {
                self.reset(stream, Reset::InvalidStream).await?;
            }
            // It was reset, and the peer had not heard.
            None => {}
        }
        self.owed = self.owed.saturating_add(length);
        if self.owed >= CREDIT {
            let more = std::mem::take(&mut self.owed);
            self.shared.say(Frame::WindowUpdate { stream: 0, more }).await?;
        }
        if fin {
            let mut streams = self.shared.streams();
            if let Some(entry) = streams.get_mut(&stream) {
                entry.data = None;
                if !entry.open {
                    streams.remove(&stream);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
