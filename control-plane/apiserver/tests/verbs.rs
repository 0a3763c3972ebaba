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
