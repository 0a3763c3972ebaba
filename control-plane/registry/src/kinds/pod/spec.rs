//! Rules of the spec of a pod, and of templates pods are made from. The order is upstream's, so that lists of errors
//! read alike.

use std::collections::BTreeSet;

use skep_api::field::Error;
use skep_api::names;

use super::{affinity, annotations, containers, resources, security, volumes};
use crate::strategy::check::At;
use crate::strategy::{address, meta};

pub(in crate::kinds) use super::affinity::{node_selector, tolerations};

const MAX_SECONDS: i64 = i32::MAX as i64;
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// Whether a spec is that of a pod, or of a template that leaves some things open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinds) enum Scope {
    Pod,
    Template,
}

/// The spec of a pod.
pub(in crate::kinds) fn validate(spec: &At<'_>, scope: Scope) {
    if !spec.child("terminationGracePeriodSeconds").is_set() {
        spec.child("terminationGracePeriodSeconds").required("");
    }
    let volumes = volumes::all(&spec.child("volumes"));
    claims(&spec.child("resourceClaims"));
    containers::all(spec, &volumes, scope);
    resources::pod(spec);
    containers::host_network(spec, scope);
    spec.child("restartPolicy").require_one_of(&["Always", "OnFailure", "Never"]);
    let policies = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    spec.child("dnsPolicy").require_one_of(policies);
    spec.child("nodeSelector").labels();
    security::pod(spec);
    affinity::validate(&spec.child("affinity"));
    dns(spec);
    for gate in spec.child("readinessGates").items() {
        let condition = gate.child("conditionType");
        condition.invalid_text(names::qualified_name(condition.text()));
    }
    scheduling_gates(&spec.child("schedulingGates"));
    affinity::spread(&spec.child("topologySpreadConstraints"));
    security::host_users(spec);
    spec.child("serviceAccountName").named(names::dns1123_subdomain);
    spec.child("nodeName").named(names::dns1123_subdomain);
    spec.child("activeDeadlineSeconds").within(1, MAX_SECONDS);
    spec.child("hostname").named(names::dns1123_label);
    spec.child("hostnameOverride").named(names::dns1123_subdomain);
    spec.child("subdomain").named(names::dns1123_label);
    tolerations(&spec.child("tolerations"));
    for alias in spec.child("hostAliases").items() {
        address::ip(&alias.child("ip"));
        for host in alias.child("hostnames").items() {
            host.named(names::dns1123_subdomain);
        }
    }
    spec.child("priorityClassName").named(names::dns1123_subdomain);
    let class = spec.child("runtimeClassName");
    if class.is_set() {
        class.invalid_all(names::dns1123_subdomain(class.text()));
    }
    let preemption = spec.child("preemptionPolicy");
    if preemption.is_set() {
        preemption.require_one_of(&["PreemptLowerPriority", "Never"]);
    }
    resources::overhead(&spec.child("overhead"));
    security::os(spec);
}

/// A template in a controller: metadata of the pods to be, and their spec.
pub(in crate::kinds) fn template(template: &At<'_>) {
    let notes = template_metadata(template);
    let spec = template.child("spec");
    validate(&spec, Scope::Template);
    annotations::match_fields(&notes, &spec);
    if !spec.child("ephemeralContainers").is_empty() {
        spec.child("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template");
    }
}

/// Labels and annotations of a template. Upstream tells them without `metadata` in the path.
pub(in crate::kinds) fn template_metadata<'a>(template: &At<'a>) -> At<'a> {
    let metadata = template.child("metadata");
    metadata.child("labels").told_at(template.path().child("labels")).labels();
    let notes = metadata.child("annotations").told_at(template.path().child("annotations"));
    meta::annotations(&notes);
    annotations::validate(&notes, &template.child("spec"));
    notes
}

/// A template whose pods run for ever, made by a controller of this kind.
pub(in crate::kinds) fn lasting_template(at: &At<'_>, kind: &str) {
    template(at);
    let spec = at.child("spec");
    let policy = spec.child("restartPolicy");
    if policy.text() != "Always" {
        policy.error(Error::not_supported(policy.path(), policy.text(), &["Always"]));
    }
    if spec.child("activeDeadlineSeconds").is_set() {
        spec.child("activeDeadlineSeconds")
            .forbidden(format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn claims(claims: &At<'_>) {
    let mut taken = BTreeSet::new();
    for claim in claims.items() {
        let name = claim.child("name");
        if name.require() {
            if taken.insert(name.text()) {
                name.invalid_all(names::dns1123_label(name.text()));
            } else {
                name.duplicate();
            }
        }
        let (direct, template) = (claim.child("resourceClaimName"), claim.child("resourceClaimTemplateName"));
        match (direct.is_set(), template.is_set()) {
            (true, true) => claim.invalid(
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => {
                claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for reference in [direct, template].iter().filter(|r| r.is_set()) {
            reference.invalid_all(names::dns1123_subdomain(reference.text()));
        }
    }
}

fn scheduling_gates(gates: &At<'_>) {
    let mut taken = BTreeSet::new();
    for gate in gates.items() {
        let name = gate.child("name").text();
        for detail in names::qualified_name(name) {
            gate.error(Error::invalid(gate.path(), name, detail));
        }
        if !taken.insert(name) {
            gate.error(Error::duplicate(gate.path(), name));
        }
    }
}

fn dns(spec: &At<'_>) {
    let config = spec.child("dnsConfig");
    let servers = config.child("nameservers");
    if spec.child("dnsPolicy").text() == "None" {
        if !config.is_set() {
            config.required("must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None");
            return;
        }
    }
    if servers.items().len() > MAX_SERVERS {
        servers.invalid(format!("must not have more than {MAX_SERVERS} nameservers"));
    }
    for server in servers.items() {
        address::ip(&server);
    }
    let searches = config.child("searches");
    let items = searches.items();
    if items.len() > MAX_SEARCHES {
        searches.invalid(format!("must not have more than {MAX_SEARCHES} search paths"));
    }
    let characters: usize = items.iter().map(|s| s.text().len() + 1).sum();
    if characters > MAX_SEARCH_CHARACTERS + 1 {
        searches.invalid(format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        ));
    }
    for search in items.iter().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        for detail in names::dns1123_subdomain_with_underscore(text) {
            search.error(Error::invalid(search.path(), text, detail));
        }
    }
    for option in config.child("options").items() {
        if option.child("name").is_empty() {
            option.required("must not be empty");
        }
    }
}
