//! The agent's metrics about network policy.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What was not let through.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeniedLabels {
    /// `namespace/name` of the pod whose policies decided.
    pub pod: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// The policies that isolate it.
    pub policies: String,
}

/// The metrics; cheap to clone, all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) policies: Gauge,
    pub(crate) tables: Gauge,
    pub(crate) identities: Gauge,
    pub(crate) writes: Counter,
    pub(crate) failures: Counter,
    pub(crate) denied: Family<DeniedLabels, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("skep_network_policy");
        registry.register("policies", "NetworkPolicies known", self.policies.clone());
        registry.register("tables", "Rule tables of this node's pods", self.tables.clone());
        registry.register("identities", "Kinds of pods told apart", self.identities.clone());
        registry.register("writes", "Batches written to the kernel's maps", self.writes.clone());
        registry.register(
            "failures",
            "Times that policies could not be brought into the kernel",
            self.failures.clone(),
        );
        registry.register("denied_packets", "Packets that no policy allowed", self.denied.clone());
    }
}
