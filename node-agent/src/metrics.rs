//! Prometheus metrics under kubelet's names.

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The agent's metrics. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: std::sync::Arc<Registry>,
    pub(crate) running_pods: Gauge,
    pub(crate) running_containers: Gauge,
    pub(crate) pod_start: Histogram,
    pub(crate) started_containers: Counter,
    pub(crate) start_errors: Counter,
    pub(crate) proxy: skep_service_proxy::metrics::Metrics,
    pub(crate) dns: skep_dns::metrics::Metrics,
    pub(crate) policy: skep_network_policy::metrics::Metrics,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let (running_pods, running_containers) = (Gauge::default(), Gauge::default());
        let pod_start = Histogram::new(exponential_buckets(0.01, 2.0, 14));
        let (started_containers, start_errors) = (Counter::default(), Counter::default());
        registry.register("kubelet_running_pods", "Pods with a running container", running_pods.clone());
        registry.register("kubelet_running_containers", "Running containers", running_containers.clone());
        registry.register(
            "kubelet_pod_start_duration_seconds",
            "From the first sight of a pod to all its containers running",
            pod_start.clone(),
        );
        registry.register("kubelet_started_containers", "Containers started", started_containers.clone());
        registry.register(
            "kubelet_started_containers_errors",
            "Containers that failed to start",
            start_errors.clone(),
        );
        let proxy = skep_service_proxy::metrics::Metrics::default();
        proxy.register(&mut registry);
        let dns = skep_dns::metrics::Metrics::default();
        dns.register(&mut registry);
        let policy = skep_network_policy::metrics::Metrics::default();
        policy.register(&mut registry);
        Self {
            registry: std::sync::Arc::new(registry),
            running_pods,
            running_containers,
            pod_start,
            started_containers,
            start_errors,
            proxy,
            dns,
            policy,
        }
    }

    pub(crate) fn print(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::warn!(%error, "metrics");
        }
        text
    }
}
