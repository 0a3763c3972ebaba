//! Does one policy rule allow a request.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::authorization::Attributes;

const ALL: &str = "*";

/// Does any of the rules allow the request.
pub fn is_allowed(rules: &[PolicyRule], attributes: &Attributes<'_>) -> bool {
    rules.iter().any(|rule| allows(rule, attributes))
}

/// Does the rule allow the request.
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let verb = contains(&rule.verbs, attributes.verb);
    if attributes.is_resource {
        verb && contains(slice(rule.api_groups.as_ref()), attributes.group)
            && resource(slice(rule.resources.as_ref()), attributes.resource, attributes.subresource)
            && named(slice(rule.resource_names.as_ref()), attributes.name)
    } else {
        verb && slice(rule.non_resource_urls.as_ref()).iter().any(|url| path(url, attributes.path))
    }
}

fn slice(list: Option<&Vec<String>>) -> &[String] {
    list.map_or(&[], Vec::as_slice)
}

fn contains(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

/// `pods`, `pods/log`, `*/scale` or `*`. A bare `pods` does not cover its subresources.
pub(super) fn resource(list: &[String], resource: &str, subresource: &str) -> bool {
    list.iter().any(|item| {
        if item == ALL {
            return true;
        }
        match item.split_once('/') {
            None => subresource.is_empty() && item == resource,
            Some((ALL, sub)) => !subresource.is_empty() && sub == subresource,
            Some((main, sub)) => main == resource && sub == subresource && !sub.is_empty(),
        }
    })
}

fn named(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|item| item == name)
}

/// An exact path, or a prefix that ends in `*`.
pub(super) fn path(pattern: &str, path: &str) -> bool {
    pattern == ALL
        || pattern == path
        || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}
