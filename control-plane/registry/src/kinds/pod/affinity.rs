//! Rules of where a pod wants to be: affinity to nodes and pods, spread over topologies, tolerations.

use std::collections::BTreeSet;

use skep_api::field::Error;
use skep_api::names;

use crate::strategy::check::At;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const SOFT: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const HARD: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// `affinity`.
pub(super) fn validate(affinity: &At<'_>) {
    let node = affinity.child("nodeAffinity");
    if node.child(HARD).is_set() {
        node_selector(&node.child(HARD));
    }
    for term in node.child(SOFT).items() {
        weight(&term.child("weight"));
        node_term(&term.child("preference"), false);
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
    let value = weight.int().unwrap_or(0);
    if !(1..=100).contains(&value) {
        weight.error(Error::invalid(weight.path(), value, "must be in the range 1-100"));
    }
}

/// A `NodeSelector`.
pub(in crate::kinds) fn node_selector(selector: &At<'_>) {
    let terms = selector.child("nodeSelectorTerms");
    if terms.require_with("must have at least one node selector term") {
        terms.items().iter().for_each(|term| node_term(term, true));
    }
}

/// Terms that merely prefer may name values that no label has.
fn node_term(term: &At<'_>, strict: bool) {
    for expression in term.child("matchExpressions").items() {
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
        key.invalid_text(names::qualified_name(key.text()));
        for value in values.items().iter().filter(|_| strict) {
            value.invalid_all(names::label_value(value.text()));
        }
    }
    for requirement in term.child("matchFields").items() {
        let values = requirement.child("values");
        let operator = requirement.child("operator");
        match operator.text() {
            "In" | "NotIn" if values.items().len() != 1 => {
                values.required(
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                );
            }
            "In" | "NotIn" => {}
            _ => operator.invalid("not a valid selector operator"),
        }
        let key = requirement.child("key");
        if key.text() == "metadata.name" {
            for value in values.items() {
                value.invalid_all(names::dns1123_subdomain(value.text()));
            }
        } else {
            key.invalid("not a valid field selector key");
        }
    }
}

fn pod_term(term: &At<'_>) {
    let selector = term.child("labelSelector");
    selector.selector();
    term.child("namespaceSelector").selector();
    for namespace in term.child("namespaces").items() {
        let path = term.path().child("namespace");
        namespace.told_at(path).invalid_text(names::dns1123_label(namespace.text()));
    }
    label_keys(term);
    let key = term.child("topologyKey");
    key.require_with("can not be empty");
    key.invalid_text(names::qualified_name(key.text()));
}

/// `matchLabelKeys` and `mismatchLabelKeys`: label names, each once, in one of the two, and only beside a selector.
fn label_keys(term: &At<'_>) {
    let (same, other) = (term.child("matchLabelKeys"), term.child("mismatchLabelKeys"));
    let selector = term.child("labelSelector");
    let named = |list: &At<'_>| -> BTreeSet<String> {
        list.items().iter().map(|key| key.text().to_owned()).collect()
    };
    for list in [&same, &other] {
        let mut taken = BTreeSet::new();
        for key in list.items() {
            key.invalid_all(names::qualified_name(key.text()));
            if !selector.is_set() {
                key.forbidden("must not be specified when labelSelector is not set");
            }
            if !taken.insert(key.text()) {
                key.duplicate();
            }
        }
    }
    let both = named(&same);
    for key in other.items().iter().filter(|key| both.contains(key.text())) {
        key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// `topologySpreadConstraints`.
pub(super) fn spread(constraints: &At<'_>) {
    let mut taken = BTreeSet::new();
    for constraint in constraints.items() {
        let skew = constraint.child("maxSkew");
        let value = skew.int().unwrap_or(0);
        if value <= 0 {
            skew.error(Error::invalid(skew.path(), value, "must be greater than zero"));
        }
        let key = constraint.child("topologyKey");
        if key.require_with("can not be empty") {
            key.named(names::qualified_name);
        }
        let action = constraint.child("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.text()) {
            let supported = &["DoNotSchedule", "ScheduleAnyway"];
            action.error(Error::not_supported(action.path(), action.text(), supported));
        }
        if !taken.insert((key.text(), action.text())) {
            let pair = format!("{{{}, {}}}", key.text(), action.text());
            let path = constraint.path().child("{topologyKey, whenUnsatisfiable}");
            constraint.error(Error::duplicate(&path, pair));
        }
        let domains = constraint.child("minDomains");
        if domains.int().is_some_and(|n| n <= 0) {
            domains.invalid("must be greater than zero");
        }
        if domains.is_set() && action.text() != "DoNotSchedule" {
            domains.error(Error::invalid(
                domains.path(),
                domains.value().clone(),
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text()),
            ));
        }
        constraint.child("nodeAffinityPolicy").one_of(&["Honor", "Ignore"]);
        constraint.child("nodeTaintsPolicy").one_of(&["Honor", "Ignore"]);
        let selector = constraint.child("labelSelector");
        let keys = constraint.child("matchLabelKeys");
        let mut seen = BTreeSet::new();
        for key in keys.items() {
            key.invalid_all(names::qualified_name(key.text()));
            if !selector.is_set() {
                key.forbidden("must not be specified when labelSelector is not set");
            } else if selector.child("matchLabels").child(key.text()).is_set() {
                key.invalid("exists in both matchLabelKeys and labelSelector");
            }
            if !seen.insert(key.text()) {
                key.duplicate();
            }
        }
        selector.selector();
    }
}

/// `tolerations`.
pub(in crate::kinds) fn tolerations(tolerations: &At<'_>) {
    for toleration in tolerations.items() {
        let key = toleration.child("key");
        let operator = toleration.child("operator");
        let effect = toleration.child("effect");
        let value = toleration.child("value");
        key.named(names::qualified_name);
        let complain = |at: &At<'_>, value: &str, detail: &str| {
            at.error(Error::invalid(at.path(), value, detail));
        };
        if key.is_empty() && operator.text() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            complain(&operator, operator.text(), detail);
        }
        if toleration.child("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            complain(&effect, effect.text(), "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                let faults = names::label_value(value.text());
                if !faults.is_empty() {
                    complain(&operator, value.text(), &faults.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                complain(&operator, value.text(), "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Gt" | "Lt" => {
                if value.text().parse::<i64>().is_err() {
                    complain(
                        &value,
                        value.text(),
                        "value must be an integer when `operator` is 'Gt' or 'Lt'",
                    );
                }
            }
            _ => operator.one_of(&["Equal", "Exists"]),
        }
        effect.one_of(EFFECTS);
    }
}
