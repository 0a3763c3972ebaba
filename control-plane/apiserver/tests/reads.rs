//! Reads over HTTP: every combination of a resource version and what it is to mean, pages, watches and their
//! beginnings and ends, shapes and encodings; and writes that are only tried.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::Server;

mod dry_runs;
mod shapes;
mod versions;
mod watches;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Everything has come by then.
const PATIENCE: Duration = Duration::from_secs(40);

/// The answer to a GET.
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

async fn get(server: &Server, path: &str) -> Got {
    get_as(server, path, "application/json").await
}

async fn get_as(server: &Server, path: &str, accept: &str) -> Got {
    let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
    let (parts, body) = server.raw(request).await.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{path}: {bytes:?}"));
    Got { status: parts.status, headers: parts.headers, body }
}

/// Writes a map; its resource version.
async fn make(server: &Server, name: &str, labels: Value) -> u64 {
    let map = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": name}});
    let (status, made) = server.send("POST", MAPS, Some(map)).await;
    assert_eq!(status, 201, "{made}");
    version(&made)
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no version: {object}"))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().map(|items| items.iter().map(name).collect()).unwrap_or_default()
}
