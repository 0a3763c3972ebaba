//! The proxy's metrics, under kube-proxy's names where they exist.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Which traffic policy left a service without endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PolicyLabels {
    /// `internal` or `external`.
    pub traffic_policy: &'static str,
}

/// A map of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MapLabels {
    /// Its name.
    pub map: &'static str,
}

/// How a health check was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// The status.
    pub code: u16,
}

/// The metrics; cheap to clone, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) full_sync_seconds: Histogram,
    pub(crate) partial_sync_seconds: Histogram,
    pub(crate) programming_seconds: Histogram,
    pub(crate) last_sync: Gauge,
    pub(crate) last_queued: Gauge,
    pub(crate) endpoint_changes: Counter,
    pub(crate) endpoint_changes_pending: Gauge,
    pub(crate) service_changes: Counter,
    pub(crate) service_changes_pending: Gauge,
    pub(crate) no_local_endpoints: Family<PolicyLabels, Gauge>,
    pub(crate) rule_failures: Counter,
    pub(crate) partial_failures: Counter,
    pub(crate) cleanup_failures: Counter,
    pub(crate) conntrack_deleted: Counter,
    pub(crate) healthz: Family<CodeLabels, Counter>,
    pub(crate) livez: Family<CodeLabels, Counter>,
    pub(crate) failures: Counter,
    pub(crate) writes: Counter,
    pub(crate) destroyed_sockets: Counter,
    pub(crate) services: Gauge,
    pub(crate) backends: Gauge,
    pub(crate) refused_services: Gauge,
    pub(crate) map_entries: Family<MapLabels, Gauge>,
    pub(crate) map_limit: Family<MapLabels, Gauge>,
    pub(crate) maps_grown: Counter,
}

/// kube-proxy's buckets: 0.25, 0.5, every second to 59, every five to 115, every thirty to 300.
fn programming_buckets() -> impl Iterator<Item = f64> {
    let seconds = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    [0.25, 0.5].into_iter().chain(seconds.map(f64::from))
}

/// kube-proxy's buckets: fifteen from a millisecond on, doubling.
fn sync_buckets() -> impl Iterator<Item = f64> {
    (0..15).map(|power| 0.001 * f64::from(1 << power))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync_seconds: Histogram::new(sync_buckets()),
            full_sync_seconds: Histogram::new(sync_buckets()),
            partial_sync_seconds: Histogram::new(sync_buckets()),
            programming_seconds: Histogram::new(programming_buckets()),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            endpoint_changes: Counter::default(),
            endpoint_changes_pending: Gauge::default(),
            service_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            no_local_endpoints: Family::default(),
            rule_failures: Counter::default(),
            partial_failures: Counter::default(),
            cleanup_failures: Counter::default(),
            conntrack_deleted: Counter::default(),
            healthz: Family::default(),
            livez: Family::default(),
            failures: Counter::default(),
            writes: Counter::default(),
            destroyed_sockets: Counter::default(),
            services: Gauge::default(),
            backends: Gauge::default(),
            refused_services: Gauge::default(),
            map_entries: Family::default(),
            map_limit: Family::default(),
            maps_grown: Counter::default(),
        }
    }
}

impl Metrics {
    /// A change was seen.
    pub(crate) fn queued_now(&self) {
        self.last_queued.set(jiff::Timestamp::now().as_second());
    }

    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let kube = registry.sub_registry_with_prefix("kubeproxy");
        kube.register(
            "sync_proxy_rules_duration_seconds",
            "Time of one synchronisation",
            self.sync_seconds.clone(),
        );
        kube.register(
            "sync_full_proxy_rules_duration_seconds",
            "Time of a synchronisation of all services",
            self.full_sync_seconds.clone(),
        );
        kube.register(
            "network_programming_duration_seconds",
            "Time from the change of an endpoint to its effect",
            self.programming_seconds.clone(),
        );
        kube.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "When it was synchronised last",
            self.last_sync.clone(),
        );
        kube.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "When a change was seen last",
            self.last_queued.clone(),
        );
        kube.register(
            "sync_proxy_rules_endpoint_changes",
            "Changed endpoint slices",
            self.endpoint_changes.clone(),
        );
        kube.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Changed endpoint slices not synchronised yet",
            self.endpoint_changes_pending.clone(),
        );
        kube.register("sync_proxy_rules_service_changes", "Changed services", self.service_changes.clone());
        kube.register(
            "sync_proxy_rules_service_changes_pending",
            "Changed services not synchronised yet",
            self.service_changes_pending.clone(),
        );
        kube.register(
            "sync_proxy_rules_no_local_endpoints",
            "Ports that a local traffic policy leaves without endpoints",
            self.no_local_endpoints.clone(),
        );
        kube.register(
            "sync_partial_proxy_rules_duration_seconds",
            "Time of writing a change of rules",
            self.partial_sync_seconds.clone(),
        );
        kube.register(
            "conntrack_reconciler_deleted_entries",
            "Stale entries of connections that were deleted",
            self.conntrack_deleted.clone(),
        );
        kube.register("proxy_healthz", "Answers of /healthz by status", self.healthz.clone());
        kube.register("proxy_livez", "Answers of /livez by status", self.livez.clone());
        for (name, help, counter) in [
            (
                "sync_proxy_rules_nftables_cleanup_failures",
                "Unused chains that stayed",
                &self.cleanup_failures,
            ),
            ("sync_proxy_rules_failures", "Failures to write all rules", &self.rule_failures),
            (
                "sync_proxy_rules_partial_failures",
                "Failures to write a change of rules",
                &self.partial_failures,
            ),
        ] {
            kube.register(name, help, counter.clone());
        }
        let own = registry.sub_registry_with_prefix("skep_proxy");
        own.register(
            "sync_failures",
            "Synchronisations that failed and were tried again",
            self.failures.clone(),
        );
        own.register("map_writes", "Writes to the maps of services", self.writes.clone());
        own.register(
            "destroyed_sockets",
            "Sockets destroyed as their backend went",
            self.destroyed_sockets.clone(),
        );
        own.register("services", "Services in the maps", self.services.clone());
        own.register("backends", "Backends in the maps", self.backends.clone());
        own.register("map_entries", "Entries of a map", self.map_entries.clone());
        own.register("map_limit", "How many entries a map can hold", self.map_limit.clone());
        own.register("maps_grown", "Maps that were replaced by larger ones", self.maps_grown.clone());
        own.register(
            "refused_services",
            "Services that are not as they should be, as a map has no room",
            self.refused_services.clone(),
        );
    }
}
