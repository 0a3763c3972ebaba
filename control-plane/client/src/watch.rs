//! Watch streams: one JSON frame a line. An ERROR frame ends the stream as `Error::Api`.

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use futures::stream;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::Body;
use crate::error::{Error, Result};
use crate::kind::{PartialObject, Stored};

/// More than any legal object.
const MAX_FRAME: usize = 16 << 20;
/// How a server marks the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A change seen by a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    /// The object came (or came into the selection).
    Added(K),
    /// It changed.
    Modified(K),
    /// It went (or left the selection); its last state.
    Deleted(K),
    /// Nothing changed up to here.
    Bookmark {
        /// Where a new watch may start.
        resource_version: String,
        /// The initial events end here.
        initial_events_end: bool,
    },
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

pub(crate) fn events<K: Stored>(
    body: Body,
    what: String,
) -> impl Stream<Item = Result<WatchEvent<K>>> + Send {
    let state = Some((Lines { body, buffer: BytesMut::new(), scanned: 0 }, what));
    stream::unfold(state, |state| async move {
        let (mut lines, what) = state?;
        match lines.next().await {
            Ok(None) => None,
            Ok(Some(line)) => match decode(&line, &what) {
                Ok(event) => Some((Ok(event), Some((lines, what)))),
                Err(e) => Some((Err(e), None)),
            },
            Err(e) => Some((Err(e), None)),
        }
    })
}

fn decode<K: Stored>(line: &[u8], what: &str) -> Result<WatchEvent<K>> {
    let bad = |source| Error::Decode { what: what.to_owned(), source };
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(bad)?;
    let object = frame.object.get();
    Ok(match frame.kind {
        "ADDED" => WatchEvent::Added(serde_json::from_str(object).map_err(bad)?),
        "MODIFIED" => WatchEvent::Modified(serde_json::from_str(object).map_err(bad)?),
        "DELETED" => WatchEvent::Deleted(serde_json::from_str(object).map_err(bad)?),
        "BOOKMARK" => {
            // A bookmark's object is empty but for its metadata: required fields may be missing.
            let object: PartialObject = serde_json::from_str(object).map_err(bad)?;
            let annotations = object.metadata.annotations.unwrap_or_default();
            WatchEvent::Bookmark {
                resource_version: object.metadata.resource_version.unwrap_or_default(),
                initial_events_end: annotations.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true"),
            }
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(object).map_err(bad)?;
            return Err(Error::Api(Box::new(status)));
        }
        other => {
            let message = format!("watch event of unknown type {other:?}");
            return Err(bad(serde::de::Error::custom(message)));
        }
    })
}

/// Splits a body into lines.
struct Lines {
    body: Body,
    buffer: BytesMut,
    scanned: usize,
}

impl Lines {
    /// The next line that is not blank. A half line at the end of the stream is dropped: the
    /// connection broke inside a frame.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.scanned + at).freeze();
                self.buffer.advance(1);
                self.scanned = 0;
                if line.iter().any(|b| !b.is_ascii_whitespace()) {
                    return Ok(Some(line));
                }
                continue;
            }
            self.scanned = self.buffer.len();
            if self.scanned > MAX_FRAME {
                return Err(Error::TooLarge(MAX_FRAME));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(Error::Transport(e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
