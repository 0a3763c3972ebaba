//! Passing a request on to an extension server, in the user's name.

use std::time::Duration;

use axum::body::Body;
use http::header::{HeaderName, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use skep_api::error::ApiError;
use skep_api::user::UserInfo;

use super::Aggregator;
use super::table::GroupVersion;
use crate::proxy::{Relay, passed_headers};
use crate::respond::{self, Answer};

/// The headers of the answer take no longer, unless the request is a stream.
const ANSWER: Duration = Duration::from_secs(60);

/// Says who asks: what an extension server believes from whoever has the front proxy's certificate.
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Puts the user into the headers; what the client sent under these names goes.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let theirs: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in theirs {
        headers.remove(name);
    }
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = HeaderName::try_from(format!("{EXTRA}{}", escape(key))) else { continue };
        for value in values {
            add(name.clone(), value);
        }
    }
}

/// A key of extra as a part of a header's name: what no name may hold, and `%`, is percent-encoded.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
            | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unavailable(text: &str) -> Answer {
    respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

impl Aggregator {
    /// Is the path served by an extension server?
    pub(crate) fn serves(&self, path: &str) -> Option<GroupVersion> {
        // Its OpenAPI document is its own, too.
        let at = GroupVersion::of_path(path.strip_prefix("/openapi/v3").unwrap_or(path))?;
        self.state.load().table.remote(&at).map(|_| at)
    }

    /// Passes a request on to the server of `at`. `long`: its answer may take as long as it wants.
    pub(crate) async fn forward(
        &self,
        at: &GroupVersion,
        parts: &Parts,
        body: Body,
        user: &UserInfo,
        relay: &Relay,
        long: bool,
    ) -> Result<Answer, ApiError> {
        let state = self.state.load_full();
        let (Some(entry), Some(link)) = (state.table.remote(at), state.links.get(at)) else {
            return Err(ApiError::no_such_path());
        };
        if !entry.available {
            return Ok(unavailable("service unavailable"));
        }
        let backend = match &link.backend {
            Ok(backend) => backend,
            Err(error) => {
                return Ok(respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")));
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        let host = backend.host();
        *request.headers_mut() = passed_headers(&parts.headers, host);
        identify(request.headers_mut(), user);
        let upgrade = parts.headers.contains_key(UPGRADE);
        let client = parts.extensions.get::<OnUpgrade>().cloned();
        let sent = if long || upgrade {
            backend.send(request).await
        } else {
            match tokio::time::timeout(ANSWER, backend.send(request)).await {
                Ok(sent) => sent,
                Err(_) => {
                    return Err(ApiError::timeout("request did not complete within the allotted timeout"));
                }
            }
        };
        match sent {
            Ok(response) => relay.answer(response, client),
            Err(error) => {
                tracing::debug!(%error, path = parts.uri.path(), "an extension server did not answer");
                Ok(unavailable(&error.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_replaces_what_the_client_claims() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-remote-user", "root"), ("x-remote-extra-a", "b"), ("accept", "*/*")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut user = UserInfo::new("jane", ["a", "b"]);
        user.extra.insert("example.com/key%".to_owned(), vec!["1".to_owned(), "2".to_owned()]);
        identify(&mut headers, &user);
        assert_eq!(headers["x-remote-user"], "jane");
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 3);
        assert_eq!(headers.get_all("x-remote-extra-example.com%2fkey%25").iter().count(), 2);
        assert_eq!(headers.get("x-remote-extra-a"), None);
        assert_eq!(headers["accept"], "*/*");
    }
}
