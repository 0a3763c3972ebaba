//! The client: one cheap handle on a transport. Requests are JSON; sizes are bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde::de::DeserializeOwned;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use tower::Service;

use crate::api::Api;
use crate::config::ClientConfig;
use crate::error::{BoxError, Error, Result};
use crate::kind::{Kind, Stored};
use crate::retry::Backoff;
use crate::transport::{Network, Transport};

/// The body of requests and responses. An `axum::Router` takes it as it is, and `axum::body::Body`
/// wraps it by `Body::new`.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// More than any legal answer: lists are read in chunks or from the cache.
const MAX_ANSWER: usize = 1 << 30;
/// An object is at most a few MiB.
const MAX_REQUEST: usize = 16 << 20;

/// A handle on an API server. Cloning is cheap; all clones share the connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    user_agent: HeaderValue,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("user_agent", &self.inner.user_agent).finish_non_exhaustive()
    }
}

/// A request before it meets a transport.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) accept: &'a str,
    pub(crate) content: Option<(&'a str, Bytes)>,
}

impl Call<'_> {
    pub(crate) fn what(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

impl Client {
    /// A client of a server over the network. Does not connect yet.
    pub fn new(config: ClientConfig) -> Result<Self> {
        let (user_agent, timeout) = (config.user_agent.clone(), config.timeout);
        let transport = Transport::Network(Box::new(Network::new(config)?));
        Ok(Self::build(transport, &user_agent, timeout))
    }

    /// A client of a service of this process, asking as `user`. An `axum::Router` is such a service.
    pub fn in_process<S, B>(service: S, user: UserInfo) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let agent = user.name.rsplit(':').next().unwrap_or("skep").to_owned();
        Self::build(Transport::in_process(service, user), &agent, Duration::from_secs(60))
    }

    fn build(transport: Transport, user_agent: &str, timeout: Duration) -> Self {
        let user_agent =
            HeaderValue::from_str(user_agent).unwrap_or_else(|_| HeaderValue::from_static("skep"));
        Self { inner: Arc::new(Inner { transport, user_agent, timeout }) }
    }

    /// The API of a kind over all namespaces, or of a cluster-scoped kind.
    pub fn all<K: Kind>(&self) -> Api<K> {
        Api::new(self.clone(), gvr_of::<K>(), None)
    }

    /// The API of a kind in one namespace.
    pub fn namespaced<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::new(self.clone(), gvr_of::<K>(), Some(namespace.to_owned()))
    }

    /// The API of any resource, as [`crate::DynamicObject`] or [`crate::PartialObject`].
    pub fn resource<T: Stored>(&self, gvr: GroupVersionResource, namespace: Option<&str>) -> Api<T> {
        Api::new(self.clone(), gvr, namespace.map(str::to_owned))
    }

    /// Reads a JSON document at a path, as discovery needs.
    pub async fn get_path<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let call =
            Call { method: Method::GET, target: path.into(), accept: "application/json", content: None };
        self.json(call).await
    }

    /// Reads text at a path, such as `/readyz`.
    pub async fn get_text(&self, path: &str) -> Result<String> {
        let call = Call { method: Method::GET, target: path.into(), accept: "*/*", content: None };
        let bytes = self.bytes(call).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a request and decodes the JSON of its answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T> {
        let what = call.what();
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Decode { what, source })
    }

    /// Sends a request and reads its whole answer; a failure status becomes `Error::Api`.
    pub(crate) async fn bytes(&self, call: Call<'_>) -> Result<Bytes> {
        let limit = self.inner.timeout;
        let work = async {
            let mut backoff = Backoff::default();
            loop {
                let result = match self.open(&call, &mut backoff).await {
                    Ok(response) => collect(response.into_body(), MAX_ANSWER).await,
                    Err(e) => return Err(e),
                };
                match result {
                    // The connection broke inside the answer: a read may be asked again.
                    Err(Error::Transport(_)) if call.method == Method::GET && backoff.pause().await => {}
                    result => return result,
                }
            }
        };
        tokio::time::timeout(limit, work).await.map_err(|_| Error::Timeout(limit))?
    }

    /// Sends a request until it has an answer of success; the caller reads the body (watches).
    pub(crate) async fn open(&self, call: &Call<'_>, backoff: &mut Backoff) -> Result<Response<Body>> {
        let read = call.method == Method::GET;
        loop {
            match self.inner.transport.send(self.request(call)?).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let code = response.status().as_u16();
                    let after = retry_after(&response);
                    // 429 with Retry-After was refused before it did anything: any method may ask again.
                    let again = match code {
                        429 => after.is_some() && !is_eviction(call),
                        502..=504 => read,
                        _ => false,
                    };
                    if again && backoff.pause_at_least(after.unwrap_or_default()).await {
                        continue;
                    }
                    return Err(failure(code, response.into_body()).await);
                }
                Err(e) if (e.unsent || read) && matches!(e.error, Error::Transport(_)) => {
                    if !backoff.pause().await {
                        return Err(e.error);
                    }
                }
                Err(e) => return Err(e.error),
            }
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Body>> {
        let mut builder = Request::builder()
            .method(call.method.clone())
            .uri(&call.target)
            .header(header::ACCEPT, call.accept)
            .header(header::USER_AGENT, self.inner.user_agent.clone());
        let body = match &call.content {
            Some((content_type, bytes)) => {
                if bytes.len() > MAX_REQUEST {
                    return Err(Error::TooLarge(MAX_REQUEST));
                }
                builder = builder.header(header::CONTENT_TYPE, *content_type);
                bytes.clone()
            }
            None => Bytes::new(),
        };
        let body = Body::new(Full::new(body).map_err(|never: Infallible| match never {}));
        builder.body(body).map_err(|e| Error::Config(format!("{}: {e}", call.what())))
    }
}

/// An eviction refused with 429 is an answer (a disruption budget), not congestion.
fn is_eviction(call: &Call<'_>) -> bool {
    call.target.split('?').next().is_some_and(|p| p.ends_with("/eviction"))
}

fn gvr_of<K: Kind>() -> GroupVersionResource {
    GroupVersionResource::new(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT)
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds: u64 = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(30)))
}

/// Reads a body up to a limit.
pub(crate) async fn collect(mut body: Body, limit: usize) -> Result<Bytes> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::Transport)?.into_data() else { continue };
        if all.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > limit {
            return Err(Error::TooLarge(limit));
        }
        // One frame (the usual case in process) is passed on without a copy.
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(start) => {
                all.extend_from_slice(&start);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

async fn failure(code: u16, body: Body) -> Error {
    let bytes = match collect(body, 1 << 20).await {
        Ok(bytes) => bytes,
        Err(e) => return e,
    };
    let fallback = || Status {
        code: Some(i32::from(code)),
        message: Some(String::from_utf8_lossy(&bytes).trim().to_owned()),
        reason: None,
        status: Some("Failure".into()),
        ..Status::default()
    };
    let mut status = serde_json::from_slice::<Status>(&bytes).unwrap_or_else(|_| fallback());
    if status.code.unwrap_or_default() == 0 {
        status.code = Some(i32::from(code));
    }
    Error::Api(Box::new(status))
}
