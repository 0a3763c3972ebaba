//! Tables of requests and matchers.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use skep_api::user::UserInfo;

use super::*;

struct Cluster;

#[async_trait]
impl Reader for Cluster {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        _namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        assert_eq!(gvr.resource, "namespaces");
        Ok((name == "prod").then(|| Arc::new(json!({"metadata": {"labels": {"env": "prod"}}}))))
    }

    async fn list(
        &self,
        _gvr: &GroupVersionResource,
        _namespace: Option<&str>,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        Ok(Vec::new())
    }

    fn equivalents(&self, gvr: &GroupVersionResource, _subresource: &str) -> Vec<Match> {
        let other = |version: &str| Match {
            gvr: GroupVersionResource::new("apps", version, "deployments"),
            gvk: GroupVersionKind::new("apps", version, "Deployment"),
        };
        if gvr.resource == "deployments" { vec![other("v1"), other("v1beta1")] } else { Vec::new() }
    }
}

fn request(operation: Operation, resource: &str, namespace: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let core = matches!(resource, "pods" | "namespaces" | "nodes");
    let group = if core { "" } else { "apps" };
    Attributes {
        operation,
        gvk: GroupVersionKind::new(group, "v1", "X"),
        gvr: GroupVersionResource::new(group, "v1", resource),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
        object: Some(json!({"metadata": {"labels": {"app": "web"}}})),
        old_object: None,
        user: UserInfo::default(),
        ..Attributes::default()
    }
}

async fn matched(matcher: &Value, attributes: &Attributes) -> Result<Option<Match>, ApiError> {
    Matcher::from_match_resources(Some(matcher)).unwrap().matches(attributes, &Cluster).await
}

#[tokio::test]
async fn rules() {
    let create = Operation::Create;
    let rule = |operations: &str, group: &str, version: &str, resource: &str| json!({"operations": [operations], "apiGroups": [group], "apiVersions": [version], "resources": [resource]});
    for (rule, attributes, want) in [
        (rule("CREATE", "", "v1", "pods"), request(create, "pods", "prod"), true),
        (rule("*", "*", "*", "*"), request(create, "pods", "prod"), true),
        (rule("*", "*", "*", "*"), request(Operation::Connect, "pods/exec", "prod"), false),
        (rule("*", "*", "*", "*/*"), request(Operation::Connect, "pods/exec", "prod"), true),
        (rule("*", "*", "*", "pods/*"), request(create, "pods", "prod"), true),
        (rule("*", "*", "*", "*/exec"), request(Operation::Connect, "pods/exec", "prod"), true),
        (rule("UPDATE", "", "v1", "pods"), request(create, "pods", "prod"), false),
        (rule("CREATE", "apps", "v1", "pods"), request(create, "pods", "prod"), false),
        (rule("CREATE", "", "v2", "pods"), request(create, "pods", "prod"), false),
    ] {
        let matcher = json!({"resourceRules": [rule]});
        let got = matched(&matcher, &attributes).await.unwrap().is_some();
        assert_eq!(got, want, "{matcher} {attributes:?}");
    }
}

#[tokio::test]
async fn scope_names_and_exclusion() {
    let all = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
    let with = |field: &str, value: Value| {
        let mut rule = all.clone();
        rule[field] = value;
        rule
    };
    let create = Operation::Create;
    for (matcher, attributes, want) in [
        (json!({"resourceRules": [with("scope", json!("Cluster"))]}), request(create, "pods", "prod"), false),
        (
            json!({"resourceRules": [with("scope", json!("Namespaced"))]}),
            request(create, "pods", "prod"),
            true,
        ),
        (json!({"resourceRules": [with("scope", json!("Cluster"))]}), request(create, "nodes", ""), true),
        (
            json!({"resourceRules": [with("scope", json!("Cluster"))]}),
            request(create, "namespaces", "a"),
            true,
        ),
        (
            json!({"resourceRules": [with("resourceNames", json!(["db"]))]}),
            request(create, "pods", "prod"),
            false,
        ),
        (
            json!({"resourceRules": [with("resourceNames", json!(["web"]))]}),
            request(create, "pods", "prod"),
            true,
        ),
        (
            json!({"resourceRules": [all], "excludeResourceRules": [with("resources", json!(["pods"]))]}),
            request(create, "pods", "prod"),
            false,
        ),
        (json!({}), request(create, "pods", "prod"), true),
    ] {
        assert_eq!(matched(&matcher, &attributes).await.unwrap().is_some(), want, "{matcher}");
    }
    let webhook = Matcher::from_webhook(&json!({})).unwrap();
    assert_eq!(webhook.matches(&request(create, "pods", "prod"), &Cluster).await.unwrap(), None);
}

#[tokio::test]
async fn selectors() {
    let create = Operation::Create;
    let select = |field: &str, key: &str, value: &str| json!({field: {"matchLabels": {key: value}}});
    for (matcher, attributes, want) in [
        (select("namespaceSelector", "env", "prod"), request(create, "pods", "prod"), Ok(true)),
        (select("namespaceSelector", "env", "test"), request(create, "pods", "prod"), Ok(false)),
        (select("namespaceSelector", "env", "prod"), request(create, "nodes", ""), Ok(true)),
        (select("namespaceSelector", "env", "prod"), request(create, "pods", "gone"), Err(404)),
        // A namespace that is being made is judged by the labels it will have.
        (select("namespaceSelector", "app", "web"), request(create, "namespaces", "web"), Ok(true)),
        (select("objectSelector", "app", "web"), request(create, "pods", "prod"), Ok(true)),
        (select("objectSelector", "app", "db"), request(create, "pods", "prod"), Ok(false)),
    ] {
        let got = matched(&matcher, &attributes).await.map(|m| m.is_some()).map_err(|e| e.code);
        assert_eq!(got, want, "{matcher}");
    }
    // The error is no matter to a policy whose rules do not match.
    let rules =
        json!([{"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]);
    let mut matcher = select("namespaceSelector", "env", "prod");
    matcher["resourceRules"] = rules;
    assert_eq!(matched(&matcher, &request(create, "pods", "gone")).await.unwrap(), None);
}

#[tokio::test]
async fn equivalent_versions() {
    let rules = json!([
        {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1beta1"], "resources": ["deployments"]}]);
    let attributes = request(Operation::Create, "deployments", "prod");
    let exact = json!({"resourceRules": rules, "matchPolicy": "Exact"});
    assert_eq!(matched(&exact, &attributes).await.unwrap(), None);
    let equivalent = json!({"resourceRules": rules, "matchPolicy": "Equivalent"});
    let found = matched(&equivalent, &attributes).await.unwrap().unwrap();
    assert_eq!(found.gvk.version, "v1beta1");
    assert!(found.differs(&attributes));
}

#[test]
fn a_bad_selector_is_refused() {
    let bad = json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});
    assert!(Matcher::from_webhook(&bad).is_err());
}
