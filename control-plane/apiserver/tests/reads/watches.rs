//! How watches begin and end, and what they say between.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{MAPS, PATIENCE, get, make, name, version};
use crate::support::Server;

/// An open watch of JSON frames.
struct Frames {
    body: Body,
    read: Vec<u8>,
}

impl Frames {
    async fn open(server: &Server, query: &str) -> Self {
        let request = Request::get(format!("{MAPS}?watch=1&{query}")).body(Body::empty()).expect("a request");
        let answer = server.raw(request).await;
        assert_eq!(answer.status(), 200, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/json");
        Self { body: answer.into_body(), read: Vec::new() }
    }

    /// The next frame, or the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a frame"));
            }
            let more = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("something in time");
            match more {
                Some(frame) => {
                    if let Ok(data) = frame.expect("no error").into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                None => {
                    assert!(self.read.is_empty(), "half a frame");
                    return None;
                }
            }
        }
    }

    /// Frames until the end: their types and names.
    async fn rest(&mut self) -> Vec<(String, String)> {
        let mut rest = Vec::new();
        while let Some(frame) = self.next().await {
            rest.push(said(&frame));
        }
        rest
    }
}

fn said(frame: &Value) -> (String, String) {
    (frame["type"].as_str().unwrap_or_default().to_owned(), name(&frame["object"]).to_owned())
}

