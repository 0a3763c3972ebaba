//! One connection: what its requests can ask of it, and the end of one whose client does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// A client of a watch that takes no byte for so long is gone or stuck.
const STALLED: Duration = Duration::from_secs(60);

/// The connection of a request; in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    watches: AtomicUsize,
    leave: Notify,
}

/// A watch on a connection; the connection is cut when its client stalls.
#[derive(Debug)]
pub(crate) struct Watching(Connection);

impl Connection {
    /// Tells the client to make its next requests elsewhere (GOAWAY); those under way go on.
    pub(crate) fn send_away(&self) {
        self.0.leave.notify_one();
    }

    /// Completes when the client is to be sent away.
    pub(crate) async fn sent_away(&self) {
        self.0.leave.notified().await;
    }

    /// A watch begins.
    pub(crate) fn watching(&self) -> Watching {
        self.0.watches.fetch_add(1, Ordering::Relaxed);
        Watching(self.clone())
    }

    fn has_watches(&self) -> bool {
        self.0.watches.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose writes fail when the client of a watch takes nothing for too long. Streams that are
/// no watches (logs, exec) may pause as long as they like.
pub(crate) struct Guarded<S> {
    stream: S,
    connection: Connection,
    limit: Duration,
    /// Armed while a write waits.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// Guards a stream.
    pub(crate) fn new(stream: S, connection: Connection) -> Self {
        Self { stream, connection, limit: STALLED, alarm: None }
    }

    /// What a write came to; one that waits too long fails.
    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.alarm = None;
            return outcome;
        }
        let limit = self.limit;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if alarm.as_mut().poll(cx).is_ready() {
            if self.connection.has_watches() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")));
            }
            alarm.as_mut().reset(Instant::now() + limit);
            // Registers the waker for the next round.
            let _ = alarm.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_stalled_watch_is_cut() {
        let (near, far) = tokio::io::duplex(8);
        let connection = Connection::default();
        let mut stream = Guarded::new(near, connection.clone());
        let log = tokio::time::timeout(STALLED * 5, stream.write_all(&[0; 64])).await;
        assert!(log.is_err(), "a log waits");
        let watching = connection.watching();
        let cut = tokio::time::timeout(STALLED * 3, stream.write_all(&[0; 64])).await;
        assert_eq!(cut.expect("in time").expect_err("cut").kind(), io::ErrorKind::TimedOut);
        drop((watching, far));
    }
}
