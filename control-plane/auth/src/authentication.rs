//! Who is asking? Authenticators and their chain.

use async_trait::async_trait;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use skep_api::user::UserInfo;

pub use anonymous::{Anonymous, LiveAnonymous};
pub use bearer::{Bearer, TokenVerifier, Verified};
pub(crate) use certificate::hex;
pub use certificate::{Authorities, ClientCertificate};
pub use file::{BasicFile, TokenFile};
pub use front_proxy::{FrontProxy, FrontProxyHeaders, unescape};
pub use webhook::WebhookTokens;

mod anonymous;
pub mod bearer;
pub mod bootstrap;
mod certificate;
mod file;
pub(crate) mod front_proxy;
pub mod oidc;
pub(crate) mod secret;
mod webhook;

/// The parts of a request that can prove an identity.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The client's certificate chain as the TLS layer saw it, leaf first; empty when it sent none.
    pub certificates: &'a [CertificateDer<'static>],
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

impl<'a> Credentials<'a> {
    /// What an unauthenticated stranger brings: nothing.
    pub fn none(headers: &'a HeaderMap) -> Self {
        Self { certificates: &[], headers }
    }

    /// The bearer token: from `Authorization`, or from a WebSocket's
    /// `base64url.bearer.authorization.k8s.io.TOKEN` protocol, where a browser can't set headers.
    pub fn bearer(&self) -> Option<String> {
        if let Some(token) = self.authorization("bearer") {
            return Some(token.to_owned());
        }
        let offered = self.headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL);
        offered
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(|protocol| protocol.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))
            .and_then(|encoded| {
                use base64::Engine;
                base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()
            })
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|token| !token.is_empty())
    }

    /// What follows a scheme in `Authorization`.
    pub fn authorization(&self, scheme: &str) -> Option<&'a str> {
        let value = self.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.trim();
        let (found, rest) = value.split_once(' ')?;
        let rest = rest.trim();
        (found.eq_ignore_ascii_case(scheme) && !rest.is_empty()).then_some(rest)
    }
}

/// Why a credential was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not valid. The words go to the log, not to the caller.
    #[error("invalid credentials: {0}")]
    Invalid(String),
    /// It could not be checked now.
    #[error("authentication is not possible now: {0}")]
    Unavailable(String),
}

/// Turns one kind of credential into a user.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `None`: the request carries nothing this authenticator knows.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error>;
}

/// Asks several in turn; the first that knows the user wins. A request whose credentials all failed is
/// refused; one without any is anonymous, if that is allowed.
pub struct Chain {
    authenticators: Vec<Box<dyn Authenticator>>,
    anonymous: LiveAnonymous,
}

impl Chain {
    /// Asks these, in this order; `true` lets requests without credentials be anonymous.
    pub fn new(authenticators: Vec<Box<dyn Authenticator>>, anonymous: impl Into<LiveAnonymous>) -> Self {
        Self { authenticators, anonymous: anonymous.into() }
    }

    /// The user of a request for a path, `system:authenticated` included; an error means 401.
    pub async fn authenticate(&self, credentials: &Credentials<'_>, path: &str) -> Result<UserInfo, Error> {
        let mut failure = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate(credentials).await {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let offered =
            credentials.headers.contains_key(http::header::AUTHORIZATION) || credentials.bearer().is_some();
        if offered {
            return Err(Error::Invalid("no authenticator knows them".into()));
        }
        if self.anonymous.allows(path) {
            Ok(anonymous())
        } else {
            Err(Error::Invalid("none were given".into()))
        }
    }
}

/// The user of requests without credentials.
pub fn anonymous() -> UserInfo {
    UserInfo {
        name: "system:anonymous".into(),
        groups: vec!["system:unauthenticated".into()],
        ..UserInfo::default()
    }
}
