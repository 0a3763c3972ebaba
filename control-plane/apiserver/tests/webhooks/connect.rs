//! CONNECT, and the objects that travel to subresources.

use serde_json::{Value, json};

use super::hook::Hook;
use super::{rule, start, validating, webhook};
use crate::support::Server;

async fn pod(server: &Server) {
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    });
    let (status, answer) = server.send("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(status, 201, "{answer}");
}

/// Holds AM-09.
#[tokio::test(flavor = "multi_thread")]
async fn attach_can_be_denied() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    pod(&server).await;
    validating(&server, "c", &[webhook(&hook, "/deny", &rule(&["CONNECT"], "", "pods/*"))]).await;
    let pods = "/api/v1/namespaces/default/pods/p";
    let (status, answer) = server.send("POST", &format!("{pods}/attach?stdin=true&container=c"), None).await;
    assert_eq!(status, 403, "{answer}");
    let (status, _) = server.send("POST", &format!("{pods}/exec?command=ls&command=-l&tty=true"), None).await;
    assert_eq!(status, 403);
    let (status, _) = server.send("POST", &format!("{pods}/portforward?ports=80,81"), None).await;
    assert_eq!(status, 403);
    let requests = hook.requests("/deny");
    let shown: Vec<(&str, &Value)> = requests
        .iter()
        .map(|one| (one["subResource"].as_str().unwrap_or_default(), &one["object"]))
        .collect();
    let version = "v1";
    let want = [
        json!({"kind": "PodAttachOptions", "apiVersion": version, "stdin": true, "container": "c"}),
        json!({"kind": "PodExecOptions", "apiVersion": version, "tty": true, "command": ["ls", "-l"]}),
        json!({"kind": "PodPortForwardOptions", "apiVersion": version, "ports": [80, 81]}),
    ];
    for ((subresource, object), want) in shown.iter().zip(&want) {
        assert_eq!(*object, want, "{subresource}");
    }
    assert_eq!(requests[0]["operation"], "CONNECT");
    assert_eq!(requests[0]["kind"]["kind"], "PodAttachOptions");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scale_an_eviction_and_a_binding_travel_as_themselves() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    pod(&server).await;
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let (status, answer) = server.send("POST", deployments, Some(deployment)).await;
    assert_eq!(status, 201, "{answer}");
    let rules = [
        webhook(&hook, "/scale/deny", &rule(&["*"], "apps", "*/scale")),
        webhook(&hook, "/eviction/deny", &rule(&["*"], "", "pods/eviction")),
    ];
    validating(&server, "c", &rules).await;
    let patch = json!({"spec": {"replicas": 3}});
    let (status, answer) = server.send("PATCH", &format!("{deployments}/d/scale"), Some(patch)).await;
    assert_eq!(status, 403, "{answer}");
    let request = &hook.requests("/scale")[0];
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["object"]["spec"]["replicas"], 3);
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = "/api/v1/namespaces/default/pods/p/eviction";
    let (status, answer) = server.send("POST", path, Some(eviction)).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(hook.requests("/eviction")[0]["kind"]["kind"], "Eviction");
}
