//! The way of every request: who, what, may they, is there room, then the handler; errors become a
//! `Status` at the end and nowhere else.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::FutureExt;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, UPGRADE};
use http::request::Parts;
use http::{Method, Request};
use rustls::pki_types::CertificateDer;
use skep_admission::Notes;
use skep_api::duration;
use skep_api::error::ApiError;
use skep_api::user::UserInfo;
use skep_auth::audit::Stage;
use skep_auth::authentication::Credentials;
use skep_auth::authorization::{Attributes, Decision};
use skep_flow_control::gate::Class;
use tokio::time::Instant;

use crate::audit::{self, Record};
use crate::connection::Connection;
use crate::negotiate::{self, Encoding, Offer};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::resources::{self, Call};
use crate::respond::{self, Answer};
use crate::server::Inner;
use crate::{discovery, flow, health, impersonation, openapi, tokens, version};

/// Paths that are answered without asking who and whether, to a load balancer for instance.
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// The client's certificates, put into the request by the TLS listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerCertificates(pub(crate) Arc<Vec<CertificateDer<'static>>>);

/// The other side of the connection, put into the request by the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Put into a request by the plain listener on loopback: no authentication, no authorization.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Insecure;

/// Answers one request.
pub(crate) async fn run(inner: &Arc<Inner>, request: Request<Body>) -> Answer {
    let start = Instant::now();
    let (mut parts, body) = request.into_parts();
    let method = parts.method.clone();
    let encoding = negotiate::form(&parts.headers, Offer { shapes: true, protobuf: true })
        .map_or(Encoding::Json, |form| form.encoding);
    let query = Query::parse(parts.uri.query());
    let none = Query::default();
    let info = RequestInfo::new(&method, parts.uri.path(), query.as_ref().unwrap_or(&none));
    if let Some(connection) = parts.extensions.get::<Connection>() {
        if inner.shutdown_retry_after && inner.draining.is_cancelled() && !is_open(&info.path) {
            return come_again(encoding);
        }
        if parts.version == http::Version::HTTP_2 && rand::random::<f64>() < inner.goaway_chance {
            connection.send_away();
        }
    }
    let notes = Notes::default();
    parts.extensions.insert(notes.clone());
    let id = audit::Id::of(&parts);
    parts.extensions.insert(id.clone());
    let mut class = None;
    let outcome = match query {
        Ok(query) => {
            let work = answer(inner, &mut parts, body, &query, &info, &mut class);
            AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
                if let Some(record) = parts.extensions.get::<Record>() {
                    record.stage(Stage::Panic);
                }
                Err(panicked(&panic, &info))
            })
        }
        Err(error) => Err(error),
    };
    let answer = outcome.unwrap_or_else(|error| {
        if error.code >= 500 {
            tracing::warn!(code = error.code, message = error.message, path = info.path, "request failed");
        }
        respond::error(&error, encoding)
    });
    let mut answer = resources::warn(answer, &notes.warnings());
    if let Some(record) = parts.extensions.remove::<Record>() {
        for (key, value) in notes.annotations() {
            record.annotate(&key, &value);
        }
        answer = audit::answered(record, answer, info.is_long_running()).await;
    }
    let mut answer = respond::compress(&parts.headers, answer).await;
    let headers = answer.headers_mut();
    headers
        .entry(HeaderName::from_static("cache-control"))
        .or_insert(HeaderValue::from_static("no-cache, private"));
    id.mark(headers);
    if let Some(hsts) = &inner.hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    flow::mark(class.as_ref(), headers);
    inner.metrics.request(&inner.registry, &info, answer.status(), start.elapsed());
    if method == Method::HEAD {
        *answer.body_mut() = Body::empty();
    }
    answer
}

