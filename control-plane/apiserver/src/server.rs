//! The API server: what it is made of, how it is built and served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use http::HeaderValue;
use skep_admission::Access;
use skep_api::error::ApiError;
use skep_auth::authentication::Chain;
use skep_auth::authorization::Authorizer;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::configuration::Reloads;
use skep_auth::pki::CertPair;
use skep_flow_control::Gate;
use skep_registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::aggregation::Aggregator;
use crate::audit::Auditor;
use crate::flow::{self, Room};
use crate::health::Check;
use crate::identity::AuthorizerAccess;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::proxy::{Kubelets, Relay};
use crate::published::Published;
use crate::respond::Answer;
use crate::tokens::Tokens;

/// What a server is built of.
pub struct Config {
    /// The registry.
    pub registry: Arc<Registry>,
    /// Who is asking.
    pub authentication: Chain,
    /// May they.
    pub authorization: Arc<dyn Authorizer>,
    /// Makes and reviews tokens; without it TokenRequest and TokenReview are refused.
    pub tokens: Option<Tokens>,
    /// Answers SelfSubjectRulesReview.
    pub rbac: Option<Arc<Rbac>>,
    /// How kubelets are reached; without it logs, exec and the like are refused.
    pub kubelets: Option<Kubelets>,
    /// Requests that read, at the same time.
    pub max_reads: usize,
    /// Requests that write, at the same time. With priority and fairness both together are the seats.
    pub max_writes: usize,
    /// Priority and fairness; without it the two limits hold as they are.
    pub priority_and_fairness: bool,
    /// A request that is no stream must be done by then.
    pub request_timeout: Duration,
    /// Readiness fails for so long before the server stops to take connections.
    pub shutdown_delay: Duration,
    /// While it closes the server tells new requests to come again, instead of taking no connections.
    pub shutdown_retry_after: bool,
    /// The part of HTTP/2 requests whose client is told to connect anew, so that clients spread over
    /// servers again.
    pub goaway_chance: f64,
    /// The address told to clients in discovery.
    pub advertise: Option<SocketAddr>,
    /// Further conditions of readiness and health, by name.
    pub checks: Vec<Check>,
    /// Writes down what is asked; without it nobody does.
    pub audit: Option<Arc<Auditor>>,
    /// What `Strict-Transport-Security` says; without it the header is left out.
    pub hsts: Option<HeaderValue>,
    /// Who this server is to extension servers; without it they can't believe whom it speaks for.
    pub front_proxy: Option<CertPair>,
    /// The configurations that are followed, by what their metrics are called, and how that went.
    pub reloads: Vec<(&'static str, Arc<Reloads>)>,
}

impl Config {
    /// A server over a registry that lets in whom `authentication` and `authorization` do.
    pub fn new(registry: Arc<Registry>, authentication: Chain, authorization: Arc<dyn Authorizer>) -> Self {
        Self {
            registry,
            authentication,
            authorization,
            tokens: None,
            rbac: None,
            kubelets: None,
            max_reads: 400,
            max_writes: 200,
            priority_and_fairness: true,
            request_timeout: Duration::from_secs(60),
            shutdown_delay: Duration::ZERO,
            shutdown_retry_after: false,
            goaway_chance: 0.0,
            advertise: None,
            checks: Vec::new(),
            audit: None,
            hsts: None,
            front_proxy: None,
            reloads: Vec::new(),
        }
    }
}

/// What every request needs.
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authentication: Chain,
    pub(crate) authorization: Arc<dyn Authorizer>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) rbac: Option<Arc<Rbac>>,
    pub(crate) kubelets: Option<Kubelets>,
    pub(crate) room: Room,
    pub(crate) request_timeout: Duration,
    pub(crate) shutdown_delay: Duration,
    pub(crate) shutdown_retry_after: bool,
    pub(crate) goaway_chance: f64,
    /// Cancelled when the server is told to end: it is not ready any more.
    pub(crate) draining: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) published: Published,
    pub(crate) address: String,
    pub(crate) checks: Vec<Check>,
    pub(crate) audit: Option<Arc<Auditor>>,
    pub(crate) hsts: Option<HeaderValue>,
    pub(crate) relay: Relay,
    pub(crate) aggregator: Aggregator,
    /// Cancelled when the server begins to close: long streams end.
    pub(crate) closing: CancellationToken,
}

