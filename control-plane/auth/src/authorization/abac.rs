//! Attribute based access control: a policy file, one JSON object a line. Both the v1beta1 form (under
//! `spec`) and the older flat form are read.

use async_trait::async_trait;
use serde::Deserialize;

use super::{Attributes, Authorizer, Decision};

/// A line that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("policy file, line {line}: {why}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(default)]
    api_version: String,
    spec: Option<Policy>,
    #[serde(flatten)]
    flat: serde_json::Map<String, serde_json::Value>,
}

/// The policies of a file.
pub struct Abac {
    policies: Vec<Policy>,
}

impl Abac {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut policies = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| ParseError { line: index + 1, why };
            let parsed: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            policies.push(match (parsed.api_version.as_str(), parsed.spec) {
                ("abac.authorization.kubernetes.io/v1beta1", Some(policy)) => policy,
                ("", None) => flat(parsed.flat).map_err(|e| wrong(e.to_string()))?,
                (version, _) => return Err(wrong(format!("unknown version {version:?} or no spec"))),
            });
        }
        Ok(Self { policies })
    }
}

/// In the old form what is left out means "all".
fn flat(fields: serde_json::Map<String, serde_json::Value>) -> Result<Policy, serde_json::Error> {
    let mut policy: Policy = serde_json::from_value(fields.into())?;
    if policy.user.is_empty() && policy.group.is_empty() {
        policy.group = "system:authenticated".into();
    }
    for field in [&mut policy.namespace, &mut policy.resource, &mut policy.api_group] {
        if field.is_empty() {
            "*".clone_into(field);
        }
    }
    if policy.non_resource_path.is_empty() && policy.namespace == "*" && policy.resource == "*" {
        policy.non_resource_path = "*".into();
    }
    Ok(policy)
}

impl Policy {
    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        self.is_about(attributes)
            && (!self.readonly || matches!(attributes.verb, "get" | "list" | "watch"))
            && if attributes.is_resource {
                covers(&self.namespace, attributes.namespace)
                    && covers(&self.resource, attributes.resource)
                    && covers(&self.api_group, attributes.group)
            } else {
                match self.non_resource_path.strip_suffix('*') {
                    Some(prefix) => attributes.path.starts_with(prefix),
                    None => !self.non_resource_path.is_empty() && self.non_resource_path == attributes.path,
                }
            }
    }

    fn is_about(&self, attributes: &Attributes<'_>) -> bool {
        if self.user.is_empty() && self.group.is_empty() {
            return false;
        }
        if self.user == "*" || self.group == "*" {
            return true;
        }
        (self.user.is_empty() || self.user == attributes.user.name)
            && (self.group.is_empty() || attributes.user.groups.contains(&self.group))
    }
}

fn covers(pattern: &str, value: &str) -> bool {
    pattern == "*" || pattern == value
}

#[async_trait]
impl Authorizer for Abac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if self.policies.iter().any(|policy| policy.matches(attributes)) {
            Decision::Allow("allowed by the policy file".into())
        } else {
            Decision::NoOpinion("No policy matched.".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_api::user::UserInfo;

    use super::*;

    #[test]
    fn both_forms_decide() {
        let text = r#"
            {"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"bob","namespace":"projectCaribou","resource":"pods","apiGroup":"","readonly":true}}
            {"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"ops","nonResourcePath":"/logs/*"}}
            {"user":"alice"}
        "#;
        let abac = Abac::parse(text).expect("parses");
        let allowed = |attributes: &Attributes<'_>| abac.policies.iter().any(|p| p.matches(attributes));
        let (bob, alice) = (UserInfo::new("bob", ["ops"]), UserInfo::new("alice", [""; 0]));
        let pods = |user, verb, namespace| Attributes {
            namespace,
            ..Attributes::for_resource(user, verb, "", "pods")
        };
        assert!(allowed(&pods(&bob, "list", "projectCaribou")));
        assert!(!allowed(&pods(&bob, "create", "projectCaribou")));
        assert!(!allowed(&pods(&bob, "list", "other")));
        assert!(allowed(&pods(&alice, "create", "other")));
        assert!(allowed(&Attributes::for_path(&bob, "get", "/logs/x")));
        assert!(!allowed(&Attributes::for_path(&bob, "get", "/metrics")));
        assert_eq!(Abac::parse("\nnonsense").err().map(|e| e.line), Some(2));
    }
}
