//! Each verb through the router, without a network.

use serde_json::json;

use crate::support::Server;

#[tokio::test]
async fn create_get_update_delete() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let (status, created) = server.send("POST", path, Some(body.clone())).await;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["kind"], "ConfigMap");
    let (status, again) = server.send("POST", path, Some(body)).await;
    assert_eq!((status.as_u16(), again["reason"].as_str()), (409, Some("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"a\" already exists");
    let one = format!("{path}/a");
    let (status, mut found) = server.send("GET", &one, None).await;
    assert_eq!((status.as_u16(), &found["metadata"]), (200, &created["metadata"]));
    found["data"]["k"] = json!("w");
    let (status, updated) = server.send("PUT", &one, Some(found.clone())).await;
    assert_eq!(status, 200, "{updated}");
    let (status, conflict) = server.send("PUT", &one, Some(found)).await;
    assert_eq!((status.as_u16(), conflict["reason"].as_str()), (409, Some("Conflict")));
    let (status, unchanged) = server.send("PUT", &one, Some(updated.clone())).await;
    assert_eq!(status, 200);
    assert_eq!(unchanged["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
    let (status, deleted) = server.send("DELETE", &one, None).await;
    assert_eq!((status.as_u16(), deleted["status"].as_str()), (200, Some("Success")));
    let (status, gone) = server.send("GET", &one, None).await;
    assert_eq!((status.as_u16(), gone["message"].as_str()), (404, Some("configmaps \"a\" not found")));
}

#[tokio::test]
async fn a_cluster_is_bootstrapped_once() {
    let server = Server::start().await;
    let cluster = server.cluster();
    let registry = server.api.registry();
    skep_apiserver::bootstrap::bootstrap(registry, &cluster).await.expect("made");
    let services = "/api/v1/services";
    let (_, before) = server.send("GET", services, None).await;
    assert_eq!(before["items"].as_array().map(Vec::len), Some(2), "{before}");
    assert_eq!(before["items"][0]["spec"]["clusterIP"], "10.96.0.1");
    skep_apiserver::bootstrap::bootstrap(registry, &cluster).await.expect("still there");
    let (_, after) = server.send("GET", services, None).await;
    assert_eq!(before["items"], after["items"]);
    let taken = json!({
        "metadata": {"name": "x"}, "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
    });
    let (status, refused) = server.send("POST", "/api/v1/namespaces/default/services", Some(taken)).await;
    assert_eq!(status, 422, "{refused}");
    assert!(
        refused["message"].as_str().expect("text").contains("provided IP is already allocated"),
        "{refused}"
    );
}
