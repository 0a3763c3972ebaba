//! Watches on etcd: one gRPC stream each, its responses cut into one batch per revision.
//!
//! Fragments are not asked for: a response then always holds whole revisions.

use std::collections::VecDeque;
use std::time::Duration;

use etcd_client::{
    EventType, WatchClient, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures::StreamExt;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::convert::{Keys, from_etcd, revision_of, to_etcd};
use super::failure;
use crate::{Batch, Change, Error, Result, Revision, WatchMessage, WatchStream, prefix_end};

/// How long an etcd that is hasty with progress must say nothing before its word is taken.
const SETTLE: Duration = Duration::from_millis(500);

struct Watch {
    keys: Keys,
    after: Revision,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    asked: broadcast::Receiver<()>,
    /// The store's handle is gone: nobody asks for progress any more.
    asked_closed: bool,
    hasty: bool,
    /// Progress of a hasty etcd, and when it may be believed.
    held: Option<(Revision, Instant)>,
    ready: VecDeque<WatchMessage>,
}

pub(super) async fn open(
    mut client: WatchClient,
    keys: Keys,
    prefix: &str,
    after: Revision,
    asked: broadcast::Receiver<()>,
    hasty: bool,
) -> Result<WatchStream> {
    let start = keys.outer(prefix);
    let end = prefix_end(&start);
    let mut options = WatchOptions::new().with_prev_key().with_progress_notify();
    options = if end.is_empty() { options.with_from_key() } else { options.with_range(end) };
    if after != 0 {
        options = options.with_start_revision(to_etcd(after + 1)?);
    }
    let stream = client.watch(start, Some(options)).await.map_err(|e| failure::of_read(&e, after))?;
    let (requests, responses) = stream.split();
    let mut watch = Watch {
        keys,
        after,
        requests,
        responses,
        asked,
        asked_closed: false,
        hasty,
        held: None,
        ready: VecDeque::new(),
    };
    // The first response says that the watch is there, so that what is written from now on is seen.
    watch.receive().await?;
    let stream = futures::stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(stream.boxed())
}

impl Watch {
    async fn next(&mut self) -> Result<WatchMessage> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(message);
            }
            let settled = self.held.map(|(_, at)| at);
            tokio::select! {
                // Cancel-safe: a response is taken whole or not at all.
                response = self.responses.message() => {
                    let response = response.map_err(|e| failure::of_read(&e, self.after))?;
                    self.take(&response.ok_or_else(ended)?)?;
                }
                // Cancel-safe: what was not received stays queued.
                asked = self.asked.recv(), if !self.asked_closed => match asked {
                    Ok(()) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        let outcome = self.requests.request_progress().await;
                        outcome.map_err(|e| failure::of_read(&e, self.after))?;
                    }
                    Err(broadcast::error::RecvError::Closed) => self.asked_closed = true,
                },
                () = tokio::time::sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => {
                    if let Some((revision, _)) = self.held.take() {
                        return Ok(WatchMessage::Progress(revision));
                    }
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<()> {
        let response = self.responses.message().await.map_err(|e| failure::of_read(&e, self.after))?;
        self.take(&response.ok_or_else(ended)?)
    }

    fn take(&mut self, response: &WatchResponse) -> Result<()> {
        if response.compact_revision() > 0 {
            let oldest = from_etcd(response.compact_revision());
            return Err(Error::Compacted { asked: self.after, oldest });
        }
        if response.canceled() {
            return Err(Error::Unavailable(format!("etcd ended the watch: {}", response.cancel_reason())));
        }
        if response.created() {
            return Ok(());
        }
        if response.events().is_empty() {
            let revision = revision_of(response.header())?;
            if self.hasty {
                // Asked again and again it must still be said once: the first moment counts.
                let at = self.held.map_or_else(|| Instant::now() + SETTLE, |(_, at)| at);
                self.held = Some((self.held.map_or(revision, |(first, _)| first), at));
            } else {
                self.ready.push_back(WatchMessage::Progress(revision));
            }
            return Ok(());
        }
        let mut batch: Option<Batch> = None;
        for event in response.events() {
            let kv =
                event.kv().ok_or_else(|| Error::Unavailable("etcd sent an event without a key".into()))?;
            let pair = self.keys.pair(kv)?;
            let previous = event.prev_kv().map(|kv| self.keys.pair(kv)).transpose()?;
            let revision = pair.mod_revision;
            let change = match event.event_type() {
                EventType::Put => Change::Put { kv: pair, previous },
                EventType::Delete => Change::Delete { key: pair.key, previous },
            };
            match &mut batch {
                Some(batch) if batch.revision == revision => batch.changes.push(change),
                _ => {
                    let done = batch.replace(Batch { revision, changes: vec![change] });
                    self.ready.extend(done.map(WatchMessage::Batch));
                }
            }
            self.after = self.after.max(revision);
        }
        self.ready.extend(batch.map(WatchMessage::Batch));
        // Events came late: what was held back waits for quiet again.
        if let Some((_, at)) = &mut self.held {
            *at = Instant::now() + SETTLE;
        }
        Ok(())
    }
}

fn ended() -> Error {
    Error::Unavailable("etcd closed the watch".into())
}
