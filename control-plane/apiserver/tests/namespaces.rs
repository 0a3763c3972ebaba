//! PodSecurity and ResourceQuota through the server.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::support::Server;

const PODS: &str = "/api/v1/namespaces/team/pods";

async fn start(labels: &Value) -> Server {
    let server = Server::start_admitting().await;
    let namespace = json!({"metadata": {"name": "team", "labels": labels}});
    let (status, answer) = server.send("POST", "/api/v1/namespaces", Some(namespace)).await;
    assert_eq!(status, 201, "{answer}");
    let account = json!({"metadata": {"name": "default"}});
    let (status, answer) =
        server.send("POST", "/api/v1/namespaces/team/serviceaccounts", Some(account)).await;
    assert_eq!(status, 201, "{answer}");
    server
}

fn pod(name: &str, privileged: bool) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "i", "securityContext": {"privileged": privileged}},
    ]}})
}

async fn warnings(server: &Server, method: &str, path: &str, body: &Value) -> Vec<String> {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(Body::from(body.to_string()))
        .expect("a request");
    let answer = server.raw(request).await;
    assert!(answer.status().is_success(), "{}", answer.status());
    let headers = answer.headers().get_all("warning").iter();
    headers.map(|value| value.to_str().unwrap_or_default().replace("\\\"", "\"")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_choose_what_is_refused_and_what_is_warned_of() {
    let server = start(&json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let (status, answer) = server.send("POST", PODS, Some(pod("a", true))).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(
        answer["message"],
        "pods \"a\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must \
         not set securityContext.privileged=true)"
    );
    let (status, answer) = server.send("POST", PODS, Some(pod("b", false))).await;
    assert_eq!(status, 201, "{answer}");
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x", true)["spec"]},
    }});
    let seen = warnings(&server, "POST", "/apis/apps/v1/namespaces/team/deployments", &deployment).await;
    assert!(
        seen.iter().any(|text| text.contains("would violate PodSecurity \"baseline:latest\"")),
        "{seen:?}"
    );
    // A stricter label warns of the pods that are there.
    let stricter = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let seen = warnings(&server, "PATCH", "/api/v1/namespaces/team", &stricter).await;
    assert!(
        seen[0].contains("existing pods in namespace \"team\" violate the new PodSecurity enforce level"),
        "{seen:?}"
    );
    assert!(seen[1].contains("b: allowPrivilegeEscalation != false"), "{seen:?}");
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn": "strict"}}});
    let (status, answer) = server.send("PATCH", "/api/v1/namespaces/team", Some(wrong)).await;
    assert_eq!(status, 422, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_time_do_not_exceed_a_quota() {
    let server = start(&json!({})).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}});
    let quotas = "/api/v1/namespaces/team/resourcequotas";
    let (status, answer) = server.send("POST", quotas, Some(quota)).await;
    assert_eq!(status, 201, "{answer}");
    let maps = "/api/v1/namespaces/team/configmaps";
    let made = (0..20).map(|at| {
        let server = &server;
        async move {
            let (status, answer) = server.send("POST", maps, Some(json!({"metadata": {"name": format!("m{at}")}}))).await;
            if status != 201 {
                let message = answer["message"].as_str().unwrap_or_default();
                assert!(message.contains("exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5"), "{answer}");
            }
            status == 201
        }
    });
    let made = futures::future::join_all(made).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 5);
    let (_, quota) = server.send("GET", &format!("{quotas}/q"), None).await;
    assert_eq!(quota["status"]["used"]["configmaps"], "5");
    // A dry run is checked and not charged; a name that is taken is not charged twice.
    let (status, _) = server.send("DELETE", &format!("{quotas}/q"), None).await;
    assert_eq!(status, 200);
}
