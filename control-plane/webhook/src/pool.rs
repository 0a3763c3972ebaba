//! Connection pools: one for each identity (place, name, trust, credentials).
//!
//! A pool's connector resolves again whenever it needs a new connection, so a service whose endpoints
//! moved is found; what is idle goes after a while.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::Client as Hyper;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::client::Body;
use crate::connect::{Stream, connect};
use crate::endpoint::Place;
use crate::{Endpoint, Error, ServiceResolver, Trust, tls};

/// Idle connections are kept so long.
const IDLE: Duration = Duration::from_secs(30);

/// What two endpoints must share to share connections.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    authority: String,
    tls: bool,
    service: bool,
    name: String,
    trust: Trust,
    /// Credentials are the same only when they are the same object.
    credentials: usize,
}

impl Identity {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            authority: endpoint.authority(),
            tls: endpoint.tls(),
            service: matches!(endpoint.place, Place::Service { .. }),
            name: endpoint.name(),
            trust: endpoint.trust.clone(),
            credentials: endpoint.credentials.as_ref().map_or(0, |one| Arc::as_ptr(one) as usize),
        }
    }
}

/// Connections to one other side.
#[derive(Clone)]
pub(crate) struct Pool {
    pub(crate) hyper: Hyper<Connector, Body>,
    /// Keeps the credentials alive, so that their address stays theirs.
    _endpoint: Endpoint,
}

impl Pool {
    pub(crate) fn new(endpoint: &Endpoint, resolver: Arc<dyn ServiceResolver>) -> Result<Self, Error> {
        let config = tls_config(endpoint, &[b"h2", b"http/1.1"])?;
        let connector = Connector {
            resolver,
            place: Arc::new(endpoint.place.clone()),
            name: endpoint.name().into(),
            config,
        };
        let hyper = Hyper::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            // A dead peer must not hold requests for the kernel's many minutes.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .http2_initial_stream_window_size(1 << 20)
            .build(connector);
        Ok(Self { hyper, _endpoint: endpoint.clone() })
    }
}

/// The TLS configuration of an endpoint; `None` without TLS.
pub(crate) fn tls_config(endpoint: &Endpoint, alpn: &[&[u8]]) -> Result<Option<Arc<ClientConfig>>, Error> {
    if !endpoint.tls() {
        return Ok(None);
    }
    let mut config = tls::config(&endpoint.trust, endpoint.credentials.as_deref())?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Some(Arc::new(config)))
}

/// Connects for a pool, wherever the request's URL points.
#[derive(Clone)]
pub(crate) struct Connector {
    resolver: Arc<dyn ServiceResolver>,
    place: Arc<Place>,
    name: Arc<str>,
    config: Option<Arc<ClientConfig>>,
}

impl tower::Service<http::Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { connect(&*this.resolver, &this.place, &this.name, this.config).await })
    }
}
