//! Rules of the spec of a pod, and of templates pods are made from.

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;

use super::{containers, volumes};
use crate::strategy::check::At;
use crate::strategy::meta;

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const MAX_SECONDS: i64 = i32::MAX as i64;

/// The spec of a pod.
pub(in crate::kinds) fn validate(spec: &At<'_>) {
    let volumes = volumes::all(&spec.child("volumes"));
    containers::all(spec, &volumes);
    spec.child("restartPolicy").require_one_of(&["Always", "Never", "OnFailure"]);
    dns(spec);
    spec.child("activeDeadlineSeconds").within(1, MAX_SECONDS);
    spec.child("nodeSelector").labels();
    spec.child("serviceAccountName").named(names::dns1123_subdomain);
    spec.child("nodeName").named(names::dns1123_subdomain);
    spec.child("priorityClassName").named(names::dns1123_subdomain);
    spec.child("runtimeClassName").named(names::dns1123_subdomain);
    spec.child("hostname").named(names::dns1123_label);
    spec.child("subdomain").named(names::dns1123_label);
    spec.child("schedulerName").named(names::qualified_name);
    spec.child("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"]);
    tolerations(&spec.child("tolerations"));
    affinity(&spec.child("affinity"));
    spread(&spec.child("topologySpreadConstraints"));
    for alias in spec.child("hostAliases").items() {
        ip(&alias.child("ip"));
        for host in alias.child("hostnames").items() {
            host.named(names::dns1123_subdomain);
        }
    }
    for gate in spec.child("readinessGates").items() {
        gate.child("conditionType").require_named(names::qualified_name);
    }
    let mut gates = Vec::new();
    for gate in spec.child("schedulingGates").items() {
        let name = gate.child("name");
        name.require_named(names::qualified_name);
        if gates.contains(&name.text()) {
            gate.error(Error::duplicate(gate.path(), name.text()));
        }
        gates.push(name.text());
    }
    security(spec);
}

/// A template in a controller: metadata of the pods to be, and their spec.
pub(in crate::kinds) fn template(template: &At<'_>) {
    let metadata = template.child("metadata");
    metadata.child("labels").labels();
    meta::annotations(&metadata.child("annotations"));
    let spec = template.child("spec");
    validate(&spec);
    if !spec.child("ephemeralContainers").is_empty() {
        spec.child("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template");
    }
}

