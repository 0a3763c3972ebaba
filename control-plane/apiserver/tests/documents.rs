//! Goldens of what clients learn a server by: discovery and OpenAPI.
//!
//! `tests/golden/` holds a readable summary of each; the whole documents are left in the target folder for a look.
//! After a wanted change: `SKEP_WRITE_GOLDENS=1 cargo nextest run -p skep-apiserver documents`.

use std::fmt::Write as _;
use std::path::Path;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use crate::support::Server;

/// Compares with a golden, or writes it when asked to.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("SKEP_WRITE_GOLDENS").is_some() {
        std::fs::write(&path, text).expect("a golden");
        return;
    }
    let want = std::fs::read_to_string(&path).expect("a golden");
    let changed: Vec<String> = text
        .lines()
        .filter(|line| !want.lines().any(|other| other == *line))
        .map(|line| format!("+ {line}"))
        .chain(
            want.lines()
                .filter(|line| !text.lines().any(|other| other == *line))
                .map(|line| format!("- {line}")),
        )
        .collect();
    assert!(want == text, "{name} differs:\n{}", changed.join("\n"));
}

/// Leaves a document where a developer finds it.
fn keep(name: &str, document: &Value) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(name), document.to_string()).expect("a file");
}

async fn json(server: &Server, path: &str) -> Value {
    let (status, value) = server.send("GET", path, None).await;
    assert_eq!(status, 200, "{path}");
    value
}

fn texts(value: &Value) -> String {
    let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    items.join(",")
}

/// `kubectl api-resources --verbs= -o wide`, with subresources: the stable groups of v1.36.
///
/// Holds AM-30, AM-31, AM-14, AM-40, CL-02.
#[tokio::test]
async fn documents_discovery() {
    let server = Server::start().await;
    let mut paths = vec!["/api/v1".to_owned()];
    let groups = json(&server, "/apis").await;
    for group in groups["groups"].as_array().expect("groups") {
        let name = group["name"].as_str().expect("a name");
        let preferred = &group["preferredVersion"];
        let versions = group["versions"].as_array().expect("versions");
        assert!(versions.contains(preferred), "{name}");
        assert_eq!(json(&server, &format!("/apis/{name}")).await["preferredVersion"], *preferred);
        paths.extend(versions.iter().map(|v| format!("/apis/{}", v["groupVersion"].as_str().expect("text"))));
    }
    let mut lines = Vec::new();
    for path in paths {
        let list = json(&server, &path).await;
        assert!(path.ends_with(list["groupVersion"].as_str().expect("a group and version")));
        for resource in list["resources"].as_array().expect("resources") {
            let text = |field: &str| resource[field].as_str().unwrap_or_default();
            let mut line = format!("{path} {} {}", text("name"), text("kind"));
            if !text("group").is_empty() || !text("version").is_empty() {
                write!(line, "({}/{})", text("group"), text("version")).expect("text");
            }
            write!(
                line,
                " singular={} namespaced={} short={} categories={} verbs={}",
                text("singularName"),
                resource["namespaced"],
                texts(&resource["shortNames"]),
                texts(&resource["categories"]),
                texts(&resource["verbs"])
            )
            .expect("text");
            lines.push(line);
        }
    }
    lines.sort();
    lines.push(String::new());
    golden("discovery.txt", &lines.join("\n"));
}

