//! What a request can fail with. `Error::Api` is an answer of the server; everything else means that
//! the answer is unknown.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed error of a transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused: a `Status` of failure.
    #[error("{}", describe(.0))]
    Api(Box<Status>),
    /// No connection, or it broke.
    #[error("cannot reach the API server: {0}")]
    Transport(#[source] BoxError),
    /// No answer in time.
    #[error("no answer from the API server within {0:?}")]
    Timeout(std::time::Duration),
    /// The answer was not what it should be.
    #[error("cannot decode the answer of {what}: {source}")]
    Decode {
        /// The request.
        what: String,
        /// The fault.
        source: serde_json::Error,
    },
    /// The object could not be written as JSON.
    #[error("cannot encode the request: {0}")]
    Encode(#[source] serde_json::Error),
    /// An answer or a watch frame over the limit.
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
    /// The configuration does not make a client.
    #[error("client configuration: {0}")]
    Config(String),
}

fn describe(status: &Status) -> String {
    match (&status.message, &status.reason) {
        (Some(message), _) if !message.is_empty() => message.clone(),
        (_, Some(reason)) => reason.clone(),
        _ => format!("status {}", status.code.unwrap_or_default()),
    }
}

impl Error {
    /// The server's status, when there is one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(status) => Some(status),
            _ => None,
        }
    }

    /// The HTTP code of the server's status.
    pub fn code(&self) -> Option<i32> {
        self.status().and_then(|s| s.code)
    }

    /// The machine-readable reason of the server's status.
    pub fn reason(&self) -> &str {
        self.status().and_then(|s| s.reason.as_deref()).unwrap_or_default()
    }

    /// The object (or the resource) does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// The object changed since it was read, or a precondition failed.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_exists()
    }

    /// The asked revision is no longer kept: list again.
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410) || matches!(self.reason(), "Expired" | "Gone")
    }

    /// Refused by authorization or admission.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The object is not valid.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// The server asks to come back later (also an eviction that a disruption budget forbids).
    pub fn is_too_many_requests(&self) -> bool {
        self.code() == Some(429)
    }

    /// The namespace of the object is being deleted: creating in it will never work.
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|s| s.details.as_ref()).and_then(|d| d.causes.as_ref());
        causes.is_some_and(|c| c.iter().any(|c| c.reason.as_deref() == Some("NamespaceTerminating")))
    }

    /// Whether the server may or may not have done what was asked.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::Timeout(_))
            || matches!(self.code(), Some(500 | 502 | 503 | 504))
    }
}
