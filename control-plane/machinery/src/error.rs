//! What can go wrong with an object in transit, as the HTTP layer will report it.

use skep_api::error::{ApiError, Reason};
use skep_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

/// One cause inside a larger failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, e.g. `FieldManagerConflict`.
    pub reason: &'static str,
    /// Field path.
    pub field: String,
    /// What happened there.
    pub message: String,
}

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// 409 Conflict with causes (server-side apply).
    #[error("{message}")]
    Conflict {
        /// The summary.
        message: String,
        /// Each conflicting field.
        causes: Vec<Cause>,
    },
    /// 413 RequestEntityTooLarge.
    #[error("{0}")]
    TooLarge(String),
    /// 415 UnsupportedMediaType.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// 422 Invalid.
    #[error("{0}")]
    Invalid(String),
    /// 406 NotAcceptable: the object has no form in the wanted encoding.
    #[error("{0}")]
    NotAcceptable(String),
}

impl Error {
    /// 400 with this message.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::NotAcceptable(_) => 406,
            Self::Conflict { .. } => 409,
            Self::TooLarge(_) => 413,
            Self::UnsupportedMediaType(_) => 415,
            Self::Invalid(_) => 422,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::BadRequest(_) => Self::bad_request(message),
            Error::Conflict { causes, .. } => {
                let causes = causes.into_iter().map(|cause| StatusCause {
                    reason: Some(cause.reason.to_owned()),
                    field: Some(cause.field),
                    message: Some(cause.message),
                });
                Self::apply_conflict(message, causes.collect())
            }
            other => {
                let reason = match other.code() {
                    406 => Reason::NotAcceptable,
                    413 => Reason::RequestEntityTooLarge,
                    415 => Reason::UnsupportedMediaType,
                    _ => Reason::Invalid,
                };
                Self { code: other.code(), reason, message, details: None, continue_token: String::new() }
            }
        }
    }
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
