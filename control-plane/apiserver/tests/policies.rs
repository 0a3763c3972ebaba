//! Admission policies and match conditions over a real server.

mod mutating;
mod validating;
mod writing;

use serde_json::{Value, json};

use crate::support::Server;

pub(crate) const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server with the whole admission chain and the namespace `default`.
async fn start() -> Server {
    let server = Server::start_admitting().await;
    create(
        &server,
        "/api/v1/namespaces",
        json!({"metadata": {"name": "default", "labels": {"env": "test"}}}),
    )
    .await;
    server
}

/// Creates what must be fine.
async fn create(server: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = server.send("POST", path, Some(body)).await;
    assert_eq!(status, 201, "{answer:#}");
    answer
}

fn deployment(name: &str, replicas: i64) -> Value {
    let labels = json!({"app": name});
    json!({"metadata": {"name": name, "labels": labels}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

fn map(name: &str, data: &Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

/// Writes to resources of a group.
fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
        "operations": ["CREATE", "UPDATE"]}]})
}

/// The fields and messages of a Status' causes.
fn causes(answer: &Value) -> Vec<(&str, &str)> {
    let causes = answer["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
    causes
        .iter()
        .map(|cause| {
            (cause["field"].as_str().unwrap_or_default(), cause["message"].as_str().unwrap_or_default())
        })
        .collect()
}
