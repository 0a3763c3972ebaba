//! Role based access control: a pure evaluator over a snapshot of roles and bindings.
//!
//! The owner of the roles (the registry's watch) builds a new [`Snapshot`] on a change and publishes it
//! through [`Rbac`]; requests never wait for that. Aggregated cluster roles are resolved here, so their
//! rules hold at once and do not depend on a controller.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
pub use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use skep_api::user::UserInfo;

use super::{Attributes, Authorizer, Decision};

pub use cover::{compact_rules, escalation, missing_rules};
pub use rule::{allows, is_allowed};

mod cover;
mod rule;

/// The live RBAC authorizer.
#[derive(Default)]
pub struct Rbac {
    snapshot: ArcSwap<Snapshot>,
}

impl Rbac {
    /// An authorizer that allows nothing until [`Self::publish`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what decisions are made from.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// What decisions are made from now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        self.snapshot.load().decide(attributes)
    }
}

#[async_trait]
impl Authorizer for Arc<Rbac> {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        self.snapshot.load().decide(attributes)
    }
}

/// The roles and bindings a snapshot is built from.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// ClusterRoles.
    pub cluster_roles: Vec<ClusterRole>,
    /// Roles.
    pub roles: Vec<Role>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// RoleBindings.
    pub role_bindings: Vec<RoleBinding>,
}

impl Objects {
    /// Sorts dynamic objects by their kind. One that can't be read is left out with a warning: it must
    /// not take the others' rights away.
    pub fn from_values<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        fn read<T: serde::de::DeserializeOwned>(value: &Value, into: &mut Vec<T>) {
            match T::deserialize(value) {
                Ok(object) => into.push(object),
                Err(error) => tracing::warn!(%error, "an RBAC object can't be read and is ignored"),
            }
        }
        let mut objects = Self::default();
        for value in values {
            match value.get("kind").and_then(Value::as_str) {
                Some("ClusterRole") => read(value, &mut objects.cluster_roles),
                Some("Role") => read(value, &mut objects.roles),
                Some("ClusterRoleBinding") => read(value, &mut objects.cluster_role_bindings),
                Some("RoleBinding") => read(value, &mut objects.role_bindings),
                _ => {}
            }
        }
        objects
    }
}

/// One role given to one subject.
struct Grant {
    /// Where it holds; `None` is everywhere.
    namespace: Option<String>,
    rules: Arc<[PolicyRule]>,
    /// The end of "RBAC: allowed by ...".
    because: String,
}

/// Roles and bindings, indexed by subject.
#[derive(Default)]
pub struct Snapshot {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Snapshot {
    /// Indexes the bindings. A binding whose role is missing grants nothing.
    pub fn new(objects: &Objects) -> Self {
        let cluster = resolve_cluster_roles(&objects.cluster_roles);
        let mut roles: HashMap<(&str, &str), Arc<[PolicyRule]>> = HashMap::new();
        for role in &objects.roles {
            let key = (role.metadata.namespace.as_deref(), role.metadata.name.as_deref());
            if let (Some(namespace), Some(name)) = key {
                roles.insert((namespace, name), role.rules.clone().unwrap_or_default().into());
            }
        }
        let mut snapshot = Self::default();
        for binding in &objects.cluster_role_bindings {
            let name = binding.metadata.name.as_deref().unwrap_or_default();
            let Some(rules) = cluster.get(binding.role_ref.name.as_str()) else { continue };
            let what = format!("ClusterRoleBinding {name:?}");
            snapshot.grant(binding.subjects.as_deref(), &binding.role_ref, rules, None, &what);
        }
        for binding in &objects.role_bindings {
            let name = binding.metadata.name.as_deref().unwrap_or_default();
            let Some(namespace) = binding.metadata.namespace.as_deref() else { continue };
            let role = binding.role_ref.name.as_str();
            let rules = match binding.role_ref.kind.as_str() {
                "ClusterRole" => cluster.get(role),
                _ => roles.get(&(namespace, role)),
            };
            let Some(rules) = rules else { continue };
            let what = format!("RoleBinding \"{name}/{namespace}\"");
            snapshot.grant(binding.subjects.as_deref(), &binding.role_ref, rules, Some(namespace), &what);
        }
        snapshot
    }

    fn grant(
        &mut self,
        subjects: Option<&[Subject]>,
        role: &RoleRef,
        rules: &Arc<[PolicyRule]>,
        namespace: Option<&str>,
        binding: &str,
    ) {
        for subject in subjects.unwrap_or_default() {
            let (index, name, shown) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name.clone(), subject.name.clone()),
                "Group" => (&mut self.groups, subject.name.clone(), subject.name.clone()),
                "ServiceAccount" => {
                    let Some(home) = subject.namespace.as_deref().or(namespace) else { continue };
                    let user = format!("system:serviceaccount:{home}:{}", subject.name);
                    (&mut self.users, user, format!("{}/{home}", subject.name))
                }
                _ => continue,
            };
            let because = format!("{binding} of {} {:?} to {} {shown:?}", role.kind, role.name, subject.kind);
            let namespace = namespace.map(str::to_owned);
            index.entry(name).or_default().push(Grant { namespace, rules: Arc::clone(rules), because });
        }
    }

    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> + 'a {
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        self.users
            .get(&user.name)
            .into_iter()
            .chain(groups)
            .flatten()
            .filter(move |grant| grant.namespace.as_deref().is_none_or(|home| home == namespace))
    }

    /// Decides about a request.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        for grant in self.grants(attributes.user, attributes.namespace) {
            // Rights on paths come from cluster-wide bindings only.
            if !attributes.is_resource && grant.namespace.is_some() {
                continue;
            }
            if is_allowed(&grant.rules, attributes) {
                return Decision::Allow(format!("RBAC: allowed by {}", grant.because));
            }
        }
        Decision::NoOpinion(String::new())
    }

    /// Every rule a user has in a namespace (empty: those that hold everywhere).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        self.grants(user, namespace).flat_map(|grant| grant.rules.iter().cloned()).collect()
    }
}

/// The rules of every cluster role, aggregation resolved.
fn resolve_cluster_roles(roles: &[ClusterRole]) -> HashMap<&str, Arc<[PolicyRule]>> {
    let mut resolved = HashMap::new();
    for role in roles {
        let Some(name) = role.metadata.name.as_deref() else { continue };
        resolved.insert(name, aggregate(role, roles).into());
    }
    resolved
}

/// A cluster role's own rules and those of every role its aggregation rule selects, transitively.
pub fn aggregate(role: &ClusterRole, all: &[ClusterRole]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    let mut visited: Vec<&str> = Vec::new();
    let mut queue = vec![role];
    while let Some(role) = queue.pop() {
        let name = role.metadata.name.as_deref().unwrap_or_default();
        if visited.contains(&name) {
            continue;
        }
        visited.push(name);
        for rule in role.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        let selectors = role.aggregation_rule.as_ref().and_then(|rule| rule.cluster_role_selectors.as_ref());
        for selector in selectors.into_iter().flatten() {
            queue.extend(all.iter().filter(|other| selects(selector, other)));
        }
    }
    rules
}

fn selects(selector: &LabelSelector, role: &ClusterRole) -> bool {
    let empty = std::collections::BTreeMap::new();
    let labels = role.metadata.labels.as_ref().unwrap_or(&empty);
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let listed = |value: &String| expression.values.iter().flatten().any(|other| other == value);
        match expression.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && expressions
}
