//! What objects and lists become: tables, bare metadata; JSON, YAML, protobuf; compressed.

use std::io::Read as _;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_api::resource::GroupVersionKind;
use skep_machinery::codec::{self, FieldValidation};

use super::{MAPS, get, get_as, make, name, names, version};
use crate::support::Server;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// One field of a message: its number and bytes, and what follows.
fn field(bytes: &[u8]) -> (u8, &[u8], &[u8]) {
    assert_eq!(bytes[0] & 7, 2, "length-delimited");
    let (mut length, mut at) = (0, 1);
    loop {
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            break;
        }
    }
    (bytes[0] >> 3, &bytes[at..at + length], &bytes[at + length..])
}

/// A sealed object.
pub(super) fn protobuf(bytes: &[u8]) -> Value {
    codec::decode(PROTOBUF, bytes, None, FieldValidation::Strict).expect("protobuf").object
}

/// The frames of a watch in protobuf: a length, then a `WatchEvent`.
pub(super) fn protobuf_frames(mut bytes: &[u8]) -> Vec<(String, Value)> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (event, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        bytes = rest;
        let (number, kind, event) = field(event);
        assert_eq!(number, 1);
        let (number, raw, _) = field(event);
        assert_eq!(number, 2);
        let (number, sealed, _) = field(raw);
        assert_eq!(number, 1);
        frames.push((String::from_utf8_lossy(kind).into_owned(), protobuf(sealed)));
    }
    frames
}

/// The only frame.
pub(super) fn protobuf_frame(bytes: &[u8]) -> (String, Value) {
    let mut frames = protobuf_frames(bytes);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

async fn raw(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.raw(request.body(Body::empty()).expect("a request")).await
}

async fn bytes(answer: Response<Body>) -> Bytes {
    answer.into_body().collect().await.expect("a body").to_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_lists_come_in_every_shape_and_version() {
    let server = Server::start().await;
    make(&server, "a", json!({"l": "1"})).await;
    make(&server, "b", json!({})).await;
    let one = format!("{MAPS}/a");
    let plain = get(&server, &one).await.body;
    for version_of_meta in ["v1", "v1beta1"] {
        let api_version = format!("meta.k8s.io/{version_of_meta}");
        let accept = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v={version_of_meta}");
        // Bare metadata.
        let got = get_as(&server, &one, &accept("PartialObjectMetadata")).await;
        let wanted = json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": plain["metadata"]});
        assert_eq!((got.status.as_u16(), got.body), (200, wanted.clone()));
        let got =
            get_as(&server, &format!("{MAPS}?limit=1"), &accept("PartialObjectMetadataList")).await.body;
        assert_eq!(
            (&got["kind"], &got["apiVersion"]),
            (&json!("PartialObjectMetadataList"), &json!(api_version))
        );
        assert_eq!(got["items"], json!([wanted]));
        assert_eq!(got["metadata"]["remainingItemCount"], 1);
        assert!(got["metadata"]["continue"].is_string() && version(&got) > 0);
        // Tables, whose rows carry what was asked for.
        for (path, rows) in [(one.as_str(), 1), (MAPS, 2)] {
            for (include, carried) in [
                ("", "PartialObjectMetadata"),
                ("Metadata", "PartialObjectMetadata"),
                ("Object", "ConfigMap"),
                ("None", ""),
            ] {
                let got =
                    get_as(&server, &format!("{path}?includeObject={include}"), &accept("Table")).await.body;
                assert_eq!((&got["kind"], &got["apiVersion"]), (&json!("Table"), &json!(api_version)));
                assert_eq!(got["rows"].as_array().map(Vec::len), Some(rows));
                assert_eq!(got["columnDefinitions"][0]["name"], "Name");
                assert!(version(&got) > 0);
                let row = &got["rows"][0];
                assert_eq!(
                    row["cells"].as_array().map(Vec::len),
                    got["columnDefinitions"].as_array().map(Vec::len)
                );
                assert_eq!(row["cells"][0], "a");
                assert_eq!(row["object"]["kind"].as_str().unwrap_or_default(), carried, "{include}");
                if carried == "PartialObjectMetadata" {
                    assert_eq!(
                        (&row["object"]["apiVersion"], name(&row["object"])),
                        (&json!(api_version), "a")
                    );
                }
            }
        }
        // In protobuf as well.
        let accept =
            format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v={version_of_meta},{PROTOBUF}");
        let answer = raw(&server, MAPS, &[("accept", &accept)]).await;
        assert_eq!(answer.headers()["content-type"], PROTOBUF);
        let list = protobuf(&bytes(answer).await);
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("PartialObjectMetadataList"), &json!(api_version))
        );
        assert_eq!(names(&list), ["a", "b"]);
        assert_eq!(list["items"][0]["metadata"]["labels"], json!({"l": "1"}));
    }
    let got = get_as(
        &server,
        &format!("{MAPS}?includeObject=Most"),
        "application/json;as=Table;g=meta.k8s.io;v=v1",
    )
    .await;
    assert_eq!((got.status.as_u16(), got.body["reason"].as_str()), (400, Some("BadRequest")), "{}", got.body);
    // What is not served is not acceptable, unless the client takes something else as well.
    for unknown in [
        "application/json;as=Table;g=meta.k8s.io;v=v2",
        "application/json;as=Tree;g=meta.k8s.io;v=v1",
        "text/csv",
    ] {
        assert_eq!(get_as(&server, MAPS, unknown).await.status, 406, "{unknown}");
        let got = get_as(&server, MAPS, &format!("{unknown},application/json")).await;
        assert_eq!((got.status.as_u16(), &got.body["kind"]), (200, &json!("ConfigMapList")), "{unknown}");
    }
}