/// A template whose pods run for ever, made by a controller of this kind.
pub(in crate::kinds) fn lasting_template(at: &At<'_>, kind: &str) {
    template(at);
    let spec = at.child("spec");
    let policy = spec.child("restartPolicy");
    if ["Never", "OnFailure"].contains(&policy.text()) {
        policy.one_of(&["Always"]);
    }
    if spec.child("activeDeadlineSeconds").is_set() {
        spec.child("activeDeadlineSeconds")
            .forbidden(format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn dns(spec: &At<'_>) {
    let policy = spec.child("dnsPolicy");
    policy.require_one_of(&["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    let config = spec.child("dnsConfig");
    let servers = config.child("nameservers");
    if policy.text() == "None" {
        if !config.is_set() {
            config.required("must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if servers.items().len() > 3 {
        servers.invalid("must not have more than 3 nameservers");
    }
    servers.items().iter().for_each(ip);
    let searches = config.child("searches");
    if searches.items().len() > 32 {
        searches.invalid("must not have more than 32 search paths");
    }
    for option in config.child("options").items() {
        option.child("name").require_with("must not be empty");
    }
}

/// An IP address, in the words upstream uses for one that is none.
pub(in crate::kinds) fn ip(address: &At<'_>) {
    if address.text().parse::<std::net::IpAddr>().is_err() {
        address.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

fn tolerations(tolerations: &At<'_>) {
    for toleration in tolerations.items() {
        let key = toleration.child("key");
        let operator = toleration.child("operator");
        let effect = toleration.child("effect");
        key.named(names::qualified_name);
        if key.is_empty() && operator.text() != "Exists" {
            operator.error(Error::invalid(
                operator.path(),
                operator.text(),
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ));
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.error(Error::invalid(
                effect.path(),
                effect.text(),
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            ));
        }
        let value = toleration.child("value");
        match operator.text() {
            "" | "Equal" => value.invalid_all(names::label_value(value.text())),
            "Exists" if !value.is_empty() => {
                operator.error(Error::invalid(
                    operator.path(),
                    value.text(),
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
            "Exists" | "Gt" | "Lt" => {}
            _ => operator.one_of(&["Equal", "Exists"]),
        }
        effect.one_of(EFFECTS);
    }
}

const SOFT: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const HARD: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn affinity(affinity: &At<'_>) {
    let node = affinity.child("nodeAffinity");
    let required = node.child(HARD);
    if required.is_set() {
        let terms = required.child("nodeSelectorTerms");
        terms.require_with("must have at least one node selector term");
        terms.items().iter().for_each(node_term);
    }
    for term in node.child(SOFT).items() {
        weight(&term.child("weight"));
        node_term(&term.child("preference"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.child(kind);
        pods.child(HARD).items().iter().for_each(pod_term);
        for term in pods.child(SOFT).items() {
            weight(&term.child("weight"));
            pod_term(&term.child("podAffinityTerm"));
        }
    }
}

fn weight(weight: &At<'_>) {
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        weight.invalid("must be in the range 1-100");
    }
}

fn node_term(term: &At<'_>) {
    for (list, fields) in [("matchExpressions", false), ("matchFields", true)] {
        for expression in term.child(list).items() {
            let values = expression.child("values");
            let operator = expression.child("operator");
            match operator.text() {
                "In" | "NotIn" if values.is_empty() => {
                    values.required("must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
                "Gt" | "Lt" if values.items().len() != 1 => {
                    values.required("must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                _ => operator.invalid("not a valid selector operator"),
            }
            let key = expression.child("key");
            if fields {
                key.one_of(&["metadata.name"]);
            } else {
                key.invalid_all(names::qualified_name(key.text()));
            }
        }
    }
}

fn pod_term(term: &At<'_>) {
    term.child("labelSelector").selector();
    term.child("namespaceSelector").selector();
    for namespace in term.child("namespaces").items() {
        namespace.invalid_all(names::dns1123_label(namespace.text()));
    }
    let key = term.child("topologyKey");
    if key.require_with("can not be empty") {
        key.named(names::qualified_name);
    }
}

fn spread(constraints: &At<'_>) {
    let mut taken: Vec<(&Value, &str)> = Vec::new();
    for constraint in constraints.items() {
        let skew = constraint.child("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            skew.invalid("must be greater than zero");
        }
        let key = constraint.child("topologyKey");
        key.require_with("can not be empty");
        let action = constraint.child("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.text()) {
            action.error(Error::not_supported(
                action.path(),
                action.text(),
                &["DoNotSchedule", "ScheduleAnyway"],
            ));
        }
        if taken.iter().any(|(k, a)| *k == key.value() && *a == action.text()) {
            let pair = format!("{{{}, {}}}", key.text(), action.text());
            constraint
                .error(Error::duplicate(&constraint.path().child("{topologyKey, whenUnsatisfiable}"), pair));
        }
        taken.push((key.value(), action.text()));
        constraint.child("labelSelector").selector();
        let domains = constraint.child("minDomains");
        domains.positive();
        if domains.is_set() && action.text() != "DoNotSchedule" {
            domains.invalid("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway");
        }
    }
}

fn security(spec: &At<'_>) {
    let context = spec.child("securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        context.child(field).within(0, MAX_SECONDS);
    }
    for group in context.child("supplementalGroups").items() {
        group.within(0, MAX_SECONDS);
    }
    context.child("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"]);
    let mut taken = Vec::new();
    for sysctl in context.child("sysctls").items() {
        let name = sysctl.child("name");
        name.require();
        if taken.contains(&name.text()) {
            name.duplicate();
        }
        taken.push(name.text());
    }
    if spec.child("shareProcessNamespace").flag() && spec.child("hostPID").flag() {
        spec.child("shareProcessNamespace")
            .invalid("ShareProcessNamespace and HostPID cannot both be enabled");
    }
}
