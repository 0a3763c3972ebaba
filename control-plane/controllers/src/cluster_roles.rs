//! Aggregated cluster roles: their rules are those of the roles that their selectors choose.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use skep_api::selector::LabelSelector;
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_for};

/// The controller. Keys are aggregated roles.
pub(crate) struct ClusterRoles {
    client: Client,
    roles: Store<ClusterRole>,
    queue: WorkQueue<Key>,
}

fn is_aggregated(role: &ClusterRole) -> bool {
    role.aggregation_rule.is_some()
}

/// The rules a role should have, in the order of the names they come from.
fn rules(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let mut chosen: Vec<&Arc<ClusterRole>> = Vec::new();
    let mut seen = BTreeSet::new();
    let selectors =
        role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    let mut sorted: Vec<&Arc<ClusterRole>> = all.iter().collect();
    sorted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_typed(Some(selector)) else { continue };
        for other in &sorted {
            let itself = other.metadata.name == role.metadata.name;
            if !itself
                && selector.matches_map(other.metadata.labels.as_ref())
                && seen.insert(other.metadata.name.clone())
            {
                chosen.push(other);
            }
        }
    }
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in chosen.iter().flat_map(|role| role.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

impl ClusterRoles {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        let roles = sources.cluster_roles.store();
        let all = roles.clone();
        // Any role may be chosen by any aggregated one; there are few of those.
        enqueue_for(&mut sources.cluster_roles, &queue, move |role| {
            let mut keys: Vec<Key> = all
                .list()
                .iter()
                .filter(|role| is_aggregated(role))
                .map(|role| Key::of(&role.metadata))
                .collect();
            if is_aggregated(role) {
                keys.push(Key::of(&role.metadata));
            }
            keys
        });
        Self { client: client.clone(), roles, queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("clusterrole-aggregation", &self.queue, 1, cancel, |key| self.sync(key))
            .await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(role) = self.roles.get("", &key.name).filter(|role| is_aggregated(role)) else {
            return Ok(Next::Wait);
        };
        let wanted = rules(&role, &self.roles.list());
        if role.rules.as_deref().unwrap_or_default() == wanted {
            return Ok(Next::Wait);
        }
        let mut role = ClusterRole::clone(&role);
        role.rules = Some(wanted);
        self.client.all::<ClusterRole>().replace(&key.name, &role).await?;
        Ok(Next::Wait)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(value: Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).expect("a role"))
    }

    #[test]
    fn rules_are_those_of_the_chosen_in_order_and_once() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let part = |name: &str, label: &str, verbs: &[&str]| {
            let rules: Vec<Value> = verbs.iter().map(|verb| rule(verb)).collect();
            role(json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules}))
        };
        let whole = role(json!({
            "metadata": {"name": "whole", "labels": {"to": "whole"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "whole"}}]},
            "rules": [rule("stale")],
        }));
        let all = [
            whole.clone(),
            part("b", "whole", &["get", "list"]),
            part("a", "whole", &["watch", "get"]),
            part("c", "other", &["delete"]),
        ];
        let found: Vec<String> = rules(&whole, &all).into_iter().flat_map(|rule| rule.verbs).collect();
        assert_eq!(found, ["watch", "get", "list"]);
    }
}
