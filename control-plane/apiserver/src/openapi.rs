//! `/openapi/v3` and `/openapi/v2`. The documents are made when the first client asks, for most servers never see
//! one, and are kept compressed, as clients want them: they are some megabytes of text that repeats itself.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, IF_NONE_MATCH, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use skep_api::error::ApiError;
use skep_machinery::openapi::{self, V2_PROTOBUF, V2_PROTOBUF_ANSWER, V3_PROTOBUF, V3_PROTOBUF_ANSWER};

use crate::discovery::cacheable;
use crate::negotiate;
use crate::published::{Packed, Snapshot};
use crate::respond::{self, Answer};
use crate::server::Inner;

/// What a client may do with a document whose address carries its hash.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, immutable, max-age=31536000");

/// Answers an OpenAPI path; `None` when it is none.
pub(crate) async fn handle(
    inner: &Arc<Inner>,
    path: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Option<Result<Answer, ApiError>> {
    let rest = path.strip_prefix("/openapi/")?.to_owned();
    if let Err(error) = inner.registry.definitions_settled().await {
        return Some(Err(error));
    }
    let wants = |media: &str| negotiate::accepted(headers).iter().any(|clause| clause.media_type == media);
    let protobuf = (wants(V2_PROTOBUF), wants(V3_PROTOBUF));
    let (headers, hash) = (headers.clone(), query.and_then(hash_of).map(str::to_owned));
    let inner = inner.clone();
    // Making the documents takes a while: not on a thread that serves others.
    let made =
        tokio::task::spawn_blocking(move || document(&inner, &rest, protobuf, hash.as_deref(), &headers));
    match made.await {
        Ok(found) => found,
        Err(error) => Some(Err(ApiError::internal(error))),
    }
}

/// The hash a client has from the index.
fn hash_of(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("hash="))
}

fn document(
    inner: &Inner,
    path: &str,
    (v2_protobuf, v3_protobuf): (bool, bool),
    hash: Option<&str>,
    headers: &HeaderMap,
) -> Option<Result<Answer, ApiError>> {
    let snapshot = inner.published.snapshot(&inner.registry);
    match path {
        "v2" if inner.aggregator.has_openapi_v2() => Some(merged(inner, &snapshot, v2_protobuf, headers)),
        "v2" if v2_protobuf => Some(answer(headers, V2_PROTOBUF_ANSWER, &snapshot.v2().1, false)),
        "v2" => Some(answer(headers, "application/json", &snapshot.v2().0, false)),
        "v3" => {
            let index = inner.aggregator.openapi_v3_index(&snapshot.v3_index());
            Some(Ok(cacheable(headers, "application/json", index)))
        }
        path => {
            let path = path.strip_prefix("v3/")?;
            let packed = snapshot.v3(path)?;
            if hash.is_some_and(|hash| hash != packed.hash) {
                return Some(moved(path, packed));
            }
            Some(if v3_protobuf {
                protobuf(headers, packed, hash.is_some())
            } else {
                answer(headers, "application/json", packed, hash.is_some())
            })
        }
    }
}

/// The v2 document with those of extension servers, which are kept as they came.
fn merged(
    inner: &Inner,
    snapshot: &Snapshot,
    protobuf: bool,
    headers: &HeaderMap,
) -> Result<Answer, ApiError> {
    let (json, message) = snapshot.v2();
    let local = || Ok((json.unpacked()?.into(), message.unpacked()?.into()));
    let (json, message) = inner.aggregator.openapi_v2(&json.hash, local)?;
    Ok(if protobuf {
        cacheable(headers, V2_PROTOBUF_ANSWER, message)
    } else {
        cacheable(headers, "application/json", json)
    })
}

/// The client has the address of an older document.
fn moved(path: &str, packed: &Packed) -> Result<Answer, ApiError> {
    let mut answer = respond::bytes(StatusCode::MOVED_PERMANENTLY, "text/plain", "");
    let address = openapi::v3_address(path, &packed.hash);
    let address = HeaderValue::from_str(&address).map_err(ApiError::internal)?;
    answer.headers_mut().insert(LOCATION, address);
    Ok(answer)
}

/// The protobuf form is asked for so rarely that it is made each time.
fn protobuf(headers: &HeaderMap, packed: &Packed, for_ever: bool) -> Result<Answer, ApiError> {
    let document: Value = serde_json::from_slice(&packed.unpacked()?).map_err(ApiError::internal)?;
    let made = Packed::new(&openapi::v3_protobuf(&document));
    answer(headers, V3_PROTOBUF_ANSWER, &made, for_ever)
}

fn answer(
    headers: &HeaderMap,
    content_type: &str,
    packed: &Packed,
    for_ever: bool,
) -> Result<Answer, ApiError> {
    let etag = format!("\"{}\"", packed.hash);
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut answer = if known.is_some_and(|known| known.trim_start_matches("W/") == etag) {
        respond::bytes(StatusCode::NOT_MODIFIED, content_type, "")
    } else if takes_gzip(headers) {
        let mut answer = respond::bytes(StatusCode::OK, content_type, packed.gzip.clone());
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        answer
    } else {
        respond::bytes(StatusCode::OK, content_type, packed.unpacked()?)
    };
    let into = answer.headers_mut();
    into.insert(ETAG, HeaderValue::from_str(&etag).map_err(ApiError::internal)?);
    into.append(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if for_ever {
        into.insert(CACHE_CONTROL, FOR_EVER);
    }
    Ok(answer)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted
        .split(',')
        .map(str::trim)
        .any(|coding| coding.starts_with("gzip") && !coding.replace(' ', "").ends_with(";q=0"))
}