fn ends_initial(frame: &Value) -> bool {
    frame["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
}

/// The empty list that the end of the initial events brings.
fn blueprint(object: &Value) -> Vec<u8> {
    use base64::Engine as _;
    let text = &object["metadata"]["annotations"]["kubernetes.io/initial-events-list-blueprint"];
    let text = text.as_str().unwrap_or_else(|| panic!("no list in {object}"));
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_events_come_as_asked_for() {
    let server = Server::start().await;
    make(&server, "a", json!({"l": "1"})).await;
    let then = make(&server, "b", json!({})).await;
    make(&server, "c", json!({"l": "1"})).await;
    let marked = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let unmarked = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let without = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    // Query, the objects it begins with, does a bookmark end them.
    let all: &[&str] = &["a", "b", "c"];
    let cases: [(String, &[&str], bool); 14] = [
        (marked.into(), all, true),
        (format!("{marked}&resourceVersion=0"), all, true),
        // No older than that, so all of it.
        (format!("{marked}&resourceVersion={then}"), all, true),
        (format!("{marked}&labelSelector=l%3D1"), &["a", "c"], true),
        (format!("{marked}&fieldSelector=metadata.name%3Db"), &["b"], true),
        (format!("{marked}&fieldSelector=metadata.name%3Dnone"), &[], true),
        (unmarked.into(), all, false),
        (format!("{unmarked}&resourceVersion={then}"), all, false),
        (without.into(), &[], false),
        (format!("{without}&allowWatchBookmarks=true"), &[], false),
        (format!("{without}&resourceVersion={then}"), &["c"], false),
        // The old ways.
        (String::new(), all, false),
        ("resourceVersion=0".into(), all, false),
        (format!("resourceVersion={then}"), &["c"], false),
    ];
    for (number, (query, wanted, marks)) in cases.into_iter().enumerate() {
        server.settled().await;
        let mut watch = Frames::open(&server, &query).await;
        let late =
            if query.contains("metadata.name%3Db") { "b".to_owned() } else { format!("late-{number}") };
        if late == "b" {
            server.send("PATCH", &format!("{MAPS}/b"), Some(json!({"data": {"n": "1"}}))).await;
        } else if !query.contains("none") {
            make(&server, &late, json!({"l": "1"})).await;
        }
        for wanted in wanted {
            let frame = watch.next().await.expect("an object");
            assert_eq!(said(&frame), ("ADDED".to_owned(), (*wanted).to_owned()), "{query}");
        }
        if marks {
            let frame = watch.next().await.expect("a bookmark");
            assert_eq!(frame["type"], "BOOKMARK", "{query}: {frame}");
            assert!(ends_initial(&frame), "{query}: {frame}");
            let list: Value = serde_json::from_slice(&blueprint(&frame["object"])).expect("JSON");
            assert_eq!(
                list,
                json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": []})
            );

            assert_eq!(
                (&frame["object"]["kind"], &frame["object"]["apiVersion"]),
                (&json!("ConfigMap"), &json!("v1"))
            );
            assert!(version(&frame["object"]) >= then, "{frame}");
            assert_eq!(frame["object"].get("data"), None, "{frame}");
        }
        if !query.contains("none") {
            // From an old version on, what earlier rounds have done comes first.
            let frame = loop {
                let frame = watch.next().await.expect("what came later");
                if !query.contains("resourceVersion=") || name(&frame["object"]) == late {
                    break frame;
                }
            };
            assert_eq!(name(&frame["object"]), late, "{query}: {frame}");
        }
        if late != "b" {
            server.send("DELETE", &format!("{MAPS}/{late}"), None).await;
        }
    }
}

/// Shortly before its end a watch tells how far it is, for the next one to begin there.
#[tokio::test(flavor = "multi_thread")]
async fn a_bookmark_comes_before_the_end() {
    let server = Server::start().await;
    let then = make(&server, "a", json!({})).await;
    let from = format!("resourceVersion={then}&timeoutSeconds=3");
    let mut marked = Frames::open(&server, &format!("{from}&allowWatchBookmarks=true")).await;
    let mut unmarked = Frames::open(&server, &from).await;
    // Something that it does not show.
    let secrets = "/api/v1/namespaces/default/secrets";
    let (_, made) = server.send("POST", secrets, Some(json!({"metadata": {"name": "s"}}))).await;
    let frame = marked.next().await.expect("a bookmark");
    assert_eq!((&frame["type"], &frame["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert!(!ends_initial(&frame), "{frame}");
    assert!(version(&frame["object"]) >= version(&made), "it covers all kinds: {frame}");
    assert_eq!(marked.rest().await, []);
    assert_eq!(unmarked.rest().await, []);
    // Where it said, another one begins.
    let from = version(&frame["object"]);
    make(&server, "b", json!({})).await;
    let mut next = Frames::open(&server, &format!("resourceVersion={from}&timeoutSeconds=1")).await;
    assert_eq!(next.rest().await, [("ADDED".to_owned(), "b".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_at_its_timeout() {
    let server = Server::start().await;
    make(&server, "a", json!({})).await;
    make(&server, "b", json!({})).await;
    for (path, seen) in [
        (format!("{MAPS}?watch=true&resourceVersion=0&timeoutSeconds=1"), 2),
        // Older ways to say it.
        ("/api/v1/watch/namespaces/default/configmaps?resourceVersion=0&timeoutSeconds=1".to_owned(), 2),
        ("/api/v1/watch/configmaps?resourceVersion=0&timeoutSeconds=1".to_owned(), 2),
        ("/api/v1/watch/namespaces/default/configmaps/b?resourceVersion=0&timeoutSeconds=1".to_owned(), 1),
    ] {
        let begun = Instant::now();
        let request = Request::get(&path).body(Body::empty()).expect("a request");
        let answer = server.raw(request).await;
        assert_eq!(answer.status(), 200, "{path}");
        let bytes = answer.into_body().collect().await.expect("a good end").to_bytes();
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1) && took < PATIENCE, "{path}: {took:?}");
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), seen, "{path}");
    }
    let wrong = get(&server, &format!("{MAPS}?watch=1&timeoutSeconds=x")).await;
    assert_eq!(wrong.status, 400);
    let other = "/api/v1/watch/namespaces/default/configmaps/b?fieldSelector=metadata.name%3Da";
    assert_eq!(get(&server, other).await.status, 400, "two names");
}

/// Every watcher gets frames of its own form; the object is the same.
#[tokio::test(flavor = "multi_thread")]
async fn one_change_is_told_in_all_forms() {
    let server = Server::start().await;
    make(&server, "a", json!({})).await;
    let open = async |accept: &str| {
        let path = format!("{MAPS}?watch=1&resourceVersion=0&allowWatchBookmarks=true&timeoutSeconds=3");
        let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
        server.raw(request).await
    };
    let metadata =
        |version: &str| format!("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v={version}");
    let table = |version: &str| format!("application/json;as=Table;g=meta.k8s.io;v={version}");
    let proto = "application/vnd.kubernetes.protobuf";
    let forms = [
        ("application/json".to_owned(), "ConfigMap", "v1"),
        (metadata("v1"), "PartialObjectMetadata", "meta.k8s.io/v1"),
        (metadata("v1beta1"), "PartialObjectMetadata", "meta.k8s.io/v1beta1"),
        (table("v1"), "Table", "meta.k8s.io/v1"),
        (table("v1beta1"), "Table", "meta.k8s.io/v1beta1"),
        (format!("{proto};stream=watch,{proto}"), "ConfigMap", "v1"),
        (
            format!("{proto};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{proto}"),
            "PartialObjectMetadata",
            "meta.k8s.io/v1",
        ),
    ];
    let mut open_ones = Vec::new();
    for (accept, kind, api_version) in &forms {
        open_ones.push((accept, open(accept).await, kind, api_version));
    }
    make(&server, "b", json!({})).await;
    for (accept, answer, kind, api_version) in open_ones {
        let content_type = answer.headers()["content-type"].to_str().expect("text").to_owned();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        let frames: Vec<(String, Value)> = if accept.starts_with(proto) {
            assert_eq!(content_type, "application/vnd.kubernetes.protobuf;stream=watch", "{accept}");
            super::shapes::protobuf_frames(&bytes)
        } else {
            assert_eq!(content_type, "application/json", "{accept}");
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let frame = |line| {
                let frame: Value = serde_json::from_slice(line).expect("JSON");
                (frame["type"].as_str().expect("a type").to_owned(), frame["object"].clone())
            };
            lines.map(frame).collect()
        };
        let types: Vec<&str> = frames.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(types, ["ADDED", "ADDED", "BOOKMARK"], "{accept}");
        for (index, (_, object)) in frames.iter().enumerate() {
            assert_eq!(
                (object["kind"].as_str(), object["apiVersion"].as_str()),
                (Some(*kind), Some(*api_version)),
                "{accept}"
            );
            assert!(version(object) > 0, "{accept}: {object}");
            match *kind {
                "Table" => {
                    let headed =
                        object["columnDefinitions"].as_array().is_some_and(|columns| !columns.is_empty());
                    assert_eq!(headed, index == 0, "the columns are told once: {object}");
                    let row = &object["rows"][0]["object"];
                    assert_eq!(
                        (&row["kind"], &row["apiVersion"]),
                        (&json!("PartialObjectMetadata"), &json!(api_version))
                    );
                }
                "PartialObjectMetadata" => assert_eq!(object.get("data"), None, "{object}"),
                _ => {}
            }
        }
        let names: Vec<&str> = frames[..2]
            .iter()
            .map(|(_, object)| {
                if *kind == "Table" {
                    object["rows"][0]["cells"][0].as_str().unwrap_or_default()
                } else {
                    name(object)
                }
            })
            .collect();
        assert_eq!(names, ["a", "b"], "{accept}");
    }
}

/// The end of the initial events brings an empty list in the watch's own form.
#[tokio::test(flavor = "multi_thread")]
async fn initial_events_end_with_an_empty_list_of_the_form() {
    let server = Server::start().await;
    let proto = "application/vnd.kubernetes.protobuf";
    for (accept, kind) in [
        ("application/json;as=Table;g=meta.k8s.io;v=v1".to_owned(), "Table"),
        (
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1".to_owned(),
            "PartialObjectMetadataList",
        ),
        (proto.to_owned(), "ConfigMapList"),
        (format!("{proto};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), "PartialObjectMetadataList"),
        // There is no table in protobuf: the next best is taken.
        (format!("{proto};as=Table;g=meta.k8s.io;v=v1,{proto}"), "ConfigMapList"),
    ] {
        let path = format!(
            "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true\
             &timeoutSeconds=1"
        );
        let request = Request::get(path).header("accept", &accept).body(Body::empty()).expect("a request");
        let bytes = server.raw(request).await.into_body().collect().await.expect("a body").to_bytes();
        let (object, list) = if accept.starts_with(proto) {
            let (event, object) = super::shapes::protobuf_frame(&bytes);
            assert_eq!(event, "BOOKMARK");
            let list = super::shapes::protobuf(&blueprint(&object));
            (object, list)
        } else {
            let frame: Value = serde_json::from_slice(&bytes).expect("one frame");
            let object =
                if kind == "Table" { &frame["object"]["rows"][0]["object"] } else { &frame["object"] }
                    .clone();
            let list = serde_json::from_slice(&blueprint(&object)).expect("JSON");
            (object, list)
        };
        assert_eq!(list["kind"], kind, "{accept}: {object}");
    }
    let only = format!("{proto};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(super::get_as(&server, MAPS, &only).await.status, 406);
}
