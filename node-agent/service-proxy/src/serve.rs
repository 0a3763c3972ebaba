//! What the proxy serves: whether it is well, its metrics, and the health checks of services.
//!
//! ```text
//! healthz address (0.0.0.0:10256)   /healthz /livez
//! metrics address (127.0.0.1:10249) /metrics /healthz /proxyMode
//! each service's health check port  /
//! ```
//! An address that is taken is tried again for ever: the proxy works without being asked how it is.

mod checks;
mod health;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use k8s_openapi::api::core::v1::ObjectReference;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use skep_client::events::{EventType, Recorder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use checks::HealthChecks;
pub(crate) use health::Health;

use crate::metrics::{CodeLabels, Metrics};
use crate::run::ProxyConfig;

/// The pause before an address that is taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServeOptions {
    /// For `/healthz` and `/livez`; none serves neither.
    pub healthz: Option<SocketAddr>,
    /// For `/metrics` and `/proxyMode`; none serves neither.
    pub metrics: Option<SocketAddr>,
}

impl ServeOptions {
    /// kube-proxy's addresses.
    pub fn usual() -> Self {
        Self {
            healthz: Some(SocketAddr::from(([0, 0, 0, 0], 10256))),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 10249))),
        }
    }
}

/// Starts the servers that are asked for.
pub(crate) fn spawn(
    config: &ProxyConfig,
    health: &Health,
    recorder: &Recorder,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) {
    let node = ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(config.node_name.clone()),
        uid: Some(config.node_name.clone()),
        ..ObjectReference::default()
    };
    let servers = [
        (config.serve.healthz, health_router(health, &config.metrics)),
        (config.serve.metrics, metrics_router(config, health)),
    ];
    for (address, router) in servers {
        let Some(address) = address else { continue };
        let (recorder, node) = (recorder.clone(), node.clone());
        let refused = move |message: &str| {
            recorder.event(&node, EventType::Warning, "FailedToStartProxierHealthcheck", message);
        };
        tracker.spawn(listen(address, router, refused, cancel.clone()));
    }
}

/// Serves until cancelled.
pub(crate) fn listen(
    address: SocketAddr,
    router: Router,
    refused: impl Fn(&str) + Send + 'static,
    cancel: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let work = async move {
        let mut told = false;
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => match axum::serve(listener, router.clone()).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%address, %error, "serving"),
                },
                Err(error) => {
                    if !told {
                        tracing::warn!(%address, %error, "cannot listen; trying again");
                        refused(&format!("cannot listen on {address}: {error}"));
                        told = true;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    async move {
        // Cancel-safe: requests are answered from memory, none is worth waiting for.
        cancel.run_until_cancelled(work).await;
    }
}

fn health_router(health: &Health, metrics: &Metrics) -> Router {
    let answer = |live: bool| {
        let (health, metrics) = (health.clone(), metrics.clone());
        get(move || async move {
            let (ok, body) = health.report(live);
            let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let family = if live { &metrics.livez } else { &metrics.healthz };
            family.get_or_create(&CodeLabels { code: status.as_u16() }).inc();
            let headers =
                [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
            (status, headers, body)
        })
    };
    Router::new().route("/healthz", answer(false)).route("/livez", answer(true))
}

fn metrics_router(config: &ProxyConfig, health: &Health) -> Router {
    let mode = config.mode.name();
    let metrics = config.metrics.clone();
    let health = health.clone();
    Router::new()
        .route("/proxyMode", get(move || async move { mode }))
        .route(
            "/healthz",
            get(move || async move {
                let ok = health.report(true).0;
                (
                    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
                    if ok { "ok" } else { "not well" },
                )
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let mut registry = Registry::default();
                metrics.register(&mut registry);
                let mut text = String::new();
                match encode(&mut text, &registry) {
                    Ok(()) => {
                        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                        ([(header::CONTENT_TYPE, kind)], text).into_response()
                    }
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                }
            }),
        )
}
