//! Do some rules cover others: nobody may grant what they do not have.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;
use skep_api::user::UserInfo;

use super::rule;

/// The parts of `wanted` that `owned` does not cover, as rules of one verb and one resource or path.
/// Empty: the owner of `owned` may hand `wanted` out.
pub fn missing_rules(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(atoms).filter(|atom| !owned.iter().any(|rule| covers(rule, atom))).collect()
}

fn atoms(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut out = Vec::new();
    let verbs: BTreeSet<&String> = rule.verbs.iter().collect();
    for verb in verbs {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let base = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    ..PolicyRule::default()
                };
                match rule.resource_names.as_deref() {
                    None | Some([]) => out.push(base),
                    Some(names) => {
                        out.extend(names.iter().map(|name| PolicyRule {
                            resource_names: Some(vec![name.clone()]),
                            ..base.clone()
                        }));
                    }
                }
            }
        }
        for url in rule.non_resource_urls.iter().flatten() {
            out.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: Some(vec![url.clone()]),
                ..PolicyRule::default()
            });
        }
    }
    out
}

/// Does `owner` cover a rule of one verb and one resource or path.
fn covers(owner: &PolicyRule, atom: &PolicyRule) -> bool {
    let every = |owned: &[String], wanted: &[String]| {
        owned.iter().any(|item| item == "*") || wanted.iter().all(|item| owned.contains(item))
    };
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    if !every(&owner.verbs, &atom.verbs) {
        return false;
    }
    if atom.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        return list(&atom.non_resource_urls)
            .iter()
            .all(|url| list(&owner.non_resource_urls).iter().any(|pattern| rule::path(pattern, url)));
    }
    let names = list(&owner.resource_names);
    let wanted = list(&atom.resource_names);
    let resources = list(&owner.resources);
    every(&list(&owner.api_groups), &list(&atom.api_groups))
        && list(&atom.resources).iter().all(|resource| {
            resources.contains(resource) || {
                let (main, sub) = resource.split_once('/').unwrap_or((resource, ""));
                rule::resource(&resources, main, sub)
            }
        })
        && (names.is_empty() || (!wanted.is_empty() && wanted.iter().all(|name| names.contains(name))))
}

/// Joins rules that differ in their verbs only: shorter lists for people and for `auth can-i --list`.
pub fn compact_rules(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let same = out.iter_mut().find(|other| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls == rule.non_resource_urls
        });
        match same {
            Some(other) => {
                for verb in &rule.verbs {
                    if !other.verbs.contains(verb) {
                        other.verbs.push(verb.clone());
                    }
                }
            }
            None => out.push(rule.clone()),
        }
    }
    out
}

/// Why a user may not hand rules out; `None` when they have all of them.
pub fn escalation(user: &UserInfo, owned: &[PolicyRule], wanted: &[PolicyRule]) -> Option<String> {
    let missing = missing_rules(owned, wanted);
    if missing.is_empty() {
        return None;
    }
    let missing: BTreeSet<String> = compact_rules(&missing).iter().map(describe).collect();
    let missing: Vec<String> = missing.into_iter().collect();
    Some(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        missing.join("\n")
    ))
}

/// A rule in a line, without its empty fields.
fn describe(rule: &PolicyRule) -> String {
    let verbs = Some(&rule.verbs);
    let fields = [
        ("APIGroups", rule.api_groups.as_ref()),
        ("Resources", rule.resources.as_ref()),
        ("NonResourceURLs", rule.non_resource_urls.as_ref()),
        ("ResourceNames", rule.resource_names.as_ref()),
        ("Verbs", verbs),
    ];
    let shown = fields.into_iter().filter_map(|(name, list)| {
        let list = list.filter(|list| !list.is_empty())?;
        Some(format!("{name}:{}", quoted(list)))
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
}

fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
