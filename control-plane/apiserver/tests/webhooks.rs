//! Admission webhooks over a real server and real webhooks with TLS.

mod connect;
mod custom;
mod equivalent;
mod hook;
mod mutating;
mod validating;

use serde_json::{Value, json};

use crate::support::Server;
use hook::Hook;

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// A server with the whole admission chain and the namespaces `default` and `other`.
async fn start() -> Server {
    let server = Server::start_admitting().await;
    for name in ["default", "other"] {
        let namespace = json!({"metadata": {"name": name, "labels": {"name": name}}});
        let (status, answer) = server.send("POST", "/api/v1/namespaces", Some(namespace)).await;
        assert_eq!(status, 201, "{answer}");
        let account = json!({"metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        let (status, answer) = server.send("POST", &path, Some(account)).await;
        assert_eq!(status, 201, "{answer}");
    }
    server
}

fn rule(operations: &[&str], group: &str, resource: &str) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": ["*"], "resources": [resource]})
}

/// One webhook of a configuration, at a path of a hook.
fn webhook(hook: &Hook, path: &str, rule: &Value) -> Value {
    json!({
        "name": format!("{}.example.com", path.trim_start_matches('/').replace('/', "-")),
        "clientConfig": {"url": format!("https://127.0.0.1:{}{path}", hook.port), "caBundle": hook.ca},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    })
}

/// The same with a field set.
fn with(mut webhook: Value, field: &str, value: Value) -> Value {
    webhook[field] = value;
    webhook
}

async fn configure(server: &Server, plural: &str, name: &str, webhooks: &[Value]) {
    let body = json!({"metadata": {"name": name, "labels": {"set": "x"}}, "webhooks": webhooks});
    let (status, answer) = server.send("POST", &format!("{GROUP}/{plural}"), Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    server.settled().await;
}

async fn mutating(server: &Server, name: &str, webhooks: &[Value]) {
    configure(server, "mutatingwebhookconfigurations", name, webhooks).await;
}

async fn validating(server: &Server, name: &str, webhooks: &[Value]) {
    configure(server, "validatingwebhookconfigurations", name, webhooks).await;
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"start": "yes"}})
}