/// A write answers in the form that was asked for, and so do errors.
#[tokio::test(flavor = "multi_thread")]
async fn writes_and_errors_answer_in_the_form_asked_for() {
    let server = Server::start().await;
    let send = async |method: &str, path: &str, accept: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).header("accept", accept).header(
            "content-type",
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
        );
        server.raw(request.body(Body::from(body.to_string())).expect("a request")).await
    };
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1";
    let answer = send("POST", MAPS, table, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(answer.status(), 201);
    let made: Value = serde_json::from_slice(&bytes(answer).await).expect("JSON");
    assert_eq!((&made["kind"], &made["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let answer = send("PATCH", &format!("{MAPS}/a"), metadata, json!({"data": {"k": "v"}})).await;
    let patched: Value = serde_json::from_slice(&bytes(answer).await).expect("JSON");
    assert_eq!(
        (&patched["kind"], &patched["apiVersion"], patched.get("data")),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1beta1"), None)
    );
    let answer = send("PATCH", &format!("{MAPS}/a"), PROTOBUF, json!({"data": {"k": "w"}})).await;
    assert_eq!(protobuf(&bytes(answer).await)["data"]["k"], "w");
    // Nothing is written whose answer could not be.
    let answer =
        send("POST", &format!("{MAPS}?includeObject=Most"), table, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(answer.status(), 400);
    let answer = send("POST", MAPS, "text/csv", json!({"metadata": {"name": "b"}})).await;
    assert_eq!(answer.status(), 406);
    assert_eq!(get(&server, &format!("{MAPS}/b")).await.status, 404);
    let answer = raw(&server, &format!("{MAPS}/b"), &[("accept", PROTOBUF)]).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (404, &PROTOBUF.parse().expect("a header"))
    );
    let status = protobuf(&bytes(answer).await);
    assert_eq!(
        (&status["kind"], &status["reason"], &status["details"]["name"]),
        (&json!("Status"), &json!("NotFound"), &json!("b"))
    );
    for accept in [table, metadata] {
        let got = get_as(&server, &format!("{MAPS}/b"), accept).await;
        assert_eq!(
            (got.status.as_u16(), &got.body["kind"]),
            (404, &json!("Status")),
            "an error has no other shape"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_every_form_are_compressed_and_streams_are_not() {
    let server = Server::start().await;
    let map = json!({"metadata": {"name": "large", "annotations": {"text": "x".repeat(200_000)}}});
    assert_eq!(server.send("POST", MAPS, Some(map)).await.0, 201);
    let yaml = "application/yaml";
    for accept in [
        "application/json",
        PROTOBUF,
        yaml,
        "application/json;as=Table;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    ] {
        for path in [MAPS, "/api/v1/namespaces/default/configmaps/large"] {
            if path != MAPS && accept.contains("List") {
                continue;
            }
            let plain = bytes(raw(&server, path, &[("accept", accept)]).await).await;
            for takes in ["gzip", "deflate, gzip;q=0.5", "br,gzip"] {
                let answer = raw(&server, path, &[("accept", accept), ("accept-encoding", takes)]).await;
                assert_eq!(answer.headers()["content-encoding"], "gzip", "{accept}: {takes}");
                assert_eq!(answer.headers()["vary"], "Accept-Encoding");
                let packed = bytes(answer).await;
                let mut text = Vec::new();
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).expect("gzip");
                // Rows tell an age.
                assert!(
                    text == plain || accept.contains("Table") && text.len().abs_diff(plain.len()) < 8,
                    "{accept}"
                );
            }
            for takes in ["identity", "gzip;q=0", "gzip; q=0.0"] {
                let answer = raw(&server, path, &[("accept", accept), ("accept-encoding", takes)]).await;
                assert_eq!(answer.headers().get("content-encoding"), None, "{accept}: {takes}");
            }
        }
    }
    let watch = format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1");
    let answer = raw(&server, &watch, &[("accept-encoding", "gzip")]).await;
    assert_eq!(answer.headers().get("content-encoding"), None);
    let small = raw(&server, "/api/v1/namespaces/default/secrets", &[("accept-encoding", "gzip")]).await;
    assert_eq!(small.headers().get("content-encoding"), None);
}

/// All built-in kinds are listed in protobuf as in JSON.
#[tokio::test(flavor = "multi_thread")]
async fn protobuf_says_what_json_says() {
    let server = Server::start().await;
    let cluster = server.cluster();
    skep_apiserver::bootstrap::bootstrap(server.api.registry(), &cluster).await.expect("bootstrapped");
    server.settled().await;
    for (path, kind) in [
        ("/api/v1/namespaces", GroupVersionKind::new("", "v1", "NamespaceList")),
        ("/api/v1/services", GroupVersionKind::new("", "v1", "ServiceList")),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            GroupVersionKind::new("rbac.authorization.k8s.io", "v1", "ClusterRoleList"),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            GroupVersionKind::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBindingList"),
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            GroupVersionKind::new("scheduling.k8s.io", "v1", "PriorityClassList"),
        ),
    ] {
        let json = get(&server, path).await.body;
        let answer = raw(&server, path, &[("accept", PROTOBUF)]).await;
        let decoded = codec::decode(PROTOBUF, &bytes(answer).await, Some(&kind), FieldValidation::Strict)
            .expect("protobuf")
            .object;
        let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
        assert!(!items(&json).is_empty(), "{path}");
        for (a, b) in items(&json).iter().zip(items(&decoded)) {
            assert_eq!(
                (&a["metadata"], &a["spec"], &a["rules"], &a["value"]),
                (&b["metadata"], &b["spec"], &b["rules"], &b["value"]),
                "{path}"
            );
        }
        assert_eq!(items(&json).len(), items(&decoded).len(), "{path}");
    }
}
