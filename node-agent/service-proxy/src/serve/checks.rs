//! Health checks of services with `externalTrafficPolicy: Local`: a server a port.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::ObjectReference;
use skep_client::events::{EventType, Recorder};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::health::Health;
use super::listen;
use crate::desired::HealthCheck;
use crate::names::ServiceName;

struct Server {
    port: u16,
    local_endpoints: watch::Sender<usize>,
    /// Ends the server with the entry.
    _stop: DropGuard,
}

/// The servers.
pub(crate) struct HealthChecks {
    servers: BTreeMap<ServiceName, Server>,
    health: Health,
    recorder: Recorder,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl HealthChecks {
    pub(crate) fn new(
        health: Health,
        recorder: Recorder,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        Self { servers: BTreeMap::new(), health, recorder, tracker, cancel }
    }

    /// Makes a service's check be this.
    pub(crate) fn set(&mut self, name: &ServiceName, check: Option<HealthCheck>) {
        let Some(check) = check else {
            self.servers.remove(name);
            return;
        };
        if let Some(server) = self.servers.get(name)
            && server.port == check.port
        {
            server.local_endpoints.send_replace(check.local_endpoints);
            return;
        }
        let (sender, receiver) = watch::channel(check.local_endpoints);
        let cancel = self.cancel.child_token();
        let (recorder, service) = (self.recorder.clone(), name.clone());
        let refused = move |message: &str| {
            let object = ObjectReference {
                kind: Some("Service".to_owned()),
                namespace: Some(service.namespace.clone()),
                name: Some(service.name.clone()),
                ..ObjectReference::default()
            };
            recorder.event(&object, EventType::Warning, "FailedToStartServiceHealthcheck", message);
        };
        // Both families.
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, check.port));
        self.tracker.spawn(listen(address, router(name, receiver, &self.health), refused, cancel.clone()));
        let server = Server { port: check.port, local_endpoints: sender, _stop: cancel.drop_guard() };
        self.servers.insert(name.clone(), server);
    }
}

fn router(name: &ServiceName, endpoints: watch::Receiver<usize>, health: &Health) -> Router {
    let (name, health) = (name.clone(), health.clone());
    Router::new().fallback(move || {
        let answer = answer(&name, *endpoints.borrow(), health.keeps_up());
        async move { answer }
    })
}

fn answer(name: &ServiceName, local_endpoints: usize, healthy: bool) -> Response {
    let body = serde_json::json!({
        "service": {"namespace": name.namespace, "name": name.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let status =
        if local_endpoints > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // A balancer may send by it.
        (
            header::HeaderName::from_static("x-load-balancing-endpoint-weight"),
            HeaderValue::from(local_endpoints),
        ),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_with_endpoints_and_a_working_proxy_is_healthy() {
        let name = ServiceName { namespace: "default".to_owned(), name: "web".to_owned() };
        for (endpoints, healthy, expected) in [(2, true, 200), (0, true, 503), (2, false, 503)] {
            let response = answer(&name, endpoints, healthy);
            assert_eq!(response.status().as_u16(), expected, "{endpoints} {healthy}");
            assert_eq!(response.headers()["x-load-balancing-endpoint-weight"], endpoints.to_string());
        }
    }
}
