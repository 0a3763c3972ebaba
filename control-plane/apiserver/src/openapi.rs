//! `/openapi/v3` and `/openapi/v2`. The documents are made when the first client asks, for most servers
//! never see one.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::HeaderMap;
use skep_api::error::ApiError;
use skep_machinery::openapi::{self, V2_PROTOBUF, V2_PROTOBUF_ANSWER};

use crate::discovery::{KINDS, cacheable};
use crate::negotiate;
use crate::respond::Answer;
use crate::server::Inner;
use crate::version::VERSION;

static V3: LazyLock<BTreeMap<String, Bytes>> = LazyLock::new(|| {
    let documents = openapi::v3_all(&KINDS, VERSION);
    documents.into_iter().map(|(path, document)| (path, Bytes::from(document.to_string()))).collect()
});

static V3_INDEX: LazyLock<Bytes> = LazyLock::new(|| {
    let documents = V3.iter().map(|(path, document)| (path.as_str(), &document[..]));
    openapi::v3_index(documents).to_string().into()
});

/// The v2 document as JSON and as protobuf.
static V2: LazyLock<(Bytes, Bytes)> = LazyLock::new(|| {
    let document = openapi::v2(&KINDS, VERSION);
    (document.to_string().into(), openapi::v2_protobuf(&document).into())
});

/// Answers an OpenAPI path; `None` when it is none.
pub(crate) async fn handle(
    inner: &Arc<Inner>,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Answer, ApiError>> {
    let rest = path.strip_prefix("/openapi/")?;
    let protobuf = negotiate::accepted(headers).iter().any(|clause| clause.media_type == V2_PROTOBUF);
    let rest = rest.to_owned();
    let inner = inner.clone();
    // Making the documents takes a while: not on a thread that serves others.
    let made = tokio::task::spawn_blocking(move || document(&inner, &rest, protobuf)).await;
    match made {
        Ok(found) => found.map(|(content_type, body)| Ok(cacheable(headers, content_type, body))),
        Err(error) => Some(Err(ApiError::internal(error))),
    }
}

fn document(inner: &Inner, path: &str, protobuf: bool) -> Option<(&'static str, Bytes)> {
    match path {
        "v2" => {
            let (json, message) = inner.aggregator.openapi_v2(|| V2.clone());
            Some(if protobuf { (V2_PROTOBUF_ANSWER, message) } else { ("application/json", json) })
        }
        "v3" => Some(("application/json", inner.aggregator.openapi_v3_index(&V3_INDEX))),
        path => {
            let group = path.strip_prefix("v3/")?;
            Some(("application/json", V3.get(group)?.clone()))
        }
    }
}
