//! The client: JSON calls with a deadline and a size limit, and raw connections for proxies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::Instant;

use crate::connect::{Stream, connect};
use crate::pool::{Identity, Pool, tls_config};
use crate::{Endpoint, Error, ServiceResolver};

/// The most an answer to [`Client::call`] may hold.
pub const DEFAULT_LIMIT: usize = 8 << 20;

/// How much of a failure's answer is kept for the message.
const FAILURE: usize = 2048;

/// More other sides than this are not kept connections to.
const POOLS: usize = 512;

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body of these bytes.
pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Calls endpoints, keeping connections open between calls. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    resolver: Arc<dyn ServiceResolver>,
    pools: Mutex<HashMap<Identity, (Instant, Pool)>>,
}

impl Client {
    /// A client that finds services through `resolver`.
    pub fn new(resolver: Arc<dyn ServiceResolver>) -> Self {
        Self { inner: Arc::new(Inner { resolver, pools: Mutex::default() }) }
    }

    /// Posts JSON and returns the JSON of the answer. `timeout` covers everything from resolving the
    /// name to the last byte; the answer has at most [`DEFAULT_LIMIT`] bytes.
    pub async fn call(&self, endpoint: &Endpoint, body: &Value, timeout: Duration) -> Result<Value, Error> {
        let bytes = serde_json::to_vec(body).map_err(|error| Error::Config(error.to_string()))?;
        self.call_raw(endpoint, bytes.into(), timeout, DEFAULT_LIMIT).await
    }

    /// The same with the body encoded by the caller, and another limit.
    pub async fn call_raw(
        &self,
        endpoint: &Endpoint,
        bytes: Bytes,
        timeout: Duration,
        limit: usize,
    ) -> Result<Value, Error> {
        let mut request = Request::new(body(bytes));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("skep-admission"));
        let response = self.exchange(endpoint, request, timeout, limit).await?;
        let (parts, bytes) = response.into_parts();
        if !parts.status.is_success() {
            let end = bytes.len().min(FAILURE);
            let text = String::from_utf8_lossy(&bytes[..end]);
            return Err(Error::Status { code: parts.status.as_u16(), body: text.trim().to_owned() });
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::Decode(error.to_string()))
    }

    /// Sends a request to the endpoint (its path where the request has none of its own) and reads the
    /// whole answer, whatever its status.
    pub async fn exchange(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        timeout: Duration,
        limit: usize,
    ) -> Result<Response<Bytes>, Error> {
        let work = async {
            let (parts, incoming) = self.send(endpoint, request).await?.into_parts();
            let bytes = Limited::new(incoming, limit).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Error::TooLarge { limit }
                } else {
                    Error::Transport(error.to_string())
                }
            })?;
            Ok(Response::from_parts(parts, bytes.to_bytes()))
        };
        tokio::time::timeout(timeout, work).await.map_err(|_| Error::Timeout)?
    }

    /// Sends a request over a kept connection and returns the answer as it streams in. A request whose
    /// URI is `/` or empty goes to the endpoint's own path. No deadline, no size limit, and no upgrade:
    /// use [`Client::connect`] for that.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let path = match request.uri().path_and_query().map_or("", |path| path.as_str()) {
            "" | "/" => endpoint.path(),
            own => own,
        };
        let scheme = if endpoint.tls() { "https" } else { "http" };
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(endpoint.authority())
            .path_and_query(path)
            .build()
            .map_err(|error| Error::Config(format!("invalid address: {error}")))?;
        if let Some(value) = self.authorization(endpoint).await? {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let pool = self.pool(endpoint)?;
        pool.hyper.request(request).await.map_err(|error| cause(&error))
    }

    /// A connection of its own, for HTTP/1.1 including upgrades: the caller speaks HTTP over it. The
    /// `Host` header is [`Endpoint::authority`]; [`Client::authorization`] gives the header to add.
    pub async fn connect(&self, endpoint: &Endpoint, timeout: Duration) -> Result<Stream, Error> {
        let config = tls_config(endpoint, &[b"http/1.1"])?;
        let name = endpoint.name();
        let work = connect(&*self.inner.resolver, &endpoint.place, &name, config);
        tokio::time::timeout(timeout, work).await.map_err(|_| Error::Timeout)?
    }

    /// The `Authorization` header of the endpoint's credentials.
    pub async fn authorization(&self, endpoint: &Endpoint) -> Result<Option<HeaderValue>, Error> {
        match &endpoint.credentials {
            Some(credentials) => credentials.authorization().await,
            None => Ok(None),
        }
    }

    fn pool(&self, endpoint: &Endpoint) -> Result<Pool, Error> {
        let identity = Identity::of(endpoint);
        let mut pools = self.inner.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((used, pool)) = pools.get_mut(&identity) {
            *used = now;
            return Ok(pool.clone());
        }
        if pools.len() >= POOLS
            && let Some(oldest) = pools.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            pools.remove(&oldest);
        }
        let pool = Pool::new(endpoint, self.inner.resolver.clone())?;
        pools.insert(identity, (now, pool.clone()));
        Ok(pool)
    }
}

/// What lies under hyper's error.
fn cause(error: &hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = error.to_string();
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.clone();
        }
        last = inner.to_string();
        source = inner.source();
    }
    Error::Transport(last)
}
