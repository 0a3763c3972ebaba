//! `/openapi/v3` and `/openapi/v2`.

use http::HeaderMap;
use skep_api::error::ApiError;

use crate::respond::Answer;

/// Answers an OpenAPI path; `None` when it is none.
pub(crate) fn handle(_path: &str, _headers: &HeaderMap) -> Option<Result<Answer, ApiError>> {
    None
}
