//! What can go wrong with a call, by the step that failed. The texts are those Go's HTTP client and
//! client-go give, because they end up in messages that people and tests look for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The configuration of the endpoint can't be used.
    #[error("{0}")]
    Config(String),
    /// The service or host name leads nowhere.
    #[error("{0}")]
    Resolve(String),
    /// No connection.
    #[error("dial tcp {address}: {}", dial(.source))]
    Dial {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The handshake failed, or the certificate is not to be trusted.
    #[error("{0}")]
    Tls(String),
    /// The deadline passed.
    #[error("context deadline exceeded")]
    Timeout,
    /// The connection broke in the middle.
    #[error("{0}")]
    Transport(String),
    /// An answer other than success.
    #[error("{}", status(*.code, .body))]
    Status {
        /// The HTTP status.
        code: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// The answer is longer than allowed.
    #[error("the response is longer than {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// The answer is not the JSON it should be.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Decode(String),
}

impl Error {
    /// The text with the request it is about, where the failure lies before an answer:
    /// `Post "https://…": context deadline exceeded`.
    pub fn describe(&self, url: &str) -> String {
        match self {
            Self::Resolve(_) | Self::Dial { .. } | Self::Tls(_) | Self::Timeout | Self::Transport(_) => {
                format!("Post {url:?}: {self}")
            }
            Self::Config(_) | Self::Status { .. } | Self::TooLarge { .. } | Self::Decode(_) => {
                self.to_string()
            }
        }
    }

    /// Did the server certainly not see the request?
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Resolve(_) | Self::Dial { .. } | Self::Tls(_))
    }

    /// A short word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Resolve(_) => "resolve",
            Self::Dial { .. } => "dial",
            Self::Tls(_) => "tls",
            Self::Timeout => "timeout",
            Self::Transport(_) => "transport",
            Self::Status { .. } => "status",
            Self::TooLarge { .. } => "size",
            Self::Decode(_) => "decode",
        }
    }
}

fn dial(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => format!("connect: {error}"),
    }
}

fn status(code: u16, body: &str) -> String {
    let text = match code {
        400 => "the server rejected our request for an unknown reason",
        401 => "the server has asked for the client to provide credentials",
        403 => "the server does not allow access to the requested resource",
        404 => "the server could not find the requested resource",
        405 => "the server does not allow this method on the requested resource",
        406 => "the server was unable to respond with a content type that the client supports",
        409 => "the server reported a conflict",
        415 => "the server was unable to respond with a content type that the client supports",
        422 => "the server rejected our request due to an error in our request",
        429 => "the server has received too many requests and has asked us to try again later",
        503 => "the server is currently unable to handle the request",
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing \
             the request"
        }
        500.. => {
            return format!("an error on the server ({body:?}) has prevented the request from succeeding");
        }
        _ => {
            return format!(
                "the server responded with the status code {code} but did not return more information"
            );
        }
    };
    text.to_owned()
}
