//! Which requests a webhook or a policy is for: rules, selectors and the match policy.
//!
//! One matcher serves admission webhooks (`rules`) and admission policies (`resourceRules` and
//! `excludeResourceRules`). A matcher is built once from the API object and then asked for each request.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::selector::{LabelSelector, SelectorError};

use crate::{Attributes, Operation, Reader};

/// One rule: operations, groups, versions, resources, scope, and for policies names.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: Scope,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scope {
    #[default]
    All,
    Namespaced,
    Cluster,
    /// A word this version does not know: matches nothing.
    Unknown,
}

fn strings(object: &Value, field: &str) -> Vec<String> {
    object.items(&[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn names_or_star(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// From `RuleWithOperations` or `NamedRuleWithOperations`.
    pub fn from_object(rule: &Value) -> Self {
        Self {
            operations: strings(rule, "operations"),
            groups: strings(rule, "apiGroups"),
            versions: strings(rule, "apiVersions"),
            resources: strings(rule, "resources"),
            scope: match rule.text(&["scope"]) {
                "" | "*" => Scope::All,
                "Namespaced" => Scope::Namespaced,
                "Cluster" => Scope::Cluster,
                _ => Scope::Unknown,
            },
            names: strings(rule, "resourceNames"),
        }
    }

    /// Does it name this request, taken as one for `gvr`.
    fn matches(&self, attributes: &Attributes, gvr: &GroupVersionResource) -> bool {
        let namespaced = !(attributes.namespace.is_empty() || is_namespaces(gvr));
        let scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => namespaced,
            Scope::Cluster => !namespaced,
            Scope::Unknown => false,
        };
        scope
            && names_or_star(&self.operations, attributes.operation.as_str())
            && names_or_star(&self.groups, &gvr.group)
            && names_or_star(&self.versions, &gvr.version)
            && self.resources.iter().any(|pattern| {
                let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
                (resource == "*" || resource == gvr.resource)
                    && (subresource == "*" || subresource == attributes.subresource)
            })
            && (self.names.is_empty() || self.names.contains(&attributes.name))
    }
}

fn is_namespaces(gvr: &GroupVersionResource) -> bool {
    gvr.group.is_empty() && gvr.resource == "namespaces"
}

/// How a request matched: as which resource and kind the webhook or policy wants to see it. With
/// `matchPolicy: Equivalent` that may be another version or group than the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The resource.
    pub gvr: GroupVersionResource,
    /// The kind of the objects.
    pub gvk: GroupVersionKind,
}

impl Match {
    /// Must objects be converted for it.
    pub fn differs(&self, attributes: &Attributes) -> bool {
        self.gvk != attributes.gvk
    }
}

/// Decides whether a request is for a webhook or a policy.
#[derive(Clone, Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// No rule at all means every request (policies), instead of none (webhooks).
    empty_is_all: bool,
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Matcher {
    /// From one webhook of a webhook configuration.
    pub fn from_webhook(webhook: &Value) -> Result<Self, SelectorError> {
        Self::new(webhook, "rules", false)
    }

    /// From `matchConstraints` of a policy or `matchResources` of a binding; absent matches everything.
    pub fn from_match_resources(resources: Option<&Value>) -> Result<Self, SelectorError> {
        Self::new(resources.unwrap_or(&Value::Null), "resourceRules", true)
    }

    fn new(object: &Value, rules: &str, empty_is_all: bool) -> Result<Self, SelectorError> {
        let list = |field: &str| object.items(&[field]).iter().map(Rule::from_object).collect();
        let selector = |field: &str| match object.at(&[field]) {
            None => Ok(LabelSelector::everything()),
            present => LabelSelector::from_object(present),
        };
        Ok(Self {
            rules: list(rules),
            excluded: list("excludeResourceRules"),
            empty_is_all,
            // The API defaults it; an object without has never been through the defaults.
            equivalent: object.text(&["matchPolicy"]) != "Exact",
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
        })
    }

    /// Could any request of this operation on this resource match by its rules. Cheap: for
    /// [`Plugin::handles`](crate::Plugin::handles).
    pub fn may_match(&self, operation: Operation) -> bool {
        (self.rules.is_empty() && self.empty_is_all)
            || self.rules.iter().any(|rule| names_or_star(&rule.operations, operation.as_str()))
    }

    /// Is the request for it, and as what. The error is of a selector that could not be evaluated: the
    /// namespace is not there or could not be read.
    pub async fn matches(
        &self,
        attributes: &Attributes,
        reader: &dyn Reader,
    ) -> Result<Option<Match>, ApiError> {
        // An error of the selectors only counts when the rules match: a policy that is not for the
        // request must not fail it.
        let namespace = self.namespace_matches(attributes, reader).await;
        if matches!(namespace, Ok(false)) || !self.object_matches(attributes) {
            return Ok(None);
        }
        if find(&self.excluded, self.equivalent, attributes, reader).is_some() {
            return Ok(None);
        }
        let found = if self.rules.is_empty() && self.empty_is_all {
            Some(Match { gvr: attributes.gvr.clone(), gvk: attributes.gvk.clone() })
        } else {
            find(&self.rules, self.equivalent, attributes, reader)
        };
        match (found, namespace) {
            (Some(_), Err(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    async fn namespace_matches(
        &self,
        attributes: &Attributes,
        reader: &dyn Reader,
    ) -> Result<bool, ApiError> {
        let about_namespaces = is_namespaces(&attributes.gvr);
        if self.namespaces.is_empty() || (attributes.namespace.is_empty() && !about_namespaces) {
            return Ok(true);
        }
        let written = matches!(attributes.operation, Operation::Create | Operation::Update);
        if about_namespaces && attributes.subresource.is_empty() && written {
            // The namespace as it will be; what is stored is older.
            let labels = attributes.object.as_ref().and_then(ObjectExt::labels);
            return Ok(self.namespaces.matches(labels));
        }
        let name = if about_namespaces { &attributes.name } else { &attributes.namespace };
        let gvr = GroupVersionResource::new("", "v1", "namespaces");
        match reader.get(&gvr, None, name).await? {
            Some(namespace) => Ok(self.namespaces.matches(namespace.labels())),
            None => Err(ApiError::not_found(&gvr, name)),
        }
    }

    fn object_matches(&self, attributes: &Attributes) -> bool {
        let selects = |object: &Option<Value>| {
            object.as_ref().is_some_and(|object| self.objects.matches(object.labels()))
        };
        self.objects.is_empty() || selects(&attributes.object) || selects(&attributes.old_object)
    }
}

fn find(rules: &[Rule], equivalent: bool, attributes: &Attributes, reader: &dyn Reader) -> Option<Match> {
    if rules.iter().any(|rule| rule.matches(attributes, &attributes.gvr)) {
        return Some(Match { gvr: attributes.gvr.clone(), gvk: attributes.gvk.clone() });
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let others = reader.equivalents(&attributes.gvr, &attributes.subresource);
    rules.iter().find_map(|rule| {
        let other = others
            .iter()
            .find(|other| other.gvr != attributes.gvr && rule.matches(attributes, &other.gvr))?;
        Some(other.clone())
    })
}

/// Objects that configure admission are never themselves subject to webhooks or policies, so that a bad
/// one can be repaired.
pub fn is_exempt(attributes: &Attributes) -> bool {
    attributes.gvk.group == "admissionregistration.k8s.io"
        && matches!(
            attributes.gvk.kind.as_str(),
            "ValidatingWebhookConfiguration"
                | "MutatingWebhookConfiguration"
                | "ValidatingAdmissionPolicy"
                | "ValidatingAdmissionPolicyBinding"
                | "MutatingAdmissionPolicy"
                | "MutatingAdmissionPolicyBinding"
        )
}

#[cfg(test)]
mod tests;
