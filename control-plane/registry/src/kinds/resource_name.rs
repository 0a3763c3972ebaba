//! Names of resources: what the system knows itself, and what others may name with a domain.

use skep_api::field::Error;
use skep_api::names;

use crate::strategy::check::At;

const CONTAINER: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// What a quota may count without a domain.
const QUOTA: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Things, of which there are no fractions.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const HUGE: &str = "hugepages-";

fn huge_in_quota(name: &str) -> bool {
    name.starts_with(HUGE) || name.starts_with("requests.hugepages-")
}

/// Is it one of the system's: without a domain, or with Kubernetes' own?
pub(in crate::kinds) fn native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Is it one that a device plug-in or another third party offers?
pub(in crate::kinds) fn extended(name: &str) -> bool {
    !native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// May requests be less than limits?
pub(in crate::kinds) fn overcommits(name: &str) -> bool {
    native(name) && !name.starts_with(HUGE)
}

/// Does a quota know it without a domain?
pub(in crate::kinds) fn in_quota(name: &str) -> bool {
    QUOTA.contains(&name) || huge_in_quota(name)
}

/// Are there no fractions of it?
pub(in crate::kinds) fn integer(name: &str) -> bool {
    COUNTED.contains(&name) || extended(name)
}

/// Complains at an entry of a list of amounts about its name. Says whether it is a good one.
pub(in crate::kinds) fn known(entry: &At<'_>, name: &str) -> bool {
    let faults = names::qualified_name(name);
    let unknown = !name.contains('/') && !in_quota(name) && name != "storage";
    let fine = faults.is_empty() && !unknown;
    let own = unknown && faults.is_empty();
    let own = own.then(|| "must be a standard resource type or fully qualified".to_owned());
    for detail in faults.into_iter().chain(own) {
        entry.error(Error::invalid(entry.path(), name, detail));
    }
    fine
}

/// The same for what a container asks for.
pub(in crate::kinds) fn of_container(entry: &At<'_>, name: &str) {
    known(entry, name);
    let complain = |detail: &str| entry.error(Error::invalid(entry.path(), name, detail));
    if !name.contains('/') {
        if !CONTAINER.contains(&name) && !name.starts_with(HUGE) {
            complain("must be a standard resource for containers");
        }
    } else if !native(name) && !extended(name) {
        complain("doesn't follow extended resource name standard");
    }
}

/// The same for what a quota bounds.
pub(in crate::kinds) fn of_quota(entry: &At<'_>, name: &str) {
    known(entry, name);
    if !name.contains('/') && !in_quota(name) {
        entry.error(Error::invalid(entry.path(), name, "must be a standard resource for quota"));
    }
}

/// An amount of a resource: not negative, and whole where there are no fractions.
pub(in crate::kinds) fn amount(entry: &At<'_>, name: &str) {
    let Some(quantity) = entry.quantity() else { return };
    if quantity.sign() < 0 {
        entry.invalid("must be greater than or equal to 0");
    }
    if integer(name) && !quantity.is_integer() {
        entry.invalid("must be an integer");
    }
}
