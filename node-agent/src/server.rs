//! The kubelet API: logs, exec, attach and port-forward, which the API server passes through to here.
//!
//! TLS with a client certificate of the cluster's CA is required of everybody, and of those only members
//! of `system:masters` (the API server's own certificate is one) are let in: whoever can exec here owns
//! the node's pods, so there is no finer grain to give away.

mod attach;
mod channels;
mod exec;
mod logs;
mod port_forward;
mod query;
mod refusal;
mod spdy;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use skep_runtime::{ContainerRecord, Runtime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use refusal::Refusal;
pub use tls::{Caller, TlsError, TlsFiles};

/// The group whose members may use this API.
const MASTERS: &str = "system:masters";

/// What the API needs of the node.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// The newest attempt of a container (or the one before, for `previous`). Without a name, the pod's
    /// only container.
    async fn container(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        previous: bool,
    ) -> Result<ContainerRecord, Refusal>;

    /// Becomes true when the container has ended.
    fn ended(&self, container_id: &str) -> watch::Receiver<bool>;

    /// The pod's network namespace; none for a pod on the host's network.
    fn network_namespace(&self, namespace: &str, pod: &str) -> Result<Option<PathBuf>, Refusal>;

    /// The pods of this node.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// Metrics in the Prometheus text format.
    fn metrics(&self) -> String;

    /// The container runtime.
    fn runtime(&self) -> &Runtime;
}

/// The upgraded streams: they end with the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Open {
    /// A stream's work, ended by the end of the server.
    pub(crate) fn until_closed<F>(&self, work: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let closing = self.closing.clone();
        self.tasks.track_future(async move {
            closing.run_until_cancelled(work).await;
        })
    }

    /// The same as a task.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            closing.run_until_cancelled(work).await;
        });
    }
}

/// Shared by the handlers.
pub(crate) type Shared = Arc<dyn Node>;

/// The routes, without TLS.
pub fn router(node: Arc<dyn Node>) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::get))
        .route("/exec/{namespace}/{pod}/{container}", get(exec::get).post(exec::post))
        .route("/attach/{namespace}/{pod}/{container}", get(attach::get).post(attach::post))
        .route("/portForward/{namespace}/{pod}", get(port_forward::get).post(port_forward::post))
        .route("/pods", get(pods))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn(only_masters))
        .route("/healthz", get(async || "ok"))
        .with_state(node)
}

async fn only_masters(request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.groups.iter().any(|group| group == MASTERS) => next.run(request).await,
        Some(caller) => {
            let text = format!("Forbidden (user={})", caller.name);
            Refusal::new(StatusCode::FORBIDDEN, text).into_response()
        }
        None => Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
    }
}

async fn pods(State(node): State<Shared>) -> Response {
    let pods = node.pods();
    let items: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
}

async fn metrics(State(node): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], node.metrics()).into_response()
}

/// Serves until cancelled; open streams get a moment to end.
///
/// # Errors
/// When the address is taken or the certificates are of no use.
pub async fn serve(
    listen: SocketAddr,
    files: TlsFiles,
    node: Arc<dyn Node>,
    cancel: CancellationToken,
) -> Result<(), TlsError> {
    let acceptor = tls::acceptor(&files)?;
    let listener = TcpListener::bind(listen).await.map_err(|source| TlsError::Listen { listen, source })?;
    let routes = router(node);
    let connections = TaskTracker::new();
    let open = Open { tasks: connections.clone(), closing: cancel.clone() };
    let routes = routes.layer(axum::Extension(open));
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, or the peer is gone already: the next may work.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, routes, cancel) = (acceptor.clone(), routes.clone(), cancel.clone());
        connections.spawn(async move {
            // A peer that never finishes the handshake must not hold a connection.
            let handshake = tokio::time::timeout(tls::HANDSHAKE, acceptor.accept(stream));
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
                Err(_) => return tracing::debug!("TLS handshake took too long"),
            };
            let caller = tls::caller(&stream);
            let routes = routes.layer(axum::Extension(caller));
            let service = TowerToHyperService::new(routes);
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Some(Err(error)) = cancel.run_until_cancelled(connection).await {
                tracing::debug!(%error, "connection");
            }
        });
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

/// Takes any bytes for a SPDY connection: what a fuzzer calls.
pub fn fuzz_spdy(bytes: &[u8]) {
    spdy::fuzz(bytes);
}

/// Takes any bytes for a message of a stream over WebSocket: what a fuzzer calls.
pub fn fuzz_channels(bytes: &[u8]) {
    channels::fuzz(bytes);
}
