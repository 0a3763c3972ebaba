//! Rules of resource requirements, and the quality of service they make.

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use crate::strategy::check::At;

/// Whether a container may ask for this resource: a standard one, or one with a domain.
fn name(entry: &At<'_>, map: &At<'_>, name: &str) {
    let complain = |detail: String| entry.error(Error::invalid(map.path(), name, detail));
    names::qualified_name(name).into_iter().for_each(complain);
    let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        complain("must be a standard resource type or fully qualified".to_owned());
        complain("must be a standard resource for containers".to_owned());
    }
}

fn extended(name: &str) -> bool {
    name.contains('/') && !name.starts_with("kubernetes.io/")
}

/// Limits and requests: well-formed amounts, requests within limits.
pub(super) fn requirements(resources: &At<'_>) {
    let limits = resources.child("limits");
    let requests = resources.child("requests");
    for map in [&limits, &requests] {
        for (resource, amount) in map.entries() {
            name(&amount, map, resource);
            let Some(quantity) = amount.quantity() else { continue };
            if quantity.sign() < 0 {
                amount.invalid("must be greater than or equal to 0");
            }
            if extended(resource) && !quantity.is_integer() {
                amount.invalid("must be an integer");
            }
        }
    }
    for (resource, amount) in requests.entries() {
        let parse = |value: &Value| value.as_str().and_then(|t| t.parse::<Quantity>().ok());
        let limit = limits.child(resource);
        let (Some(wanted), Some(limit)) = (parse(amount.value()), parse(limit.value())) else { continue };
        let overcommits = !extended(resource) && !resource.starts_with("hugepages-");
        let detail = if wanted != limit && !overcommits {
            format!("must be equal to {resource} limit of {limit}")
        } else if wanted > limit {
            format!("must be less than or equal to {resource} limit of {limit}")
        } else {
            continue;
        };
        requests.error(Error::invalid(requests.path(), wanted.to_string(), detail));
    }
}

/// The quality of service class of a pod, from cpu and memory of all its containers.
pub(super) fn quality(spec: &Value) -> &'static str {
    let amount = |container: &Value, list: &str, resource: &str| {
        let text = container.text(&["resources", list, resource]);
        text.parse::<Quantity>().ok().filter(|q| !q.is_zero())
    };
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.items(&["containers"]).iter().chain(spec.items(&["initContainers"])) {
        for resource in ["cpu", "memory"] {
            let limit = amount(container, "limits", resource);
            let request = amount(container, "requests", resource);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
