//! Which schema a request belongs to.

use skep_api::user::UserInfo;

use crate::config::{Distinguisher, PathRule, ResourceRule, Rule, Schema, Subject};

const ALL: &str = "*";

/// The resource a request is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its group.
    pub group: &'a str,
    /// Its plural.
    pub resource: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The namespace, or empty.
    pub namespace: &'a str,
}

/// What is looked at of a request.
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// The verb.
    pub verb: &'a str,
    /// The path.
    pub path: &'a str,
    /// The resource, if it is about one.
    pub about: Option<About<'a>>,
}

impl Digest<'_> {
    /// What tells this request's flow from the others of its schema.
    pub fn distinguisher(&self, method: Distinguisher) -> &str {
        match method {
            Distinguisher::None => "",
            Distinguisher::User => &self.user.name,
            Distinguisher::Namespace => self.about.map_or("", |about| about.namespace),
        }
    }
}

/// Does the request belong to the schema?
pub fn matches(schema: &Schema, digest: &Digest<'_>) -> bool {
    schema.rules.iter().any(|rule| rule_matches(rule, digest))
}

fn rule_matches(rule: &Rule, digest: &Digest<'_>) -> bool {
    rule.subjects.iter().any(|subject| is_subject(subject, digest.user))
        && match &digest.about {
            Some(about) => rule.resources.iter().any(|rule| covers_resource(rule, digest.verb, about)),
            None => rule.paths.iter().any(|rule| covers_path(rule, digest)),
        }
}

fn is_subject(subject: &Subject, user: &UserInfo) -> bool {
    match subject {
        Subject::User(name) => name == ALL || *name == user.name,
        Subject::Group(name) => name == ALL || user.groups.contains(name),
        Subject::ServiceAccount { namespace, name } => {
            let account = user.name.strip_prefix("system:serviceaccount:");
            let account = account.and_then(|rest| rest.split_once(':'));
            account.is_some_and(|(its, account)| its == namespace && (name == ALL || name == account))
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == wanted || entry == ALL)
}

fn covers_resource(rule: &ResourceRule, verb: &str, about: &About<'_>) -> bool {
    let resource = rule.resources.iter().any(|entry| {
        entry == ALL
            || match entry.split_once('/') {
                Some((resource, subresource)) => {
                    resource == about.resource && subresource == about.subresource
                }
                None => about.subresource.is_empty() && entry == about.resource,
            }
    });
    let place =
        if about.namespace.is_empty() { rule.cluster_scope } else { has(&rule.namespaces, about.namespace) };
    resource && place && has(&rule.verbs, verb) && has(&rule.groups, about.group)
}

fn covers_path(rule: &PathRule, digest: &Digest<'_>) -> bool {
    has(&rule.verbs, digest.verb)
        && rule.paths.iter().any(|path| {
            let prefix = path.strip_suffix('*').unwrap_or(path);
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            path == ALL
                || path == digest.path
                || digest.path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use crate::bootstrap;
    use crate::config::Schema;

    use super::*;

    /// The first bootstrap schema that matches.
    fn first(user: &UserInfo, verb: &str, path: &str, about: Option<About<'_>>) -> String {
        let mut schemas: Vec<_> = bootstrap::schemas().iter().filter_map(Schema::from_object).collect();
        schemas.sort_by_key(|schema| schema.precedence);
        let digest = Digest { user, verb, path, about };
        schemas.iter().find(|schema| matches(schema, &digest)).map_or_else(String::new, |s| s.name.clone())
    }

    fn about(group: &'static str, resource: &'static str, namespace: &'static str) -> Option<About<'static>> {
        Some(About { group, resource, subresource: "", namespace })
    }

    /// Holds AM-01.
    #[test]
    fn requests_find_their_bootstrap_schema() {
        let admin = UserInfo::new("kubernetes-admin", ["system:masters"]);
        let node = UserInfo::new("system:node:a", ["system:nodes"]);
        let manager = UserInfo::new("system:kube-controller-manager", Vec::<String>::new());
        let account = |namespace: &str| {
            let groups = ["system:serviceaccounts".to_owned()];
            UserInfo::new(format!("system:serviceaccount:{namespace}:default"), groups)
        };
        let pods = about("", "pods", "default");
        let leases = about("coordination.k8s.io", "leases", "kube-system");
        for (user, verb, path, about, schema) in [
            (&admin, "list", "", pods, "exempt"),
            (&node, "update", "", leases, "system-node-high"),
            (&node, "list", "", pods, "system-nodes"),
            (&manager, "update", "", leases, "system-leader-election"),
            (&manager, "watch", "", leases, "kube-controller-manager"),
            (&account("kube-system"), "list", "", pods, "kube-system-service-accounts"),
            (&account("default"), "list", "", pods, "service-accounts"),
            (&UserInfo::new("jane", ["dev"]), "list", "", pods, "global-default"),
            (&UserInfo::new("jane", ["dev"]), "get", "/livez/ping", None, "probes"),
            (&UserInfo::new("jane", ["dev"]), "get", "/livezz", None, "global-default"),
        ] {
            assert_eq!(first(user, verb, path, about), schema, "{} {verb} {path}", user.name);
        }
    }

    #[test]
    fn a_subresource_is_named_on_its_own() {
        let rule = ResourceRule {
            verbs: vec!["*".into()],
            groups: vec!["".into()],
            resources: vec!["pods".into(), "nodes/status".into()],
            cluster_scope: true,
            namespaces: vec!["a".into()],
        };
        let covers = |resource, subresource, namespace| {
            covers_resource(&rule, "get", &About { group: "", resource, subresource, namespace })
        };
        assert!(covers("pods", "", "a"));
        assert!(!covers("pods", "log", "a"));
        assert!(!covers("pods", "", "b"));
        assert!(covers("nodes", "status", ""));
        assert!(!covers("nodes", "", ""));
    }
}
