//! What a class says of its devices: selectors, configuration, the name of an extended resource.

use skep_api::names;

use super::rules::{configuration, list, selectors};
use crate::strategy::check::At;

/// Configurations of a class.
const MAX_CONFIG: usize = 32;

/// The spec of a class. `compile`: the selectors are new.
pub(super) fn class(spec: &At<'_>, compile: bool) {
    selectors(&spec.child("selectors"), compile);
    list(&spec.child("config"), MAX_CONFIG, configuration);
    let resource = spec.child("extendedResourceName");
    if resource.is_set() && !extended(resource.text()) {
        resource.invalid("must be a valid extended resource name");
    }
}

/// A name with a domain that is not Kubernetes' own.
fn extended(name: &str) -> bool {
    let own = !name.contains('/') || name.contains("kubernetes.io/");
    !own && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}
