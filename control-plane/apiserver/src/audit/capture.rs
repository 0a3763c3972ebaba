//! What was sent and what was answered, as far as the level wants it.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_auth::audit::{Level, Stage};
use skep_machinery::codec::{self, FieldValidation};

use super::Record;
use crate::input;
use crate::respond::Answer;

/// No larger object is written down.
const LARGEST: usize = 1 << 20;

/// An object as it is written down; what can't be read is left out.
fn object(content_type: &str, bytes: &Bytes, omit_managed_fields: bool) -> Option<Value> {
    if bytes.is_empty() || bytes.len() > LARGEST {
        return None;
    }
    let mut value = match codec::decode(content_type, bytes, None, FieldValidation::Ignore) {
        Ok(decoded) => decoded.object,
        // Patches and the like are no objects of a kind.
        Err(_) => serde_json::from_slice(bytes).ok()?,
    };
    if omit_managed_fields {
        strip(&mut value);
        if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
            items.iter_mut().for_each(strip);
        }
    }
    Some(value)
}

fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json")
}

/// Reads the body of a request into the record; the same body again.
pub(crate) async fn asked(record: &Record, headers: &HeaderMap, body: Body) -> Result<Body, ApiError> {
    if record.level() < Level::Request {
        return Ok(body);
    }
    let bytes = input::body(body).await?;
    let omit = record.lock().verdict.omit_managed_fields;
    if let Some(object) = object(content_type(headers), &bytes, omit) {
        record.put("requestObject", object);
    }
    Ok(Body::from(bytes))
}

/// Writes down how a request ended. A stream's record ends with the stream.
pub(crate) async fn answered(record: Record, answer: Answer, stream: bool) -> Answer {
    let status = answer.status();
    let mut told = json!({"metadata": {}, "code": status.as_u16()});
    if stream && (status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS) {
        record.put("responseStatus", told);
        record.stage(Stage::ResponseStarted);
        let (parts, body) = answer.into_parts();
        return Answer::from_parts(parts, Body::new(Watched { body, _end: End(record) }));
    }
    let wants = record.level() >= Level::RequestResponse;
    if !wants && status.is_success() {
        record.put("responseStatus", told);
        record.stage(Stage::ResponseComplete);
        return answer;
    }
    let (parts, body) = answer.into_parts();
    // Ours, and in memory already.
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            tracing::debug!(%error, "an answer could not be read for the audit log");
            Bytes::new()
        }
    };
    let omit = record.lock().verdict.omit_managed_fields;
    let found = object(content_type(&parts.headers), &bytes, omit);
    if !status.is_success() {
        told["status"] = "Failure".into();
        for field in ["message", "reason", "details"] {
            if let Some(value) = found.as_ref().and_then(|found| found.get(field)) {
                told[field] = value.clone();
            }
        }
    }
    record.put("responseStatus", told);
    if let Some(object) = found.filter(|_| wants) {
        record.put("responseObject", object);
    }
    record.stage(Stage::ResponseComplete);
    Answer::from_parts(parts, Body::from(bytes))
}

/// Tells the end of a stream, however it comes.
struct End(Record);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stage(Stage::ResponseComplete);
    }
}

struct Watched {
    body: Body,
    _end: End,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
