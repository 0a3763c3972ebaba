//! What is wrong with a FlowSchema or a PriorityLevelConfiguration.

use skep_api::names;
use skep_flow_control::{bootstrap, shuffle};

use crate::strategy::check::{At, same};

/// More queues than this no level needs.
const MOST_QUEUES: i64 = 10_000_000;

const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The spec of a mandatory object is fixed, but for the numbers of the exempt level.
fn fixed(spec: &At<'_>, kind: &str, name: &str) {
    let Some(wanted) = bootstrap::fixed_spec(kind, name) else { return };
    let loose = kind == "PriorityLevelConfiguration" && name == "exempt";
    let (mut wanted, mut found) = (wanted, spec.value().clone());
    if loose {
        for spec in [&mut wanted, &mut found] {
            if let Some(spec) = spec.as_object_mut() {
                spec.remove("exempt");
            }
        }
    }
    if !same(&wanted, &found) {
        let except = if loose { " except the 'spec.exempt' field" } else { "" };
        spec.invalid(format!("spec of '{name}'{except} must equal the fixed value"));
    }
}

/// Conditions have a type, and no two the same.
pub(super) fn conditions(status: &At<'_>) {
    let mut seen = Vec::new();
    for condition in status.child("conditions").items() {
        let kind = condition.child("type");
        if seen.contains(&kind.text()) {
            kind.duplicate();
        }
        seen.push(kind.text());
        kind.require_with("must not be empty");
    }
}

/// A FlowSchema.
pub(super) fn schema(root: &At<'_>) {
    let (name, spec) = (root.child("metadata").child("name"), root.child("spec"));
    let precedence = spec.child("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        ..=0 => precedence.invalid("must be a positive value"),
        1 if name.text() != "exempt" => {
            precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1");
        }
        10_001.. => precedence.invalid("must not be greater than 10000"),
        _ => {}
    }
    let method = spec.child("distinguisherMethod");
    if method.is_set() && !["ByNamespace", "ByUser"].contains(&method.child("type").text()) {
        let kind = method.child("type");
        kind.error(skep_api::field::Error::not_supported(
            kind.path(),
            method.value().clone(),
            &["ByNamespace", "ByUser"],
        ));
    }
    let level = spec.child("priorityLevelConfiguration").child("name");
    if level.require_with("must reference a priority level") {
        level.named(names::dns1123_subdomain);
    }
    for rule in spec.child("rules").items() {
        policy(&rule);
    }
    fixed(&spec, "FlowSchema", name.text());
    conditions(&root.child("status"));
}

