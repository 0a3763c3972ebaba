//! `/openapi/v3` and `/openapi/v2`. The documents are made when the first client asks, for most servers
//! never see one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::HeaderMap;
use skep_api::error::ApiError;
use skep_machinery::openapi::{self, V2_PROTOBUF, V2_PROTOBUF_ANSWER};

use crate::discovery::{KINDS, cacheable};
use crate::negotiate;
use crate::respond::Answer;
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
pub(crate) async fn handle(path: &str, headers: &HeaderMap) -> Option<Result<Answer, ApiError>> {
    let rest = path.strip_prefix("/openapi/")?;
    let protobuf = negotiate::accepted(headers).iter().any(|clause| clause.media_type == V2_PROTOBUF);
    let rest = rest.to_owned();
    // Making the documents takes a while: not on a thread that serves others.
    let made = tokio::task::spawn_blocking(move || document(&rest, protobuf)).await;
    match made {
        Ok(found) => found.map(|(content_type, body)| Ok(cacheable(headers, content_type, body))),
        Err(error) => Some(Err(ApiError::internal(error))),
    }
}

fn document(path: &str, protobuf: bool) -> Option<(&'static str, Bytes)> {
    match path {
        "v2" if protobuf => Some((V2_PROTOBUF_ANSWER, V2.1.clone())),
        "v2" => Some(("application/json", V2.0.clone())),
        "v3" => Some(("application/json", V3_INDEX.clone())),
        path => {
            let group = path.strip_prefix("v3/")?;
            Some(("application/json", V3.get(group)?.clone()))
        }
    }
}
