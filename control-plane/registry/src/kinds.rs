//! The table of kinds: one row makes routes, discovery, storage keys and RBAC resources.
//!
//! A new kind is a file below this module and a line in [`TABLE`]. Invariants (tested): no two rows share a
//! group, version and kind or a group, version and plural; an alias points at a row that stores.

mod config_map;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod pvc;
mod replica_set;
mod replication_controller;
mod role;
mod role_binding;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod workload;

use crate::strategy::{KindRow, Storage, Strategy, Subresource};

/// Every built-in kind.
pub static TABLE: &[&KindRow] = &[
    // core
    &config_map::ROW,
    &endpoints::ROW,
    &event::CORE,
    &namespace::ROW,
    &node::ROW,
    &pvc::ROW,
    &pod::ROW,
    &replication_controller::ROW,
    &secret::ROW,
    &service::ROW,
    &service_account::ROW,
    // apps
    &daemon_set::ROW,
    &deployment::ROW,
    &replica_set::ROW,
    &stateful_set::ROW,
    // coordination.k8s.io
    &lease::ROW,
    // discovery.k8s.io
    &endpoint_slice::ROW,
    // events.k8s.io
    &event::EVENTS,
    // rbac.authorization.k8s.io
    &role::CLUSTER_ROLE,
    &role::ROLE,
    &role_binding::CLUSTER_ROLE_BINDING,
    &role_binding::ROLE_BINDING,
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
