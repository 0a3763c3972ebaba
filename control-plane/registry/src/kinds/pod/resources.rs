//! Rules of resource requirements, and the quality of service they make.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use crate::strategy::check::At;

const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const HUGE: &str = "hugepages-";

/// Whether a container may ask for this resource: a standard one, or one with a domain.
pub(in crate::kinds) fn name(entry: &At<'_>, map: &At<'_>, name: &str) {
    let complain = |detail: String| entry.error(Error::invalid(map.path(), name, detail));
    let faults = names::qualified_name(name);
    if !faults.is_empty() {
        faults.into_iter().for_each(complain);
        return;
    }
    let standard = STANDARD.contains(&name) || name.starts_with(HUGE);
    if !name.contains('/') && !standard {
        complain("must be a standard resource type or fully qualified".to_owned());
        complain("must be a standard resource for containers".to_owned());
    }
}

fn extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn amount(at: &At<'_>, resource: &str) {
    let Some(quantity) = at.quantity() else { return };
    if quantity.sign() < 0 {
        at.invalid("must be greater than or equal to 0");
    }
    if extended(resource) && !quantity.is_integer() {
        at.invalid("must be an integer");
    }
    if let Some(size) = resource.strip_prefix(HUGE) {
        let page: Option<Quantity> = size.parse().ok();
        let page = page.map_or(0, |page| page.value());
        if page > 0 && quantity.value() % page != 0 {
            at.invalid("must be an integer multiple of the page size");
        }
    }
}

fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Limits and requests: well-formed amounts, requests within limits. `spec` is the pod's, whose claims may be named.
pub(super) fn requirements(resources: &At<'_>, spec: Option<&At<'_>>) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    let mut huge = false;
    let mut base = false;
    for map in [&limits, &requests] {
        for (resource, value) in map.entries() {
            name(&value, map, resource);
            amount(&value, resource);
            huge |= resource.starts_with(HUGE);
            base |= ["cpu", "memory"].contains(&resource);
        }
    }
    for (resource, value) in requests.entries() {
        let Some(wanted) = parse(value.value()) else { continue };
        let overcommits = !extended(resource) && !resource.starts_with(HUGE);
        let Some(limit) = parse(limits.child(resource).value()) else {
            if !overcommits {
                limits.required("Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let detail = if wanted != limit && !overcommits {
            format!("must be equal to {resource} limit of {limit}")
        } else if wanted > limit {
            format!("must be less than or equal to {resource} limit of {limit}")
        } else {
            continue;
        };
        requests.error(Error::invalid(requests.path(), wanted.to_string(), detail));
    }
    if huge && !base {
        resources.forbidden("HugePages require cpu or memory");
    }
    claims(&resources.child("claims"), spec);
}

fn claims(claims: &At<'_>, spec: Option<&At<'_>>) {
    let known: BTreeSet<&str> = spec.map_or_else(BTreeSet::new, |spec| {
        spec.child("resourceClaims").items().iter().map(|claim| claim.child("name").text()).collect()
    });
    let mut taken = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.child("name"), claim.child("request"));
        if !name.require() {
            continue;
        }
        if !taken.insert((name.text(), request.text())) {
            let text = if request.is_empty() {
                name.text().to_owned()
            } else {
                format!("{}/{}", name.text(), request.text())
            };
            claim.error(Error::duplicate(claim.path(), text));
        }
        if !known.contains(name.text()) {
            claim.error(Error::not_found(claim.path(), name.text()));
        }
    }
}

