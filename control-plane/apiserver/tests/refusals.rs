//! Bad input gets the status clients know, and nothing of it is stored.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn broken_bodies_are_refused() {
    let server = Server::start().await;
    let json_type = "application/json";
    let cases = [
        ("{", json_type, 400, "BadRequest"),
        ("a: [", "application/yaml", 400, "BadRequest"),
        ("{}", "text/csv", 415, "UnsupportedMediaType"),
        (r#"{"kind":"Pod","apiVersion":"v1"}"#, json_type, 400, "BadRequest"),
        (r#"{"metadata":{"name":"a"},"data":{"k":1}}"#, json_type, 400, "BadRequest"),
        (r#"{"metadata":{"name":"A_B"}}"#, json_type, 422, "Invalid"),
        (r#"{"metadata":{}}"#, json_type, 422, "Invalid"),
        (r#"{"metadata":{"name":"a","namespace":"other"}}"#, json_type, 400, "BadRequest"),
        (r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#, json_type, 400, "BadRequest"),
    ];
    for (body, content_type, code, reason) in cases {
        let (status, answer) = server.send_as("POST", MAPS, content_type, body.to_owned()).await;
        assert_eq!(status.as_u16(), code, "{body}: {answer}");
        assert_eq!(answer["kind"], "Status", "{body}: {answer}");
        assert_eq!(answer["reason"], reason, "{body}: {answer}");
    }
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let unknown = json!({"metadata": {"name": "a"}, "colour": "blue"});
    let (status, answer) = server.send("POST", &strict, Some(unknown.clone())).await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["message"].as_str().is_some_and(|text| text.contains("unknown field \"colour\"")),
        "{answer}"
    );
    let (_, list) = server.send("GET", MAPS, None).await;
    assert_eq!(list["items"], json!([]));
    let (status, made) = server.send("POST", MAPS, Some(unknown)).await;
    assert_eq!((status.as_u16(), made.get("colour")), (201, None));
}

#[tokio::test]
async fn unknown_places_and_methods_are_refused() {
    let server = Server::start().await;
    let cases = [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/unicorns", 404),
        ("GET", "/apis/example.com/v1/unicorns", 404),
        ("GET", "/api/v1/configmaps/a", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("POST", "/api/v1/namespaces/default/configmaps/a", 405),
        ("POST", "/api/v1/configmaps", 405),
        ("PUT", MAPS, 405),
        ("GET", "/api/v1/namespaces/default/configmaps/a/status", 404),
        ("GET", "/api/v1/namespaces/default/configmaps?limit=x", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?labelSelector=%3D%3D", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?fieldSelector=spec.x%3D1", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?continue=abc", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?resourceVersion=999999", 504),
    ];
    for (method, path, code) in cases {
        let (status, answer) = server.send(method, path, None).await;
        assert_eq!(status.as_u16(), code, "{method} {path}: {answer}");
        assert_eq!(answer["kind"], "Status", "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_too_long_or_not_acceptable_is_refused() {
    let server = Server::start().await;
    let long = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    let (status, answer) = server.send_as("POST", MAPS, "application/json", long).await;
    assert_eq!((status.as_u16(), answer["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    let request = Request::get(MAPS).header("accept", "text/html").body(Body::empty()).expect("a request");
    let (status, _) = server.text(request).await;
    assert_eq!(status, 406);
}