/// The API server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

impl ApiServer {
    /// Builds a server.
    pub fn build(config: Config) -> Self {
        let mut metrics = Metrics::new(&config.registry, config.reloads);
        let room = if config.priority_and_fairness {
            let seats = config.max_reads.saturating_add(config.max_writes);
            let gate = Gate::new(u32::try_from(seats).unwrap_or(u32::MAX));
            metrics.add(|collection| gate.register(collection));
            Room::Fair(gate)
        } else {
            Room::Flat(Limits::new(config.max_reads, config.max_writes))
        };
        if let Some(auditor) = &config.audit {
            metrics.add(|collection| auditor.register(collection));
        }
        let closing = CancellationToken::new();
        let aggregator = Aggregator::new(config.registry.clone(), config.front_proxy);
        Self {
            inner: Arc::new(Inner {
                registry: config.registry,
                authentication: config.authentication,
                authorization: config.authorization,
                tokens: config.tokens,
                rbac: config.rbac,
                kubelets: config.kubelets,
                room,
                request_timeout: config.request_timeout,
                shutdown_delay: config.shutdown_delay,
                shutdown_retry_after: config.shutdown_retry_after,
                goaway_chance: config.goaway_chance,
                draining: CancellationToken::new(),
                metrics,
                published: Published::default(),
                address: config.advertise.map(|address| address.to_string()).unwrap_or_default(),
                checks: config.checks,
                audit: config.audit,
                hsts: config.hsts,
                relay: Relay::new(closing.clone()),
                aggregator,
                closing,
            }),
        }
    }

    /// The service, also for use inside of the process: a request that carries a
    /// [`skep_api::user::UserInfo`] as an extension is that user's.
    pub fn router(&self) -> Router {
        Router::new().fallback(dispatch).with_state(self.inner.clone())
    }

    /// What its authorizers say, for admission plug-ins.
    pub fn access(&self) -> Arc<dyn Access> {
        Arc::new(AuthorizerAccess(self.inner.authorization.clone()))
    }

    /// Keeps API aggregation going until cancelled: registers what is served here, and looks after the
    /// extension servers.
    pub async fn aggregate(self, cancel: CancellationToken) {
        self.inner.aggregator.run(cancel).await;
    }

    /// Priority and fairness: makes the objects every cluster begins with. Does nothing without it.
    pub async fn ensure_flow_control(&self) -> Result<(), ApiError> {
        match &self.inner.room {
            Room::Fair(_) => flow::ensure(&self.inner.registry).await,
            Room::Flat(_) => Ok(()),
        }
    }

    /// Priority and fairness: keeps its objects and lets their changes take effect, until cancelled.
    pub async fn keep_flow_control(self, cancel: CancellationToken) {
        if let Room::Fair(gate) = &self.inner.room {
            flow::run(self.inner.registry.clone(), gate.clone(), cancel).await;
        }
    }

    /// The registry behind it.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.inner.registry
    }

    /// Ends the streams of this server; called by `serve` when it is cancelled.
    pub fn close(&self) {
        self.inner.closing.cancel();
    }
}

/// One handler for everything: what differs between kinds is data, not code.
async fn dispatch(State(inner): State<Arc<Inner>>, request: Request) -> Answer {
    pipeline::run(&inner, request).await
}

/// An error of starting or serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused something at start.
    #[error("the API server could not start")]
    Api(#[from] ApiError),
    /// A listener failed.
    #[error("the API server's listener failed")]
    Io(#[from] std::io::Error),
}
