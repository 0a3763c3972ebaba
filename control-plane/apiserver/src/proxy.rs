//! Streams that end outside of this server: a pod's logs, exec, attach and port-forward at the kubelet,
//! and the HTTP of pods, services and nodes behind `/proxy`.
//!
//! The server looks only as far as it must to find the other end; bytes pass unchanged, also after an
//! upgrade.

mod kubelet;
mod options;
mod relay;
mod rewrite;
mod socket;
mod target;

use axum::body::Body;
use http::header::{LOCATION, UPGRADE};
use http::{HeaderValue, Method, StatusCode};
use skep_admission::Notes;
use skep_api::error::ApiError;
use skep_auth::authorization::Attributes;
use skep_registry::WriteOptions;
use skep_registry::strategy::KindRow;

use crate::resources::Call;
use crate::respond::{self, Answer};

pub use kubelet::{Error, Kubelets};
pub(crate) use relay::{Relay, passed_headers};
pub(crate) use socket::{Framing, Handshake, is_websocket};

/// Does the subresource lead out of this server?
pub(crate) fn is_streamed(row: &KindRow, subresource: &str) -> bool {
    row.group.is_empty()
        && match row.plural {
            "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
            "services" | "nodes" => subresource == "proxy",
            _ => false,
        }
}

/// Answers a request whose other end is outside.
pub(crate) async fn handle(call: &Call<'_>, body: Body) -> Result<Answer, ApiError> {
    let subresource = call.request.subresource.as_str();
    if subresource != "proxy" && call.request.rest.is_some() {
        return Err(ApiError::no_such_path());
    }
    // Another method would be another right: who may update or delete `pods/exec` may not run anything.
    let served: &[Method] = match subresource {
        "exec" | "attach" | "portforward" => &[Method::GET, Method::POST],
        "log" => &[Method::GET, Method::HEAD],
        _ => &[],
    };
    if !served.is_empty() && !served.contains(&call.method) {
        return Err(ApiError::method_not_supported(&call.row.gvr(), call.method.as_str()));
    }
    if matches!(subresource, "exec" | "attach" | "portforward") {
        may_create(call).await?;
    }
    if subresource != "log" {
        let registry = &call.server.registry;
        let options = WriteOptions {
            user: call.user.clone(),
            notes: call.extensions.get::<Notes>().cloned().unwrap_or_default(),
            ..WriteOptions::default()
        };
        registry.connect(&call.target(), options::options(call), &options).await?;
    }
    if subresource == "proxy" {
        let reads = matches!(call.method, Method::GET | Method::HEAD);
        let rest = match &call.request.rest {
            Some(rest) => rest.as_str(),
            None if reads && !call.headers.contains_key(UPGRADE) => return slash(call),
            None => "",
        };
        let target = target::find(call, rest).await?;
        return target.send(call, body).await;
    }
    if subresource == "log" && is_websocket(call.headers) {
        // The kubelet is asked for plain text; the frames are made here.
        let handshake = Handshake::new(call.headers, call.extensions, &socket::READER)?;
        let answer = kubelet::stream(call, body).await?;
        return Ok(handshake.text_or_bytes(&call.server.relay, answer));
    }
    kubelet::stream(call, body).await
}

/// A WebSocket begins with GET, which must not be a way around the right to create.
async fn may_create(call: &Call<'_>) -> Result<(), ApiError> {
    if call.method != Method::GET {
        return Ok(());
    }
    let request = call.request;
    let attributes = Attributes {
        version: &request.gvr.version,
        subresource: &request.subresource,
        namespace: &request.namespace,
        name: &request.name,
        ..Attributes::for_resource(call.user, "create", &request.gvr.group, &request.gvr.resource)
    };
    let decision = call.server.authorization.authorize(&attributes).await;
    if decision.allowed() {
        return Ok(());
    }
    Err(ApiError::forbidden_user(
        call.user,
        "create",
        &request.gvr,
        &request.subresource,
        Some(&request.namespace),
        &request.name,
        decision.reason(),
    ))
}

/// `…/proxy` becomes `…/proxy/`, so that relative links work.
fn slash(call: &Call<'_>) -> Result<Answer, ApiError> {
    let path = format!("{}/", call.uri.path());
    let location = match call.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut answer = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    let location =
        HeaderValue::from_str(&location).map_err(|_| ApiError::bad_request("the path is malformed"))?;
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

/// Takes any bytes for a page that somebody behind a proxy sends, and for a URL in it: what a fuzzer calls.
pub fn fuzz_page(bytes: &[u8]) {
    rewrite::fuzz(bytes);
}
