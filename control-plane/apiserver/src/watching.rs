//! Watch streams: frames for one client, encoded once for all of them where the form allows.

use std::convert::Infallible;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_machinery::codec;
use skep_machinery::table::{self, IncludeObject};
use skep_registry::cache::{Seen, WatchItem, json_frame};
use skep_registry::custom::Stream;
use skep_registry::strategy::Kind;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::Watching;
use crate::negotiate::{Encoding, Form, Shape};
use crate::respond::{Answer, encode, kind_of};
use crate::shapes;

/// Frames are sent together up to this size.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Turns items into frames.
pub(crate) struct Framer {
    form: Form,
    kind: Kind,
    include: IncludeObject,
    /// The columns have been told.
    headed: bool,
}

impl Framer {
    /// Frames of one kind in one form.
    pub(crate) fn new(form: Form, kind: Kind, include: IncludeObject) -> Self {
        Self { form, kind, include, headed: false }
    }

    /// Are its frames text?
    pub(crate) fn is_text(&self) -> bool {
        self.form.encoding != Encoding::Protobuf
    }

    fn content_type(&self) -> &'static str {
        match self.form.encoding {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Encoding::Json | Encoding::Yaml => "application/json",
        }
    }

    fn frame(&mut self, item: &WatchItem) -> Bytes {
        match item {
            WatchItem::Event(seen) => self.event(seen),
            WatchItem::Bookmark { revision, initial_end } => {
                let gvk = self.kind.gvk();
                let mut object = json!({
                    "kind": gvk.kind,
                    "apiVersion": gvk.api_version(),
                    "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
                });
                if *initial_end {
                    object["metadata"]["annotations"] = json!({
                        "k8s.io/initial-events-end": "true",
                        "kubernetes.io/initial-events-list-blueprint": self.blueprint(),
                    });
                }
                self.value("BOOKMARK", &object)
            }
            WatchItem::Failed(error) => self.error(error),
        }
    }

    fn event(&mut self, seen: &Seen) -> Bytes {
        match (self.form.shape, self.form.encoding) {
            (Shape::Object, Encoding::Json | Encoding::Yaml) => match &seen.event {
                Some(event) => event.json_frame(),
                None => json_frame(seen.kind, &seen.object.json()),
            },
            (Shape::Object, Encoding::Protobuf) => {
                let kind = self.kind.gvk();
                let encode = || match seen.object.protobuf(&kind) {
                    Some(message) => {
                        let sealed = codec::seal_protobuf(&kind, &message);
                        codec::watch_frame_protobuf(seen.kind.as_str(), &sealed).into()
                    }
                    None => Bytes::new(),
                };
                match &seen.event {
                    Some(event) => event.frame(self.number(), encode),
                    None => encode(),
                }
            }
            (Shape::Table | Shape::Metadata, _) => match &seen.event {
                // The first frame of a table has the columns: it is this watcher's alone.
                Some(event) if self.headed || self.form.shape == Shape::Metadata => {
                    event.frame(self.number(), || self.value(seen.kind.as_str(), &seen.object.value))
                }
                _ => self.value(seen.kind.as_str(), &seen.object.value),
            },
        }
    }

    /// The number of this form, under which events keep their frames.
    fn number(&self) -> u16 {
        let encoding = match self.form.encoding {
            Encoding::Json | Encoding::Yaml => 0,
            Encoding::Protobuf => 1,
        };
        let shape = match self.form.shape {
            Shape::Object => 0,
            Shape::Metadata => 1,
            Shape::Table => 2,
        };
        let version = match self.form.version {
            table::MetaVersion::V1 => 0,
            table::MetaVersion::V1Beta1 => 1,
        };
        let include = match self.include {
            IncludeObject::None => 0,
            IncludeObject::Metadata => 1,
            IncludeObject::Object => 2,
        };
        encoding | shape << 2 | version << 4 | include << 5
    }

    /// A frame around an object in the client's shape.
    fn value(&mut self, kind: &str, object: &Value) -> Bytes {
        let shaped = match self.form.shape {
            Shape::Object => None,
            Shape::Metadata => Some(table::partial_metadata(object, self.form.version)),
            Shape::Table => {
                let rows = shapes::rows(&self.kind, std::iter::once(object), self.form.version, self.include);
                let headed = !std::mem::replace(&mut self.headed, true);
                let metadata = json!({"resourceVersion": shapes::version_of(object)});
                Some(shapes::table(&self.kind, headed, metadata, rows, self.form.version))
            }
        };
        self.raw(kind, shaped.as_ref().unwrap_or(object))
    }

    /// An empty list in the form of the watch, in base64: clients put into it what they were told, and read it as
    /// they read lists.
    fn blueprint(&self) -> String {
        let Form { shape, version, .. } = self.form;
        let kind = self.kind.list_kind();
        let list = match shape {
            Shape::Object => json!({
                "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": {}, "items": [],
            }),
            Shape::Metadata => table::partial_metadata_list(json!({}), [], version),
            Shape::Table => table::table(json!({}), None, Vec::new(), version),
        };
        let encoding = if self.is_text() { Encoding::Json } else { Encoding::Protobuf };
        encode(encoding, &kind_of(&list), &list).map(|list| STANDARD.encode(list)).unwrap_or_default()
    }

    fn raw(&self, kind: &str, object: &Value) -> Bytes {
        if self.form.encoding == Encoding::Protobuf {
            return match encode(Encoding::Protobuf, &kind_of(object), object) {
                Ok(sealed) => codec::watch_frame_protobuf(kind, &sealed).into(),
                Err(_) => Bytes::new(),
            };
        }
        codec::watch_frame_json(kind, object.to_string().as_bytes()).into()
    }

    /// The frame that tells of an error and ends the watch.
    fn error(&self, error: &ApiError) -> Bytes {
        let status = serde_json::to_value(error.to_status()).unwrap_or_else(|_| json!({}));
        let mut status = status;
        status["kind"] = json!("Status");
        status["apiVersion"] = json!("v1");
        self.raw("ERROR", &status)
    }
}

