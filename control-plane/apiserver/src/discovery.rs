//! Discovery: the old documents, one a version, and the aggregated one with its ETag.

use bytes::Bytes;
use http::header::{ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use skep_api::error::ApiError;
use skep_machinery::discovery::{self, Aggregated};
use skep_machinery::kind::KindInfo;
use skep_machinery::openapi;
use skep_machinery::table::IncludeObject;

use crate::negotiate::{self, Clause, Offer};
use crate::respond::{self, Answer};
use crate::server::Inner;

/// Answers a discovery path; `None` when it is none.
pub(crate) async fn handle(
    inner: &Inner,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Answer, ApiError>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if !matches!(parts.first(), Some(&("api" | "apis"))) {
        return None;
    }
    // Whoever has seen a resource established finds it here.
    if let Err(error) = inner.registry.definitions_settled().await {
        return Some(Err(error));
    }
    let snapshot = inner.published.snapshot(&inner.registry);
    let kinds = snapshot.kinds();
    match parts.as_slice() {
        ["api"] => Some(root(inner, headers, kinds, true)),
        ["apis"] => Some(root(inner, headers, kinds, false)),
        ["api", version] => {
            discovery::api_resource_list("", version, kinds).map(|list| plain(headers, &list))
        }
        ["apis", group] => {
            let local = discovery::api_group(group, kinds);
            inner.aggregator.group(group, local).map(|group| plain(headers, &group))
        }
        ["apis", group, version] if !group.is_empty() => {
            discovery::api_resource_list(group, version, kinds).map(|list| plain(headers, &list))
        }
        _ => None,
    }
}

fn plain(headers: &HeaderMap, value: &Value) -> Result<Answer, ApiError> {
    let form = negotiate::form(headers, Offer { shapes: false, protobuf: true })?;
    respond::value(StatusCode::OK, &form, None, value, IncludeObject::None)
}

/// `/api` and `/apis`: aggregated if the client can read that.
fn root(inner: &Inner, headers: &HeaderMap, kinds: &[KindInfo], core: bool) -> Result<Answer, ApiError> {
    let wanted = negotiate::accepted(headers).into_iter().find_map(|clause| aggregated_version(&clause));
    let mut answer = match wanted {
        Some(version) => aggregated(inner, headers, kinds, core, version),
        None if core => plain(headers, &discovery::api_versions(&inner.address))?,
        None => plain(headers, &inner.aggregator.group_list(discovery::api_group_list(kinds)))?,
    };
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

fn aggregated_version(clause: &Clause) -> Option<Aggregated> {
    let ours = clause.media_type == "application/json"
        && clause.parameter("g") == Some("apidiscovery.k8s.io")
        && clause.parameter("as") == Some("APIGroupDiscoveryList");
    match clause.parameter("v").filter(|_| ours)? {
        "v2" => Some(Aggregated::V2),
        "v2beta1" => Some(Aggregated::V2Beta1),
        _ => None,
    }
}

fn aggregated(
    inner: &Inner,
    headers: &HeaderMap,
    kinds: &[KindInfo],
    core: bool,
    version: Aggregated,
) -> Answer {
    let mut document = discovery::aggregated(kinds, core, version);
    if !core {
        document = inner.aggregator.aggregated(document);
    }
    let body = document.to_string();
    cacheable(headers, &version.content_type(), body.into_bytes())
}

/// A document with an ETag; 304 when the client has it.
pub(crate) fn cacheable(headers: &HeaderMap, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    let etag = format!("\"{}\"", openapi::hash(&body));
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut answer = if known.is_some_and(|known| known.trim_start_matches("W/") == etag) {
        respond::bytes(StatusCode::NOT_MODIFIED, content_type, "")
    } else {
        respond::bytes(StatusCode::OK, content_type, body)
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer
}