fn policy(rule: &At<'_>) {
    let subjects = rule.child("subjects");
    subjects.require_with("subjects must contain at least one value");
    for subject in subjects.items() {
        check_subject(&subject);
    }
    let (resources, paths) = (rule.child("resourceRules"), rule.child("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        rule.required("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    resources.items().iter().for_each(resource_rule);
    paths.items().iter().for_each(path_rule);
}

fn check_subject(subject: &At<'_>) {
    const SECTIONS: [(&str, &str); 3] =
        [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.child("kind");
    let Some((_, own)) = SECTIONS.iter().find(|(known, _)| *known == kind.text()) else {
        let supported = ["Group", "ServiceAccount", "User"];
        kind.error(skep_api::field::Error::not_supported(kind.path(), kind.text(), &supported));
        return;
    };
    for (other, section) in SECTIONS {
        let at = subject.child(section);
        if section != *own {
            if at.is_set() {
                at.forbidden(format!("{section} is forbidden when subject kind is not '{other}'"));
            }
            continue;
        }
        if !at.is_set() {
            at.required(format!("{section} is required when subject kind is '{other}'"));
            continue;
        }
        let name = at.child("name");
        if name.require() && section == "serviceAccount" && name.text() != "*" {
            name.named(names::dns1123_subdomain);
        }
        if section == "serviceAccount" {
            let namespace = at.child("namespace");
            if namespace.require_with("must specify namespace for service account") {
                namespace.named(names::dns1123_label);
            }
        }
    }
}

/// Whether `*` is in the list; alone it must be there.
fn wildcard(list: &At<'_>, others: &str) -> bool {
    let items = list.items();
    let found = items.iter().any(|item| item.text() == "*");
    if found && items.len() > 1 {
        list.invalid(format!("if '*' is present, must not specify other {others}"));
    }
    found
}

fn verbs(rule: &At<'_>) {
    let verbs = rule.child("verbs");
    if verbs.require_with("verbs must contain at least one value")
        && !wildcard(&verbs, "verbs")
        && !verbs.items().iter().all(|verb| VERBS.contains(&verb.text()))
    {
        verbs.error(skep_api::field::Error::not_supported(verbs.path(), verbs.value().clone(), &VERBS));
    }
}

fn resource_rule(rule: &At<'_>) {
    verbs(rule);
    let groups = rule.child("apiGroups");
    if groups.require_with("resource rules must supply at least one api group") {
        wildcard(&groups, "api groups");
    }
    let resources = rule.child("resources");
    if resources.require_with("resource rules must supply at least one resource") {
        wildcard(&resources, "resources");
    }
    let namespaces = rule.child("namespaces");
    if namespaces.is_empty() {
        if !rule.child("clusterScope").flag() {
            namespaces
                .required("resource rules that are not cluster scoped must supply at least one namespace");
        }
    } else if !wildcard(&namespaces, "namespaces") {
        for namespace in namespaces.items() {
            for wrong in names::dns1123_label(namespace.text()) {
                namespace
                    .invalid(format!("each member of this list must be '*' or a DNS-1123 label; {wrong}"));
            }
        }
    }
}

fn path_rule(rule: &At<'_>) {
    verbs(rule);
    let paths = rule.child("nonResourceURLs");
    if !paths.require_with("nonResourceURLs must contain at least one value")
        || wildcard(&paths, "non-resource URLs")
    {
        return;
    }
    for path in paths.items() {
        let text = path.text();
        let stars = text.matches('*').count();
        let wrong = if text.is_empty() {
            "must not be empty"
        } else if text == "/" {
            continue;
        } else if !text.starts_with('/') {
            "must start with slash"
        } else if text.contains(' ') {
            "must not contain white-space"
        } else if text.contains("//") {
            "must not contain double slash"
        } else if stars > 1 || (stars == 1 && !text.ends_with("/*")) {
            "wildcard can only do suffix matching"
        } else {
            continue;
        };
        path.invalid(wrong);
    }
}

fn shares(section: &At<'_>) {
    let shares = section.child("nominalConcurrencyShares");
    if shares.int().is_some_and(|n| n < 0) {
        shares.invalid("must be a non-negative integer");
    }
    let lendable = section.child("lendablePercent");
    if lendable.int().is_some_and(|n| !(0..=100).contains(&n)) {
        lendable.invalid("must be between 0 and 100, inclusive");
    }
    let borrowing = section.child("borrowingLimitPercent");
    if borrowing.int().is_some_and(|n| n < 0) {
        borrowing.invalid("if specified, must be a non-negative integer");
    }
}

/// A PriorityLevelConfiguration.
pub(super) fn level(root: &At<'_>) {
    let (name, spec) = (root.child("metadata").child("name"), root.child("spec"));
    let kind = spec.child("type");
    if (name.text() == "exempt") != (kind.text() == "Exempt") {
        kind.invalid("type must be 'Exempt' if and only if name is 'exempt'");
    }
    let (limited, exempt) = (spec.child("limited"), spec.child("exempt"));
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden("must be nil if the type is not Limited");
            }
            if exempt.is_set() {
                shares(&exempt);
            } else {
                exempt.required("must not be empty when type is Exempt");
            }
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden("must be nil if the type is Limited");
            }
            if limited.is_set() {
                shares(&limited);
                response(&limited.child("limitResponse"));
            } else {
                limited.required("must not be empty when type is Limited");
            }
        }
        _ => {
            let supported = ["Exempt", "Limited"];
            kind.error(skep_api::field::Error::not_supported(kind.path(), kind.text(), &supported));
        }
    }
    fixed(&spec, "PriorityLevelConfiguration", name.text());
    conditions(&root.child("status"));
}