/// A stream that only tells of an error: how a watch from a forgotten revision answers.
pub(crate) fn failed(framer: &Framer, error: &ApiError) -> Answer {
    let mut answer = Response::new(Body::from(framer.error(error)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(framer.content_type()));
    answer
}

struct State {
    watch: Stream,
    framer: Framer,
    deadline: Instant,
    cancel: CancellationToken,
    /// Tells the connection that it carries a watch.
    _watching: Option<Watching>,
}

/// The stream of a watch. It ends at its deadline, when the watcher was too slow, or with the server.
/// `chunk`: events are sent together up to this size; 0 sends each by itself.
pub(crate) fn stream(
    watch: Stream,
    framer: Framer,
    deadline: Instant,
    cancel: CancellationToken,
    chunk: usize,
    watching: Option<Watching>,
) -> Answer {
    let content_type = framer.content_type();
    let state = State { watch, framer, deadline, cancel, _watching: watching };
    let frames = stream::unfold(state, move |mut state| async move {
        let item = tokio::select! {
            // What is cancelled is not needed any more: the stream ends.
            biased;
            () = state.cancel.cancelled() => None,
            item = state.watch.next() => item,
            () = tokio::time::sleep_until(state.deadline) => None,
        }?;
        let first = state.framer.frame(&item);
        let mut size = first.len();
        let mut more = Vec::new();
        while size < chunk {
            let Some(item) = state.watch.try_next() else { break };
            let frame = state.framer.frame(&item);
            size += frame.len();
            more.push(frame);
        }
        let frames = if more.is_empty() {
            first
        } else {
            let mut joined = BytesMut::with_capacity(size);
            joined.extend_from_slice(&first);
            more.iter().for_each(|frame| joined.extend_from_slice(frame));
            joined.freeze()
        };
        Some((Ok::<_, Infallible>(frames), state))
    });
    let mut answer = Response::new(Body::from_stream(frames));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
