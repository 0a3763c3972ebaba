//! Devices that others use are for the administrators of marked namespaces.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Secure, message};

const GROUP: &str = "/apis/resource.k8s.io/v1/namespaces";

fn spec(admin: bool) -> Value {
    json!({"devices": {"requests": [
        {"name": "a", "exactly": {"deviceClassName": "c"}},
        {"name": "b", "exactly": {"deviceClassName": "c", "adminAccess": admin}},
    ]}})
}

fn claim(name: &str, admin: bool) -> Value {
    json!({"metadata": {"name": name}, "spec": spec(admin)})
}

#[tokio::test]
async fn admin_access_is_for_marked_namespaces() {
    let server = Secure::start().await;
    server.grant("jane", json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])).await;
    let send =
        async |method: &str, path: String, body: Value| server.send("jane", method, &path, Some(body)).await;
    for (name, labels) in [
        ("plain", json!({"resource.kubernetes.io/admin-access": "True"})),
        ("marked", json!({"resource.kubernetes.io/admin-access": "true"})),
    ] {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        let (status, answer) = send("POST", "/api/v1/namespaces".into(), namespace).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    let why = "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    let template = json!({"metadata": {"name": "t"}, "spec": {"spec": spec(true)}});
    for (plural, object) in [("resourceclaims", claim("x", true)), ("resourceclaimtemplates", template)] {
        let (status, answer) = send("POST", format!("{GROUP}/plain/{plural}"), object.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        let told = format!("spec.devices.requests[1].adminAccess: {why}");
        assert!(message(&answer).ends_with(&told), "{answer}");
        let (status, answer) = send("POST", format!("{GROUP}/marked/{plural}"), object).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }

    // Nor does the status give it.
    for (namespace, code) in [("plain", StatusCode::UNPROCESSABLE_ENTITY), ("marked", StatusCode::OK)] {
        let claims = format!("{GROUP}/{namespace}/resourceclaims");
        let (status, mut made) = send("POST", claims.clone(), claim("y", false)).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["status"] = json!({"allocation": {"devices": {"results": [{"request": "a",
            "driver": "d.example", "pool": "p", "device": "one", "adminAccess": true}]}}});
        let (status, answer) = send("PUT", format!("{claims}/y/status"), made).await;
        assert_eq!(status, code, "{answer}");
        if code != StatusCode::OK {
            let told = format!("status.allocation.devices.results[0].adminAccess: {why}");
            assert!(message(&answer).ends_with(&told), "{answer}");
        }
    }
}