fn response(response: &At<'_>) {
    let (kind, queuing) = (response.child("type"), response.child("queuing"));
    match kind.text() {
        "Reject" if queuing.is_set() => {
            queuing.forbidden("must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            queuing.required("must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => queues(&queuing),
        _ => {
            let supported = ["Queue", "Reject"];
            kind.error(skep_api::field::Error::not_supported(kind.path(), kind.text(), &supported));
        }
    }
}

fn queues(queuing: &At<'_>) {
    let positive = |field: &str| {
        let at = queuing.child(field);
        if at.int().unwrap_or(0) <= 0 {
            at.error(skep_api::field::Error::invalid(at.path(), at.int().unwrap_or(0), "must be positive"));
        }
        at
    };
    positive("queueLengthLimit");
    let (queues, hand) = (positive("queues"), positive("handSize"));
    let (deck, cards) = (queues.int().unwrap_or(0), hand.int().unwrap_or(0));
    if deck > MOST_QUEUES {
        queues.invalid(format!("must not be greater than {MOST_QUEUES}"));
    }
    if cards > deck {
        hand.invalid(format!("should not be greater than queues ({deck})"));
    } else if let (Ok(deck), Ok(cards)) = (u32::try_from(deck), u32::try_from(cards))
        && deck > 0
        && shuffle::bits_needed(deck, cards) > shuffle::MAX_BITS
    {
        hand.invalid(format!(
            "required entropy bits of deckSize {deck} and handSize {cards} should not be greater than {}",
            shuffle::MAX_BITS
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{LEVEL, SCHEMA};
    use crate::kinds::flow_control::validate::bootstrap;
    use crate::strategy::KindRow;

    fn errors(row: &KindRow, mut object: Value) -> Vec<String> {
        row.default(&mut object);
        row.strategy.validate(&object).lines()
    }

    #[test]
    fn bootstrap_objects_are_valid_and_defaulting_leaves_them_alone() {
        for (row, objects) in [(&SCHEMA, bootstrap::schemas()), (&LEVEL, bootstrap::levels())] {
            for object in objects {
                let mut defaulted = object.clone();
                row.default(&mut defaulted);
                assert_eq!(defaulted, object);
                assert_eq!(errors(row, object), [""; 0]);
            }
        }
    }

    #[test]
    fn mandatory_specs_are_fixed() {
        let mut last = bootstrap::mandatory_levels().remove(1);
        last["spec"]["limited"]["nominalConcurrencyShares"] = json!(6);
        assert!(errors(&LEVEL, last)[0].ends_with("spec of 'catch-all' must equal the fixed value"));
        let mut exempt = bootstrap::mandatory_levels().remove(0);
        exempt["spec"]["exempt"]["nominalConcurrencyShares"] = json!(10);
        assert_eq!(errors(&LEVEL, exempt), [""; 0]);
        let mut schema = bootstrap::mandatory_schemas().remove(1);
        schema["spec"]["matchingPrecedence"] = json!(9999);
        assert!(errors(&SCHEMA, schema)[0].ends_with("spec of 'catch-all' must equal the fixed value"));
    }

    #[test]
    fn every_mistake_of_a_schema_is_told() {
        let found = errors(
            &SCHEMA,
            json!({
                "metadata": {"name": "s"},
                "spec": {
                    "matchingPrecedence": 1,
                    "priorityLevelConfiguration": {"name": "A"},
                    "distinguisherMethod": {"type": "ByMoon"},
                    "rules": [
                        {"subjects": [{"kind": "User", "group": {"name": "g"}}, {"kind": "X"}]},
                        {
                            "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*"}}],
                            "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [""], "resources": ["pods"]}],
                            "nonResourceRules": [{"verbs": ["read"], "nonResourceURLs": ["/a*", "b", "/a//b"]}],
                        },
                    ],
                },
            }),
        );
        for (line, part) in found.iter().zip([
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt'",
            "spec.distinguisherMethod.type: Unsupported value: ",
            "spec.priorityLevelConfiguration.name: Invalid value: \"A\"",
            "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
            "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
            "spec.rules[0].subjects[1].kind: Unsupported value: \"X\"",
            "spec.rules[0]: Required value: at least one of",
            "spec.rules[1].subjects[0].serviceAccount.namespace: Required value: must specify namespace",
            "spec.rules[1].resourceRules[0].verbs: Invalid value: ",
            "spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not",
            "spec.rules[1].nonResourceRules[0].verbs: Unsupported value: ",
            "spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only",
            "spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"b\": must start with slash",
            "spec.rules[1].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/a//b\": must not contain",
        ]) {
            assert!(line.starts_with(part), "{line}\n{part}");
        }
        assert_eq!(found.len(), 14, "{found:#?}");
    }

    #[test]
    fn every_mistake_of_a_level_is_told() {
        let queuing = |queuing: Value| {
            json!({
                "metadata": {"name": "l"},
                "spec": {"type": "Limited", "limited": {
                    "nominalConcurrencyShares": -1,
                    "lendablePercent": 101,
                    "limitResponse": {"type": "Queue", "queuing": queuing},
                }},
            })
        };
        let found = errors(&LEVEL, queuing(json!({"queues": 512, "handSize": 8, "queueLengthLimit": -1})));
        for (line, part) in found.iter().zip([
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize \
             512 and handSize 8 should not be greater than 60",
        ]) {
            assert_eq!(line, part);
        }
        let exempt = json!({"metadata": {"name": "l"}, "spec": {"type": "Exempt", "exempt": {}}});
        assert!(errors(&LEVEL, exempt)[0].contains("if and only if name is 'exempt'"));
    }
}