/// `resizePolicy`: what a change of resources does to a running container.
pub(super) fn resize_policies(policies: &At<'_>, spec: &At<'_>) {
    let mut taken = BTreeSet::new();
    let never = spec.child("restartPolicy").text() == "Never";
    for policy in policies.items() {
        let (resource, restart) = (policy.child("resourceName"), policy.child("restartPolicy"));
        if !taken.insert(resource.text()) {
            policy.error(Error::duplicate(policy.path(), resource.text()));
        }
        resource.told_at(policies.path().clone()).require_one_of(&["cpu", "memory"]);
        let restart = restart.told_at(policies.path().clone());
        restart.require_one_of(&["NotRequired", "RestartContainer"]);
        if never && restart.text() != "NotRequired" {
            restart.invalid("must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

/// `overhead`: what the pod costs beside its containers.
pub(in crate::kinds) fn overhead(overhead: &At<'_>) {
    // Upstream checks it as limits, and its paths say so.
    let limits = overhead.told_at(overhead.path().child("limits"));
    for (resource, value) in limits.entries() {
        name(&value, &limits, resource);
        amount(&value, resource);
    }
}

/// Resources of the pod as a whole: no less than its containers ask for.
pub(super) fn pod(spec: &At<'_>) {
    let resources = spec.child("resources");
    if !resources.is_set() {
        return;
    }
    if resources.child("claims").is_set() {
        resources.child("claims").forbidden("claims cannot be set for Resources at pod-level");
    }
    for list in ["limits", "requests"] {
        let map = resources.child(list);
        for (resource, value) in map.entries() {
            let faults = names::qualified_name(resource);
            if !faults.is_empty() {
                for detail in faults {
                    map.error(Error::invalid(map.path(), resource, detail));
                }
            } else if !["cpu", "memory"].contains(&resource) && !resource.starts_with(HUGE) {
                map.error(Error::not_supported(map.path(), resource, &["cpu", "hugepages-", "memory"]));
            }
            amount(&value, resource);
        }
    }
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    for (resource, value) in requests.entries() {
        let (Some(wanted), Some(limit)) = (parse(value.value()), parse(limits.child(resource).value()))
        else {
            continue;
        };
        if wanted > limit {
            let detail = format!("must be less than or equal to {resource} limit of {limit}");
            requests.error(Error::invalid(requests.path(), wanted.to_string(), detail));
        }
    }
    consistency(spec, &limits, &requests);
}

fn consistency(spec: &At<'_>, limits: &At<'_>, requests: &At<'_>) {
    let zero = Quantity::from_int(0);
    for (resource, total) in total_requests(spec.value()) {
        let own = parse(requests.child(&resource).value()).unwrap_or(zero);
        let counted = ["cpu", "memory"].contains(&resource.as_str()) || resource.starts_with(HUGE);
        if counted && total > own {
            let path = requests.path().key(&resource);
            let detail = format!("must be greater than or equal to aggregate container requests of {total}");
            requests.error(Error::invalid(&path, own.to_string(), detail));
        }
    }
    for container in spec.child("containers").items() {
        for (resource, value) in container.child("resources").child("limits").entries() {
            let most = parse(limits.child(resource).value());
            if let (Some(limit), Some(most)) = (parse(value.value()), most)
                && limit > most
            {
                let detail = format!("must be less than or equal to pod limits of {most}");
                value.error(Error::invalid(value.path(), limit.to_string(), detail));
            }
        }
    }
}

/// What the containers ask for together: those that run side by side summed, those that run before as the largest.
fn total_requests(spec: &Value) -> BTreeMap<String, Quantity> {
    let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
    let add = |into: &mut BTreeMap<String, Quantity>, container: &Value| {
        for (resource, value) in container.map(&["resources", "requests"]).into_iter().flatten() {
            if let Some(quantity) = parse(value) {
                let so_far = into.get(resource).map_or(quantity, |have| have.plus(&quantity));
                into.insert(resource.clone(), so_far);
            }
        }
    };
    for container in spec.items(&["containers"]) {
        add(&mut sum, container);
    }
    let mut sidecars = BTreeMap::new();
    let mut most: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in spec.items(&["initContainers"]) {
        let mut now = sidecars.clone();
        add(&mut now, container);
        if container.text(&["restartPolicy"]) == "Always" {
            add(&mut sidecars, container);
            add(&mut sum, container);
        }
        for (resource, quantity) in now {
            if most.get(&resource).is_none_or(|have| quantity > *have) {
                most.insert(resource, quantity);
            }
        }
    }
    for (resource, quantity) in most {
        if sum.get(&resource).is_none_or(|have| quantity > *have) {
            sum.insert(resource, quantity);
        }
    }
    sum
}

/// The quality of service class of a pod, from cpu and memory of all its containers.
pub(super) fn quality(spec: &Value) -> &'static str {
    let amount = |owner: &Value, list: &str, resource: &str| {
        owner.at(&["resources", list, resource]).and_then(parse).filter(|q| !q.is_zero())
    };
    // Resources of the pod as a whole count instead of its containers'.
    let whole = spec.at(&["resources"]).is_some_and(|r| r.get("limits").or(r.get("requests")).is_some());
    let owners: Vec<&Value> = if whole {
        vec![spec]
    } else {
        spec.items(&["containers"]).iter().chain(spec.items(&["initContainers"])).collect()
    };
    let (mut any, mut guaranteed) = (false, true);
    for owner in owners {
        for resource in ["cpu", "memory"] {
            let limit = amount(owner, "limits", resource);
            let request = amount(owner, "requests", resource);
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
