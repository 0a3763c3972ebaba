//! Answers: objects, lists and errors in the form the client asked for.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionKind;
use skep_machinery::codec;
use skep_machinery::table::{self, IncludeObject};
use skep_registry::cache::{List, Object};
use skep_registry::strategy::Kind;

use crate::negotiate::{Encoding, Form, Shape};
use crate::shapes;

/// What an answer becomes.
pub type Answer = Response<Body>;

/// Answers shorter than this are not worth compressing.
const COMPRESS_FROM: usize = 128 * 1024;

/// An answer of these bytes.
pub fn bytes(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::from(body.into()));
    *answer.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(content_type) {
        answer.headers_mut().insert(CONTENT_TYPE, value);
    }
    answer
}

/// An answer of plain text.
pub fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    bytes(status, "text/plain; charset=utf-8", body.into())
}

/// An answer of JSON.
pub fn json(status: StatusCode, value: &Value) -> Answer {
    bytes(status, "application/json", value.to_string())
}

/// An error as a `Status`, in the encoding the client asked for.
pub fn error(error: &ApiError, encoding: Encoding) -> Answer {
    let status = serde_json::to_value(error.to_status()).unwrap_or_else(|_| json!({}));
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = GroupVersionKind::new("", "v1", "Status");
    let mut answer = match encode(encoding, &kind, &status) {
        Ok(body) => bytes(code, encoding.media_type(), body),
        Err(_) => json(code, &status),
    };
    let seconds = error.details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Encodes one object.
pub fn encode(encoding: Encoding, kind: &GroupVersionKind, value: &Value) -> Result<Bytes, ApiError> {
    Ok(match encoding {
        Encoding::Json => Bytes::from(value.to_string()),
        Encoding::Yaml => codec::encode_yaml(value).map_err(ApiError::from)?.into(),
        Encoding::Protobuf => codec::encode_protobuf(kind, value).map_err(ApiError::from)?.into(),
    })
}

/// The kind of a value, by its own word.
pub fn kind_of(value: &Value) -> GroupVersionKind {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    GroupVersionKind::from_api_version(text("apiVersion"), text("kind"))
}

/// An object, perhaps as a table or as bare metadata.
pub fn value(
    status: StatusCode,
    form: &Form,
    kind: Option<&Kind>,
    value: &Value,
    include: IncludeObject,
) -> Result<Answer, ApiError> {
    let shaped = match (form.shape, kind) {
        (Shape::Table, Some(kind)) => {
            let rows = shapes::rows(kind, std::iter::once(value), form.version, include);
            let metadata = json!({"resourceVersion": shapes::version_of(value)});
            Some(shapes::table(kind, true, metadata, rows, form.version))
        }
        (Shape::Metadata, _) => Some(table::partial_metadata(value, form.version)),
        _ => None,
    };
    let value = shaped.as_ref().unwrap_or(value);
    let body = encode(form.encoding, &kind_of(value), value)?;
    Ok(bytes(status, &form.content_type(), body))
}

/// A cached object; its own encoding is shared.
pub fn object(form: &Form, kind: &Kind, object: &Object, include: IncludeObject) -> Result<Answer, ApiError> {
    if form.shape == Shape::Object {
        if form.encoding == Encoding::Json {
            return Ok(bytes(StatusCode::OK, &form.content_type(), object.json()));
        }
        let gvk = kind.gvk();
        if let Some(message) = object.protobuf(&gvk).filter(|_| form.encoding == Encoding::Protobuf) {
            let sealed = codec::seal_protobuf(&gvk, &message);
            return Ok(bytes(StatusCode::OK, &form.content_type(), sealed));
        }
    }
    value(StatusCode::OK, form, Some(kind), &object.value, include)
}

/// A list; the encodings of its items are shared.
pub fn list(form: &Form, of: &Kind, list: &List, include: IncludeObject) -> Result<Answer, ApiError> {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        metadata["continue"] = json!(list.continue_token);
        if let Some(remaining) = list.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    let kind = of.list_kind();
    let values = || list.items.iter().map(|object| &*object.value);
    let body: Bytes = match (form.shape, form.encoding) {
        (Shape::Object, Encoding::Json) => json_list(&kind, &metadata, &list.items).into(),
        (Shape::Object, Encoding::Protobuf) => protobuf_list(&kind, &of.gvk(), &metadata, &list.items)?,
        (shape, encoding) => {
            let whole = match shape {
                Shape::Table => {
                    let rows = shapes::rows(of, values(), form.version, include);
                    shapes::table(of, true, metadata, rows, form.version)
                }
                Shape::Metadata => table::partial_metadata_list(metadata, values(), form.version),
                Shape::Object => json!({
                    "kind": kind.kind,
                    "apiVersion": kind.api_version(),
                    "metadata": metadata,
                    "items": values().collect::<Vec<_>>(),
                }),
            };
            encode(encoding, &kind_of(&whole), &whole)?
        }
    };
    Ok(bytes(StatusCode::OK, &form.content_type(), body))
}

fn json_list(kind: &GroupVersionKind, metadata: &Value, items: &[Arc<Object>]) -> Vec<u8> {
    let encoded: Vec<Bytes> = items.iter().map(|object| object.json()).collect();
    let size: usize = encoded.iter().map(|item| item.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        kind.kind,
        kind.api_version()
    );
    body.extend_from_slice(head.as_bytes());
    for (index, item) in encoded.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(b"]}");
    body
}

fn protobuf_list(
    kind: &GroupVersionKind,
    item_kind: &GroupVersionKind,
    metadata: &Value,
    items: &[Arc<Object>],
) -> Result<Bytes, ApiError> {
    let encoded: Option<Vec<Bytes>> = items.iter().map(|object| object.protobuf(item_kind)).collect();
    let encoded =
        encoded.ok_or_else(|| ApiError::not_acceptable(&["application/json", "application/yaml"]))?;
    let body = codec::encode_protobuf_list(kind, metadata, encoded.iter().map(AsRef::as_ref));
    Ok(body.map_err(ApiError::from)?.into())
}

/// Compresses a long body when the client takes gzip. Streams pass unchanged.
pub async fn compress(request: &HeaderMap, answer: Answer) -> Answer {
    use http_body::Body as _;
    let takes = request
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let quality = parameters.split(';').find_map(|one| one.trim().strip_prefix("q="));
            // What can't be read says nothing against it.
            let refused = quality.is_some_and(|quality| quality.parse::<f32>().is_ok_and(|q| q <= 0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        });
    let long = answer.body().size_hint().exact().is_some_and(|size| size >= COMPRESS_FROM as u64);
    if !takes || !long || answer.headers().contains_key(CONTENT_ENCODING) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(plain) = axum::body::to_bytes(body, usize::MAX).await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be read");
    };
    let source = plain.clone();
    // Megabytes take milliseconds: not on a thread that serves others.
    let packed = tokio::task::spawn_blocking(move || {
        let mut encoder = GzEncoder::new(Vec::with_capacity(source.len() / 4), Compression::fast());
        encoder.write_all(&source).and_then(|()| encoder.finish())
    })
    .await;
    match packed {
        Ok(Ok(packed)) => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, Body::from(packed))
        }
        _ => Response::from_parts(parts, Body::from(plain)),
    }
}
