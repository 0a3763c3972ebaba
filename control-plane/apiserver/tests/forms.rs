//! Tables, metadata, protobuf, compression, discovery and watch streams.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_api::resource::GroupVersionKind;
use skep_machinery::codec::{self, FieldValidation};
use tower::ServiceExt;

use crate::support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

async fn raw(server: &Server, path: &str, headers: &[(&str, &str)]) -> http::Response<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).expect("a request");
    request.extensions_mut().insert(server.user.clone());
    server.router.clone().oneshot(request).await.expect("infallible")
}

async fn make(server: &Server, name: &str, value: &str) {
    let body = json!({"metadata": {"name": name}, "data": {"k": value}});
    let (status, answer) = server.send("POST", MAPS, Some(body)).await;
    assert_eq!(status, 201, "{answer}");
}

#[tokio::test]
async fn lists_come_as_tables_metadata_and_protobuf() {
    let server = Server::start().await;
    make(&server, "a", "v").await;
    let bytes = raw(&server, MAPS, &[("accept", TABLE)]).await.into_body().collect().await.expect("a body");
    let table: Value = serde_json::from_slice(&bytes.to_bytes()).expect("JSON");
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");

    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let bytes =
        raw(&server, MAPS, &[("accept", metadata)]).await.into_body().collect().await.expect("a body");
    let list: Value = serde_json::from_slice(&bytes.to_bytes()).expect("JSON");
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("data"), None);

    let answer = raw(&server, MAPS, &[("accept", PROTOBUF)]).await;
    assert_eq!(answer.headers()["content-type"], PROTOBUF);
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let kind = GroupVersionKind::new("", "v1", "ConfigMapList");
    let list = codec::decode(PROTOBUF, &bytes, Some(&kind), FieldValidation::Strict).expect("protobuf");
    assert_eq!(list.object["items"][0]["data"]["k"], "v");
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_take_it() {
    use std::io::Read;
    let server = Server::start().await;
    make(&server, "a", &"x".repeat(200_000)).await;
    let answer = raw(&server, MAPS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("gzip");
    assert!(text.contains("ConfigMapList"));
    assert!(raw(&server, MAPS, &[]).await.headers().get("content-encoding").is_none());
}

#[tokio::test]
async fn discovery_has_an_etag() {
    let server = Server::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let answer = raw(&server, "/apis", &[("accept", aggregated)]).await;
    assert_eq!(answer.headers()["content-type"], aggregated);
    let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
    let again = raw(&server, "/apis", &[("accept", aggregated), ("if-none-match", &etag)]).await;
    assert_eq!(again.status(), 304);
    for path in [
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v3",
        "/version",
        "/metrics",
        "/readyz?verbose",
        "/",
    ] {
        assert_eq!(raw(&server, path, &[]).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_watch_streams_what_happens() {
    let server = Server::start().await;
    make(&server, "a", "1").await;
    let (_, list) = server.send("GET", MAPS, None).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    make(&server, "b", "2").await;
    let (status, _) = server.send("DELETE", &format!("{MAPS}/a"), None).await;
    assert_eq!(status, 200);
    let path = format!("{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1");
    let answer = raw(&server, &path, &[]).await;
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    let frames: Vec<Value> = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    let seen: Vec<(&str, &str)> = frames
        .iter()
        .map(|frame| {
            let text = |value: &'static str| frame.pointer(value).and_then(Value::as_str).unwrap_or_default();
            (text("/type"), text("/object/metadata/name"))
        })
        .collect();
    assert_eq!(seen, [("ADDED", "b"), ("DELETED", "a")]);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_says_so_in_its_stream() {
    let server = Server::start().await;
    let first = "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0&timeoutSeconds=1";
    assert_eq!(raw(&server, first, &[]).await.status(), 200);
}