/// A hash that does not depend on the order of keys, nor on the server's version.
fn digest(document: &Value) -> String {
    let mut document = document.clone();
    if let Some(document) = document.as_object_mut() {
        document.remove("info");
    }
    // Maps of serde_json are sorted, so that the text is canonical.
    let hash = Sha256::digest(document.to_string());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn documents_openapi() {
    let server = Server::start().await;
    let index = json(&server, "/openapi/v3").await;
    let mut text = String::new();
    for (name, entry) in index["paths"].as_object().expect("paths") {
        let document = json(&server, entry["serverRelativeURL"].as_str().expect("an address")).await;
        keep(&format!("{}.json", name.replace('/', "_")), &document);
        let paths = document["paths"].as_object().expect("paths");
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        writeln!(text, "{name} {} paths={} schemas={}", digest(&document), paths.len(), schemas.len())
            .expect("text");
        let mut kinds: Vec<String> = schemas
            .values()
            .filter_map(|schema| schema["x-kubernetes-group-version-kind"].as_array())
            .filter(|kinds| kinds.len() == 1)
            .filter_map(|kinds| kinds[0]["kind"].as_str())
            .map(str::to_owned)
            .collect();
        kinds.sort();
        kinds.dedup();
        writeln!(text, "  {}", kinds.join(" ")).expect("text");
    }
    let v2 = json(&server, "/openapi/v2").await;
    keep("v2.json", &v2);
    let count = |field: &str| v2[field].as_object().map_or(0, serde_json::Map::len);
    writeln!(text, "v2 {} paths={} definitions={}", digest(&v2), count("paths"), count("definitions"))
        .expect("text");
    golden("openapi.txt", &text);
}

/// A document is kept compressed, cached for ever under its hash, and comes as protobuf too.
#[tokio::test]
async fn documents_travel_well() {
    let server = Server::start().await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).expect("a request");
        request.extensions_mut().insert(server.user.clone());
        let answer = server.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = answer.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    };
    let index = json(&server, "/openapi/v3").await;
    let address = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("text");
    let (plain, body) = get(address, &[]).await;
    assert_eq!(plain.status, 200);
    assert!(plain.headers["cache-control"].to_str().expect("text").contains("immutable"));
    let etag = plain.headers["etag"].to_str().expect("text").to_owned();
    let (same, _) = get(address, &[("if-none-match", &etag)]).await;
    assert_eq!(same.status, 304);
    let (gzip, short) = get(address, &[("accept-encoding", "gzip")]).await;
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    assert!(short.len() * 4 < body.len());
    // Without the hash the answer may change; with a stale one the client is sent to the new.
    let (bare, _) = get("/openapi/v3/apis/apps/v1", &[]).await;
    assert!(
        !bare.headers.get("cache-control").is_some_and(|v| v.to_str().is_ok_and(|v| v.contains("immutable")))
    );
    let (stale, _) = get("/openapi/v3/apis/apps/v1?hash=0", &[]).await;
    assert_eq!(stale.status, 301);
    assert_eq!(stale.headers["location"], address);
    let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let (proto, bytes) = get("/openapi/v3/apis/apps/v1", &[("accept", protobuf)]).await;
    assert_eq!(proto.headers["content-type"], "application/com.github.proto-openapi.spec.v3.v1.0+protobuf");
    assert!(bytes.starts_with(b"\x0a\x053.0.0"));
}

/// The columns of every resource, as `kubectl get` shows them: name, type, format, and a star for the wide ones.
#[tokio::test]
async fn documents_columns() {
    let server = Server::start().await;
    let mut text = String::new();
    let groups = json(&server, "/apis").await;
    let mut paths = vec!["/api/v1".to_owned()];
    for group in groups["groups"].as_array().expect("groups") {
        for version in group["versions"].as_array().expect("versions") {
            paths.push(format!("/apis/{}", version["groupVersion"].as_str().expect("text")));
        }
    }
    for path in paths {
        let list = json(&server, &path).await;
        for resource in list["resources"].as_array().expect("resources") {
            let name = resource["name"].as_str().expect("a name");
            if !resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|verb| verb == "list")) {
                continue;
            }
            let request = Request::get(format!("{path}/{name}"))
                .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
                .body(Body::empty())
                .expect("a request");
            let (status, table) = server.text(request).await;
            assert_eq!(status, 200, "{path}/{name}: {table}");
            let table: Value = serde_json::from_str(&table).expect("JSON");
            let columns: Vec<String> = table["columnDefinitions"]
                .as_array()
                .expect("columns")
                .iter()
                .map(|column| {
                    let text = |field: &str| column[field].as_str().unwrap_or_default();
                    let wide = if column["priority"] == 0 { "" } else { "*" };
                    assert!(!text("description").is_empty(), "{name}: {column}");
                    match text("format") {
                        "" => format!("{}{wide}:{}", text("name"), text("type")),
                        format => format!("{}{wide}:{}:{format}", text("name"), text("type")),
                    }
                })
                .collect();
            writeln!(text, "{path}/{name}: {}", columns.join(", ")).expect("text");
        }
    }
    golden("columns.txt", &text);
}
