//! The table of kinds: one row makes routes, discovery, storage keys and RBAC resources.
//!
//! A new kind is a file below this module and a line in [`TABLE`]. Invariants (tested): no two rows share a
//! group, version and kind or a group, version and plural; an alias points at a row that stores.

mod admission;
mod attachment;
mod autoscaler;
mod certificate_request;
mod config_map;
mod cron_job;
mod csi;
mod daemon_set;
mod definition;
mod deployment;
mod disruption_budget;
mod dra;
mod endpoint_slice;
mod endpoints;
mod event;
mod extension;
mod flow_control;
mod ingress;
mod job;
mod lease;
mod limit_range;
mod namespace;
mod network_policy;
mod node;
mod plain;
mod pod;
mod priority_class;
mod pv;
mod pvc;
mod replica_set;
mod replication_controller;
mod resource_name;
mod resource_quota;
mod review;
mod role;
mod role_binding;
mod secret;
mod service;
mod service_account;
pub(crate) mod service_cidr;
mod stateful_set;
mod workload;

#[cfg(test)]
mod tests;

use crate::strategy::{KindRow, Storage, Strategy, Subresource};

/// Every built-in kind.
pub static TABLE: &[&KindRow] = &[
    // core
    &review::BINDING,
    &review::COMPONENT,
    &config_map::ROW,
    &endpoints::ROW,
    &event::CORE,
    &limit_range::ROW,
    &namespace::ROW,
    &node::ROW,
    &pvc::ROW,
    &pv::ROW,
    &pod::ROW,
    &plain::POD_TEMPLATE,
    &replication_controller::ROW,
    &resource_quota::ROW,
    &secret::ROW,
    &service::ROW,
    &service_account::ROW,
    // admissionregistration.k8s.io
    &admission::MUTATING_POLICY,
    &admission::MUTATING_BINDING,
    &admission::MUTATING,
    &admission::VALIDATING_POLICY,
    &admission::VALIDATING_BINDING,
    &admission::VALIDATING,
    // apiextensions.k8s.io, apiregistration.k8s.io
    &definition::ROW,
    &extension::API_SERVICE,
    // apps
    &plain::CONTROLLER_REVISION,
    &daemon_set::ROW,
    &deployment::ROW,
    &replica_set::ROW,
    &stateful_set::ROW,
    // authentication.k8s.io, authorization.k8s.io
    &review::SELF,
    &review::TOKEN,
    &review::LOCAL_ACCESS,
    &review::SELF_ACCESS,
    &review::SELF_RULES,
    &review::ACCESS,
    // autoscaling: the preferred version first
    &autoscaler::V2,
    &autoscaler::V1,
    // batch
    &cron_job::ROW,
    &job::ROW,
    // certificates.k8s.io
    &certificate_request::ROW,
    // coordination.k8s.io
    &lease::ROW,
    // discovery.k8s.io
    &endpoint_slice::ROW,
    // events.k8s.io
    &event::EVENTS,
    // flowcontrol.apiserver.k8s.io
    &flow_control::SCHEMA,
    &flow_control::LEVEL,
    // networking.k8s.io
    &ingress::CLASS,
    &ingress::ROW,
    &service_cidr::IP_ADDRESS,
    &network_policy::ROW,
    &service_cidr::SERVICE_CIDR,
    // node.k8s.io
    &plain::RUNTIME_CLASS,
    // policy
    &disruption_budget::ROW,
    // rbac.authorization.k8s.io
    &role_binding::CLUSTER_ROLE_BINDING,
    &role::CLUSTER_ROLE,
    &role_binding::ROLE_BINDING,
    &role::ROLE,
    // resource.k8s.io
    &dra::DEVICE_CLASS,
    &dra::RESOURCE_CLAIM,
    &dra::RESOURCE_CLAIM_TEMPLATE,
    &dra::RESOURCE_SLICE,
    // scheduling.k8s.io
    &priority_class::ROW,
    // storage.k8s.io
    &csi::DRIVER,
    &csi::NODE,
    &csi::CAPACITY,
    &pv::CLASS,
    &attachment::ROW,
    &attachment::CLASS,
];

/// The row of a resource.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static KindRow> {
    TABLE.iter().find(|r| r.group == group && r.version == version && r.plural == plural).copied()
}

/// The row of a kind.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static KindRow> {
    TABLE.iter().find(|r| r.group == group && r.version == version && r.kind == kind).copied()
}

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const WRITE: &[&str] = &["get", "patch", "update"];

/// A row of a namespaced kind with every verb and no subresource.
const fn namespaced(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    strategy: &'static dyn Strategy,
) -> KindRow {
    KindRow {
        group,
        version,
        kind,
        plural,
        short_names: &[],
        categories: &[],
        namespaced: true,
        generation: &[],
        subresources: &[],
        verbs: ALL,
        storage: Storage::Own,
        deprecated: None,
        strategy,
    }
}

/// The same of a kind outside namespaces.
const fn cluster(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    strategy: &'static dyn Strategy,
) -> KindRow {
    KindRow { namespaced: false, ..namespaced(group, version, kind, plural, strategy) }
}

const fn subresource(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
) -> Subresource {
    Subresource { name, kind: (group, version, kind), verbs }
}

/// The status, written apart from the spec.
const fn status(group: &'static str, version: &'static str, kind: &'static str) -> Subresource {
    subresource("status", group, version, kind, WRITE)
}

/// Replica counts in a form common to all scalable kinds.
const SCALE: Subresource = subresource("scale", "autoscaling", "v1", "Scale", WRITE);

/// Requests passed through to what the object stands for.
const fn proxy(kind: &'static str) -> Subresource {
    subresource("proxy", "", "v1", kind, &["create", "delete", "get", "patch", "update"])
}
