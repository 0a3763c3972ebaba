//! Kinds that are questions: reviews of access and of tokens. Nothing of them is stored.

use axum::body::Body;
use skep_api::error::ApiError;

use crate::resources::Call;
use crate::respond::Answer;

/// Answers a review.
pub(crate) async fn handle(_call: Call<'_>, _body: Body) -> Result<Answer, ApiError> {
    Err(ApiError::no_such_path())
}