/// Health is told whoever asks.
fn is_open(path: &str) -> bool {
    OPEN.iter()
        .any(|open| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The answer of a server that is closing: another one takes the request.
fn come_again(encoding: Encoding) -> Answer {
    let text = "The apiserver is shutting down, please try again later.";
    let mut answer = respond::error(&ApiError::too_many_requests(5, text), encoding);
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A panic ends its request only; what it said is for the log.
fn panicked(panic: &(dyn Any + Send), info: &RequestInfo) -> ApiError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
    tracing::error!(panic = text, verb = info.verb, path = info.path, "a request panicked");
    ApiError::internal("This request caused apiserver to panic. Look in the logs for details.")
}

/// How long a request that is no stream may take: what it asks for, within the server's limit.
fn time_limit(query: &Query, most: Duration) -> Result<Duration, ApiError> {
    let Some(text) = query.get("timeout") else { return Ok(most) };
    let asked = duration::parse(text).ok_or_else(|| {
        let text = format!("invalid timeout specified in the request URI - time: invalid duration {text:?}");
        ApiError::bad_request(text)
    })?;
    Ok(if asked.is_zero() { most } else { asked.min(most) })
}

async fn answer(
    inner: &Arc<Inner>,
    parts: &mut Parts,
    body: Body,
    query: &Query,
    info: &RequestInfo,
    class: &mut Option<Class>,
) -> Result<Answer, ApiError> {
    if info.is_long_running() {
        return serve(inner, parts, body, query, info, class, inner.request_timeout).await;
    }
    let limit = time_limit(query, inner.request_timeout)?;
    match tokio::time::timeout(limit, serve(inner, parts, body, query, info, class, limit)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::timeout("request did not complete within the allotted timeout")),
    }
}

async fn serve(
    inner: &Arc<Inner>,
    parts: &mut Parts,
    body: Body,
    query: &Query,
    info: &RequestInfo,
    class: &mut Option<Class>,
    limit: Duration,
) -> Result<Answer, ApiError> {
    let insecure = parts.extensions.get::<Insecure>().is_some();
    let user = known(inner, parts, insecure, info).await?;
    let record = parts.extensions.get::<Record>().cloned();
    // Held until the request is answered; for a watch, until it has begun.
    let _pass = flow::enter(inner, &user, info, query, limit, class).await?;
    if !insecure && !is_open(&info.path) {
        authorize(inner, &user, info, record.as_ref()).await?;
    }
    let body = match &record {
        Some(record) if !info.is_long_running() => audit::asked(record, &parts.headers, body).await?,
        _ => body,
    };
    if let Some(at) = inner.aggregator.serves(&info.path) {
        let long = info.verb == "watch" || parts.headers.contains_key(UPGRADE);
        return inner.aggregator.forward(&at, parts, body, &user, &inner.relay, long).await;
    }
    let Some(resource) = &info.resource else {
        return plain(inner, parts, query, info).await;
    };
    let row = inner.registry.find_kind(&resource.gvr).await?;
    let call = Call {
        server: inner,
        row,
        request: resource,
        method: parts.method.clone(),
        headers: &parts.headers,
        query,
        user: &user,
        extensions: &parts.extensions,
        uri: &parts.uri,
    };
    resources::handle(call, body, info.verb).await
}

/// As whom a request acts; its record begins as soon as it is known who asks.
async fn known(
    inner: &Inner,
    parts: &mut Parts,
    insecure: bool,
    info: &RequestInfo,
) -> Result<UserInfo, ApiError> {
    let begin = |parts: &mut Parts, user: &UserInfo| {
        let record = inner.audit.as_ref().and_then(|auditor| Record::begin(auditor, parts, info, user));
        if let Some(record) = &record {
            parts.extensions.insert(record.clone());
        }
        record
    };
    let asking = match who(inner, parts, insecure).await {
        Ok(user) => user,
        Err(error) => {
            begin(parts, &UserInfo::default());
            return Err(error);
        }
    };
    let record = begin(parts, &asking);
    if insecure || parts.extensions.get::<UserInfo>().is_some() {
        return Ok(asking);
    }
    // Nobody behind us needs it any more.
    parts.headers.remove(AUTHORIZATION);
    let acting = impersonation::apply(inner, asking.clone(), &parts.headers).await?;
    if let Some(record) = record.filter(|_| acting != asking) {
        record.impersonates(&acting);
    }
    Ok(acting)
}

/// Who asks.
async fn who(inner: &Inner, parts: &Parts, insecure: bool) -> Result<UserInfo, ApiError> {
    if let Some(user) = parts.extensions.get::<UserInfo>() {
        return Ok(user.clone());
    }
    if insecure {
        return Ok(UserInfo::new("system:unsecured", ["system:masters"]));
    }
    let certificates = parts.extensions.get::<PeerCertificates>().cloned().unwrap_or_default();
    let credentials = Credentials { certificates: &certificates.0, headers: &parts.headers };
    inner.authentication.authenticate(&credentials, parts.uri.path()).await.map_err(|error| {
        tracing::debug!(%error, "a request was not authenticated");
        ApiError::unauthorized()
    })
}

/// What authorization is asked about a request.
pub(crate) fn attributes<'a>(user: &'a UserInfo, info: &'a RequestInfo) -> Attributes<'a> {
    match &info.resource {
        None => Attributes::for_path(user, info.verb, &info.path),
        Some(resource) => Attributes {
            version: &resource.gvr.version,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: if resource.name.is_empty() { &info.selected.name } else { &resource.name },
            path: &info.path,
            fields: info.selected.fields.requirements(),
            labels: info.selected.labels.requirements(),
            ..Attributes::for_resource(user, info.verb, &resource.gvr.group, &resource.gvr.resource)
        },
    }
}

/// 403 unless the user may.
async fn authorize(
    inner: &Inner,
    user: &UserInfo,
    info: &RequestInfo,
    record: Option<&Record>,
) -> Result<(), ApiError> {
    let decision = inner.authorization.authorize(&attributes(user, info)).await;
    if let Some(record) = record {
        let word = if decision.allowed() { "allow" } else { "forbid" };
        record.annotate("authorization.k8s.io/decision", word);
        record.annotate("authorization.k8s.io/reason", decision.reason());
    }
    let reason = match decision {
        Decision::Allow(_) => return Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
    };
    Err(match &info.resource {
        None => ApiError::forbidden_path(user, info.verb, &info.path, &reason),
        Some(resource) => ApiError::forbidden_user(
            user,
            info.verb,
            &resource.gvr,
            &resource.subresource,
            Some(&resource.namespace),
            &resource.name,
            &reason,
        ),
    })
}

/// Paths that are no resource.
async fn plain(
    inner: &Arc<Inner>,
    parts: &Parts,
    query: &Query,
    info: &RequestInfo,
) -> Result<Answer, ApiError> {
    let path = if info.path.len() > 1 { info.path.trim_end_matches('/') } else { &info.path };
    if let Some(answer) = health::handle(inner, path, parts.uri.query()).await {
        return Ok(answer);
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(ApiError::no_such_path());
    }
    if let Some(answer) = discovery::handle(inner, path, &parts.headers).await {
        return answer;
    }
    if let Some(answer) = openapi::handle(inner, path, parts.uri.query(), &parts.headers).await {
        return answer;
    }
    if let Some(answer) = tokens::documents(inner.tokens.as_ref(), path) {
        return Ok(answer);
    }
    if let Some(answer) = flow::dump(&inner.room, path, query) {
        return Ok(answer);
    }
    match path {
        "/" => Ok(version::paths(inner.published.snapshot(&inner.registry).kinds())),
        "/version" => Ok(version::version()),
        "/metrics" => inner.metrics.encode(&inner.registry),
        _ => Err(ApiError::no_such_path()),
    }
}
