//! Which state a list or a get shows, and what contradicts itself.

use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Got, MAPS, get, make, names, version};
use crate::support::Server;

/// Two maps, then one more and one less: the revision between, and the server.
async fn moved_on() -> (Server, u64) {
    let server = Server::start().await;
    make(&server, "a", json!({"l": "1"})).await;
    make(&server, "b", json!({"l": "1"})).await;
    let then = version(&get(&server, MAPS).await.body);
    make(&server, "c", json!({})).await;
    assert_eq!(server.send("DELETE", &format!("{MAPS}/a"), None).await.0, 200);
    server.settled().await;
    (server, then)
}

fn refusal(got: &Got) -> (u16, &str, String) {
    let causes = got.body["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let field = |cause: &Value| {
        format!(
            "{}: {}",
            cause["field"].as_str().unwrap_or_default(),
            cause["reason"].as_str().unwrap_or_default()
        )
    };
    let causes: Vec<String> = causes.iter().map(field).collect();
    (got.status.as_u16(), got.body["reason"].as_str().unwrap_or_default(), causes.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_with_each_match_shows_its_state() {
    let (server, then) = moved_on().await;
    let at = format!("resourceVersion={then}");
    let exact = format!("{at}&resourceVersionMatch=Exact");
    let newer = format!("{at}&resourceVersionMatch=NotOlderThan");
    // Query, names, is it the revision asked for, remaining items.
    let cases: [(String, &[&str], bool, Option<u64>); 17] = [
        // What is at hand comes whole.
        ("resourceVersion=0&limit=1&".into(), &["b", "c"], false, None),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=1&".into(), &["b", "c"], false, None),
        (String::new(), &["b", "c"], false, None),
        ("resourceVersion=0".into(), &["b", "c"], false, None),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan".into(), &["b", "c"], false, None),
        (at.clone(), &["b", "c"], false, None),
        (newer.clone(), &["b", "c"], false, None),
        (exact.clone(), &["a", "b"], true, None),
        // The first page of a revision is of that one, match or not.
        (format!("{at}&limit=1"), &["a"], true, Some(1)),
        (format!("{exact}&limit=1"), &["a"], true, Some(1)),
        (format!("{newer}&limit=1"), &["b"], false, Some(1)),
        ("limit=1".into(), &["b"], false, Some(1)),
        ("limit=2".into(), &["b", "c"], false, None),
        ("limit=-1".into(), &["b", "c"], false, None),
        // How many are left is not known under a selector.
        (format!("{exact}&limit=1&labelSelector=l%3D1"), &["a"], true, None),
        (format!("{exact}&limit=1&fieldSelector=metadata.name!%3Da"), &["b"], true, None),
        (format!("{exact}&fieldSelector=metadata.name%3Da"), &["a"], true, None),
    ];
    for (query, wanted, is_then, remaining) in cases {
        let got = get(&server, &format!("{MAPS}?{query}")).await;
        assert_eq!(got.status, 200, "{query}: {}", got.body);
        assert_eq!(names(&got.body), wanted, "{query}");
        let found = version(&got.body);
        assert!(if is_then { found == then } else { found > then }, "{query}: {found}, then {then}");
        assert_eq!(got.body["metadata"]["remainingItemCount"].as_u64(), remaining, "{query}");
        let goes_on = query.contains("limit=1") && !query.contains("!%3D") && !query.contains("ersion=0");
        assert_eq!(got.body["metadata"].get("continue").is_some(), goes_on, "{query}: {}", got.body);
    }
    for query in ["", "?resourceVersion=0", &format!("?{at}")] {
        assert_eq!(get(&server, &format!("{MAPS}/b{query}")).await.status, 200, "{query}");
        assert_eq!(get(&server, &format!("{MAPS}/a{query}")).await.status, 404, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_itself_is_refused_as_upstream_does() {
    let (server, then) = moved_on().await;
    let first = get(&server, &format!("{MAPS}?limit=1")).await;
    let token = first.body["metadata"]["continue"].as_str().expect("a token");
    let forbidden = "resourceVersionMatch: FieldValueForbidden";
    let both = "resourceVersionMatch: FieldValueForbidden, resourceVersionMatch: FieldValueNotSupported";
    let cases = [
        ("resourceVersionMatch=Exact".into(), 422, forbidden),
        ("resourceVersionMatch=NotOlderThan".into(), 422, forbidden),
        ("resourceVersion=0&resourceVersionMatch=Exact".into(), 422, forbidden),
        (
            format!("resourceVersion={then}&resourceVersionMatch=Other"),
            422,
            "resourceVersionMatch: FieldValueNotSupported",
        ),
        ("resourceVersionMatch=Other".into(), 422, both),
        ("sendInitialEvents=true".into(), 422, "sendInitialEvents: FieldValueForbidden"),
        (
            format!("resourceVersion={then}&resourceVersionMatch=Exact&limit=1&continue={token}"),
            422,
            forbidden,
        ),
        (format!("resourceVersion={then}&limit=1&continue={token}"), 400, ""),
        ("limit=1&continue=nonsense".into(), 400, ""),
        ("resourceVersion=x".into(), 400, ""),
        ("resourceVersion=-1".into(), 400, ""),
        ("limit=x".into(), 400, ""),
        // Watches have rules of their own.
        ("watch=1&resourceVersionMatch=NotOlderThan".into(), 422, forbidden),
        ("watch=1&sendInitialEvents=true".into(), 422, forbidden),
        ("watch=1&sendInitialEvents=false".into(), 422, forbidden),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact".into(), 422, both),
        ("watch=1&resourceVersionMatch=Exact".into(), 422, both),
        (
            format!("watch=1&sendInitialEvents=1&resourceVersionMatch=NotOlderThan&continue={token}"),
            422,
            forbidden,
        ),
        ("watch=1&resourceVersion=x".into(), 400, ""),
    ];
    for (query, status, causes) in cases {
        let got = get(&server, &format!("{MAPS}?{query}")).await;
        let reason = if status == 422 { "Invalid" } else { "BadRequest" };
        assert_eq!(refusal(&got), (status, reason, causes.to_owned()), "{query}: {}", got.body);
    }
    let got = get(&server, &format!("{MAPS}?resourceVersionMatch=Exact")).await;
    assert_eq!(
        got.body["message"],
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
         forbidden unless resourceVersion is provided"
    );
    assert_eq!(got.body["details"]["group"], "meta.k8s.io");
    // No contradiction: 0 says nothing.
    let got = get(&server, &format!("{MAPS}?resourceVersion=0&limit=1&continue={token}")).await;
    assert_eq!((got.status.as_u16(), names(&got.body)), (200, vec!["c"]));
    let got = get(&server, &format!("{MAPS}/b?resourceVersion=x")).await;
    assert_eq!(got.status, 400, "{}", got.body);
}

/// They wait for it a little, then tell the client to come again.
#[tokio::test(flavor = "multi_thread")]
async fn the_future_has_not_come() {
    let (server, then) = moved_on().await;
    let future = format!("resourceVersion={}", then + 100_000);
    let paths = [
        format!("{MAPS}?{future}"),
        format!("{MAPS}?{future}&resourceVersionMatch=NotOlderThan"),
        format!("{MAPS}?{future}&resourceVersionMatch=Exact"),
        format!("{MAPS}?{future}&limit=1"),
        format!("{MAPS}/b?{future}"),
    ];
    for got in join_all(paths.iter().map(|path| get(&server, path))).await {
        assert_eq!(
            (got.status.as_u16(), got.body["reason"].as_str()),
            (504, Some("Timeout")),
            "{}",
            got.body
        );
        // What client-go looks for, in this release and in older ones.
        assert_eq!(got.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert!(got.body["message"].as_str().is_some_and(|text| text.contains("Too large resource version")));
        assert_eq!(
            (&got.headers["retry-after"], &got.body["details"]["retryAfterSeconds"]),
            (&"1".parse().expect("a header"), &json!(1))
        );
    }
    // A watch tells it in its stream.
    let path = format!("{MAPS}?watch=1&{future}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let got = get(&server, &path).await;
    assert_eq!((got.status.as_u16(), &got.body["type"]), (200, &json!("ERROR")));
    assert_eq!(got.body["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

/// Holds AM-93.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_expired_and_a_page_goes_on_without_it() {
    let (server, then) = moved_on().await;
    for name in ["d", "e", "f"] {
        make(&server, name, json!({})).await;
    }
    let first = get(&server, &format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first.body), ["b", "c"]);
    assert_eq!(server.send("DELETE", &format!("{MAPS}/d"), None).await.0, 200);
    let now = server.storage.current_revision().await.expect("a revision");
    server.storage.compact(now).await.expect("compacted");
    let fresh = server.another().await;
    for query in ["resourceVersionMatch=Exact", "limit=1", "resourceVersionMatch=Exact&limit=1"] {
        let got = get(&fresh, &format!("{MAPS}?resourceVersion={then}&{query}")).await;
        assert_eq!((got.status.as_u16(), got.body["reason"].as_str()), (410, Some("Expired")), "{query}");
        assert_eq!(got.body["metadata"].get("continue"), None, "there is nothing to go on from: {query}");
    }
    // Not older is no promise of the past.
    let got = get(&fresh, &format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(names(&got.body), ["b", "c", "e", "f"]);

    let token = first.body["metadata"]["continue"].as_str().expect("a token");
    let got = get(&fresh, &format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((got.status.as_u16(), got.body["reason"].as_str()), (410, Some("Expired")), "{}", got.body);
    assert!(got.body["message"].as_str().is_some_and(|text| text.contains("inconsistent list")));
    let token = got.body["metadata"]["continue"].as_str().expect("a token to go on with");
    let rest = get(&fresh, &format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!(
        (names(&rest.body), rest.body["metadata"]["remainingItemCount"].as_u64()),
        (vec!["e"], Some(1))
    );
    assert!(version(&rest.body) >= now, "at the newest");
    // From there on it is a list of one revision again.
    make(&fresh, "z", json!({})).await;
    let token = rest.body["metadata"]["continue"].as_str().expect("a token");
    let last = get(&fresh, &format!("{MAPS}?limit=5&continue={token}")).await;
    assert_eq!((names(&last.body), version(&last.body)), (vec!["f"], version(&rest.body)));

    for accept in ["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"] {
        let path = format!("{MAPS}?watch=1&resourceVersion={then}&timeoutSeconds=30");
        let got = super::get_as(&fresh, &path, accept).await;
        assert_eq!((got.status.as_u16(), &got.body["type"]), (200, &json!("ERROR")), "{accept}");
        let status = &got.body["object"];
        assert_eq!(
            (&status["kind"], &status["code"], &status["reason"]),
            (&json!("Status"), &json!(410), &json!("Expired"))
        );
    }
    let request = http::Request::get(format!("{MAPS}?watch=1&resourceVersion={then}"))
        .header("accept", "application/vnd.kubernetes.protobuf;stream=watch")
        .body(axum::body::Body::empty())
        .expect("a request");
    let bytes = fresh.raw(request).await.into_body().collect().await.expect("a body").to_bytes();
    let (kind, object) = super::shapes::protobuf_frame(&bytes);
    assert_eq!(
        (kind.as_str(), &object["code"], &object["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
}
