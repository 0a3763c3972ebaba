//! Nobody hands out rights they do not have.

use http::StatusCode;
use serde_json::json;

use super::{Secure, message};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn a_role_holds_no_more_than_its_author_has() {
    let server = Secure::start().await;
    server
        .grant(
            "jane",
            json!([
                {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "clusterroles"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            ]),
        )
        .await;
    // `*` as a verb includes `escalate`: that is what the verb is for.
    let roles = format!("{RBAC}/namespaces/default/roles");
    let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    let role = |name: &str| json!({"metadata": {"name": name}, "rules": secrets});
    let (status, answer) = server.send("jane", "POST", &roles, Some(role("a"))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");

    server
        .grant(
            "joe",
            json!([
                {"verbs": ["create", "update", "patch", "get"], "apiGroups": ["rbac.authorization.k8s.io"],
                 "resources": ["roles", "clusterroles"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            ]),
        )
        .await;
    let (status, answer) = server.send("joe", "POST", &roles, Some(role("b"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        message(&answer),
        "roles.rbac.authorization.k8s.io \"b\" is forbidden: user \"joe\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], \
         Verbs:[\"get\"]}"
    );
    let own = json!({"metadata": {"name": "c"}, "rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    ]});
    let (status, answer) = server.send("joe", "POST", &roles, Some(own)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (status, _) =
        server.send("joe", "PATCH", &format!("{roles}/c"), Some(json!({"rules": secrets}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "a change is no way around it");
    let aggregated = json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    let (status, answer) =
        server.send("joe", "POST", &format!("{RBAC}/clusterroles"), Some(aggregated)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message(&answer).contains("must have cluster-admin privileges to use an aggregationRule"));
}

#[tokio::test]
async fn a_binding_gives_no_more_than_its_author_has() {
    let server = Secure::start().await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let binding = |name: &str, role: &str| {
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "x"}],
        })
    };
    let write = json!({"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"],
                       "resources": ["rolebindings"]});
    server.grant("joe", json!([write])).await;
    let (status, answer) = server.send("joe", "POST", &bindings, Some(binding("a", "view"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    let (status, _) = server.send("joe", "POST", &bindings, Some(binding("a", "none"))).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "a role that is not there can't be measured");
    let bind = json!({"verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"],
                      "resources": ["clusterroles"], "resourceNames": ["view"]});
    server.grant("jane", json!([write, bind])).await;
    let (status, answer) = server.send("jane", "POST", &bindings, Some(binding("b", "view"))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (status, _) = server.send("jane", "POST", &bindings, Some(binding("c", "edit"))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

/// What a review says and what an impersonated call meets are the same.
///
/// Holds AU-10.
#[tokio::test]
async fn reviews_agree_with_impersonated_calls() {
    let server = Secure::start().await;
    let read = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    let role = json!({"metadata": {"name": "reader", "namespace": "default"}, "rules": read});
    server.create(&format!("{RBAC}/namespaces/default/roles"), role).await;
    let binding = json!({
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    server.create(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
    server.publish().await;
    let robot = "system:serviceaccount:default:robot";
    let reviews = "/apis/authorization.k8s.io/v1";
    for (resource, namespace, may) in
        [("pods", "default", true), ("pods", "kube-system", false), ("secrets", "default", false)]
    {
        let attributes = json!({"verb": "list", "resource": resource, "namespace": namespace});
        let spec = json!({"user": robot, "resourceAttributes": attributes});
        let paths = [
            format!("{reviews}/subjectaccessreviews"),
            format!("{reviews}/namespaces/{namespace}/localsubjectaccessreviews"),
        ];
        for path in paths {
            let answer = server.create(&path, json!({"spec": spec})).await;
            assert_eq!(answer["status"]["allowed"], may, "{path}: {answer}");
        }
        let path = format!("/api/v1/namespaces/{namespace}/{resource}");
        let as_robot = [("impersonate-user", robot)];
        let (status, _, _) = server.raw("admin", "GET", &path, &as_robot, None).await;
        assert_eq!(status == StatusCode::OK, may, "{path}");
    }
    // Without the right to impersonate it is refused, whoever it would be.
    let (status, _, answer) = server
        .raw("jane", "GET", "/api/v1/namespaces/default/pods", &[("impersonate-user", robot)], None)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message(&answer).contains("cannot impersonate resource \"serviceaccounts\""), "{answer}");
}
