//! What can go wrong with an object in transit, as the HTTP layer will report it.

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

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
