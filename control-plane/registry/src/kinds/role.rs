//! Role and ClusterRole: what may be done, in one namespace or everywhere.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;

use super::{cluster, namespaced};
use crate::strategy::check::{At, check};
use crate::strategy::printer;
use crate::strategy::{KindRow, Strategy};

/// Rows of the table of kinds.
pub(super) static ROLE: KindRow =
    namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles", &Role { namespaced: true });
/// The same everywhere.
pub(super) static CLUSTER_ROLE: KindRow =
    cluster("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", &Role { namespaced: false });

struct Role {
    namespaced: bool,
}

fn rule(rule: &At<'_>, namespaced: bool) {
    rule.child("verbs").require_with("verbs must contain at least one value");
    let urls = rule.child("nonResourceURLs");
    let groups = rule.child("apiGroups");
    let resources = rule.child("resources");
    if !urls.is_empty() {
        if namespaced {
            urls.invalid("namespaced rules cannot apply to non-resource URLs");
        }
        if [&groups, &resources, &rule.child("resourceNames")].iter().any(|list| !list.is_empty()) {
            urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    groups.require_with("resource rules must supply at least one api group");
    resources.require_with("resource rules must supply at least one resource");
}

impl Strategy for Role {
    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::path_segment
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            root.child("rules").items().iter().for_each(|r| rule(r, self.namespaced));
            let aggregation = root.child("aggregationRule");
            if aggregation.is_set() {
                let selectors = aggregation.child("clusterRoleSelectors");
                selectors
                    .require_with("at least one clusterRoleSelector required if aggregationRule is non-nil");
                selectors.items().iter().for_each(At::selector);
            }
        })
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        printer::plain(object)
    }
}
