//! Validating webhooks, and what both kinds share: failures, time, selectors, exemptions.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Instant;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use serde_json::{Value, json};

use super::hook::Hook;
use super::{GROUP, MAPS, map, mutating, rule, start, validating, webhook, with};

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}

/// Holds AM-04.
#[tokio::test(flavor = "multi_thread")]
async fn ten_configurations_deny_until_they_are_removed() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    for at in 0..10 {
        let maps = rule(&["CREATE"], "", "configmaps");
        validating(&server, &format!("c{at}"), &[webhook(&hook, "/deny", &maps)]).await;
    }
    let (status, answer) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!(status, 403, "{answer}");
    assert_eq!(message(&answer), r#"admission webhook "deny.example.com" denied the request: not here"#);
    let all = format!("{GROUP}/validatingwebhookconfigurations?labelSelector=set%3Dx");
    let (status, _) = server.send("DELETE", &all, None).await;
    assert_eq!(status, 200);
    server.settled().await;
    let (status, answer) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!(status, 201, "{answer}");
}

/// Holds AM-06.
#[tokio::test(flavor = "multi_thread")]
async fn rules_may_change() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let path = format!("{GROUP}/validatingwebhookconfigurations/c");
    validating(&server, "c", &[webhook(&hook, "/mute", &rule(&["CREATE"], "", "configmaps"))]).await;
    let (status, answer) = server.send("POST", MAPS, Some(map("a"))).await;
    assert_eq!(status, 400);
    assert_eq!(
        message(&answer),
        r#"admission webhook "mute.example.com" denied the request without explanation"#
    );
    for (operation, status) in [("UPDATE", 201), ("CREATE", 400)] {
        let patch =
            json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": operation}]);
        let (done, answer) =
            server.send_as("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
        assert_eq!(done, 200, "{answer}");
        server.settled().await;
        let (got, answer) = server.send("POST", MAPS, Some(map(operation.to_lowercase().as_str()))).await;
        assert_eq!(got.as_u16(), status, "{operation}: {answer}");
    }
}

/// Holds AM-11.
#[tokio::test(flavor = "multi_thread")]
async fn create_update_patch_and_delete_are_judged_and_a_namespace_may_be_exempt() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let selector = json!({"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["other"]}]});
    let maps = rule(&["CREATE", "UPDATE", "DELETE"], "", "configmaps");
    let guard = with(webhook(&hook, "/guard", &maps), "namespaceSelector", selector.clone());
    let pods = rule(&["CREATE"], "", "pods");
    let hanging = with(webhook(&hook, "/sleep60", &pods), "timeoutSeconds", json!(1));
    validating(&server, "c", &[guard, with(hanging, "namespaceSelector", selector)]).await;
    let bad = json!({"metadata": {"name": "m"}, "data": {"bad": "yes"}});
    let refused =
        r#"admission webhook "guard.example.com" denied the request: the map contains unwanted data"#;
    let (status, answer) = server.send("POST", MAPS, Some(bad.clone())).await;
    assert_eq!((status.as_u16(), message(&answer)), (400, refused));
    let (status, answer) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!(status, 201, "{answer}");
    let one = format!("{MAPS}/m");
    let (status, answer) = server.send("PUT", &one, Some(bad.clone())).await;
    assert_eq!((status.as_u16(), message(&answer)), (400, refused));
    let (status, answer) = server.send("PATCH", &one, Some(json!({"data": {"bad": "yes"}}))).await;
    assert_eq!((status.as_u16(), message(&answer)), (400, refused));
    let update = hook.requests("/guard").into_iter().find(|request| request["operation"] == "UPDATE");
    let update = update.expect("an update was asked about");
    assert_eq!(update["oldObject"]["data"], json!({"start": "yes"}));
    let (status, answer) = server.send("POST", "/api/v1/namespaces/other/configmaps", Some(bad)).await;
    assert_eq!(status, 201, "{answer}");

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (status, answer) = server.send("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(status, 500, "{answer}");
    let want = format!(
        "Internal error occurred: failed calling webhook \"sleep60.example.com\": failed to call webhook: \
         Post \"https://127.0.0.1:{}/sleep60?timeout=1s\": context deadline exceeded",
        hook.port
    );
    assert_eq!(message(&answer), want);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_show_the_old_object_one_by_one() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    for name in ["a", "b"] {
        let mut map = map(name);
        map["data"]["bad"] = json!("yes");
        server.send("POST", MAPS, Some(map)).await;
    }
    validating(&server, "c", &[webhook(&hook, "/guard", &rule(&["DELETE"], "", "configmaps"))]).await;
    let (status, answer) = server.send("DELETE", &format!("{MAPS}/a?gracePeriodSeconds=3"), None).await;
    assert_eq!(status, 400, "{answer}");
    let request = &hook.requests("/guard")[0];
    assert_eq!(request["object"], Value::Null);
    assert_eq!(request["oldObject"]["metadata"]["name"], "a");
    assert_eq!(request["options"]["gracePeriodSeconds"], 3);
    let (status, answer) = server.send("DELETE", MAPS, None).await;
    assert_eq!(status, 400, "{answer}");
    let (_, list) = server.send("GET", MAPS, None).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
}

/// Holds AM-13.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_webhook_is_given_its_time_and_no_more() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    let cases = [
        ("one-fail", json!(1), "Fail", 500),
        ("one-ignore", json!(1), "Ignore", 201),
        ("ten", json!(10), "Fail", 201),
        ("default", Value::Null, "Fail", 201),
    ];
    for (name, seconds, policy, status) in cases {
        let slow = with(webhook(&hook, "/sleep2", &maps), "timeoutSeconds", seconds);
        validating(&server, name, &[with(slow, "failurePolicy", json!(policy))]).await;
        let start = Instant::now();
        let (got, answer) = server.send("POST", MAPS, Some(map(name))).await;
        assert_eq!(got.as_u16(), status, "{name}: {answer}");
        assert!(start.elapsed().as_secs() < 8, "{name}");
        if status == 500 {
            assert!(message(&answer).ends_with("context deadline exceeded"), "{answer}");
        }
        server.send("DELETE", &format!("{GROUP}/validatingwebhookconfigurations/{name}"), None).await;
        server.settled().await;
    }
}

/// Holds AM-24.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_trusted_fails_closed() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let other = Hook::start(&[]).await;
    let maps = rule(&["CREATE"], "", "configmaps");
    let unknown = "x509: certificate signed by unknown authority";
    let cases = [
        (None, unknown),
        (Some(other.ca.clone()), unknown),
        (Some(STANDARD.encode("no PEM")), "unable to parse bytes as PEM block"),
    ];
    for (at, (bundle, text)) in cases.into_iter().enumerate() {
        let mut webhook = webhook(&hook, "/allow", &maps);
        let config = webhook["clientConfig"].as_object_mut().expect("a map");
        match bundle {
            Some(bundle) => config.insert("caBundle".to_owned(), json!(bundle)),
            None => config.remove("caBundle"),
        };
        let name = format!("c{at}");
        validating(&server, &name, &[webhook]).await;
        let (status, answer) = server.send("POST", MAPS, Some(map("m"))).await;
        assert_eq!((status.as_u16(), answer["reason"].as_str()), (500, Some("InternalError")), "{answer}");
        assert!(message(&answer).contains(text), "{answer}");
        server.send("DELETE", &format!("{GROUP}/validatingwebhookconfigurations/{name}"), None).await;
        server.settled().await;
    }
    assert!(hook.requests("/allow").is_empty());
}

/// Holds AM-14, AM-21.
#[tokio::test(flavor = "multi_thread")]
async fn configurations_are_never_judged() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let (_, group) = server.send("GET", GROUP, None).await;
    let kinds: Vec<&str> =
        group["resources"].as_array().into_iter().flatten().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"MutatingWebhookConfiguration"), "{kinds:?}");
    assert!(kinds.contains(&"ValidatingWebhookConfiguration"), "{kinds:?}");
    let all = rule(&["*"], "*", "*/*");
    validating(&server, "deny", &[webhook(&hook, "/deny", &all)]).await;
    mutating(&server, "mutate", &[webhook(&hook, "/status", &all)]).await;
    for (plural, name) in
        [("validatingwebhookconfigurations", "deny"), ("mutatingwebhookconfigurations", "mutate")]
    {
        let path = format!("{GROUP}/{plural}/{name}");
        let (status, answer) =
            server.send("PATCH", &path, Some(json!({"metadata": {"labels": {"a": "b"}}}))).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer.get("status"), None);
        let (status, answer) = server.send("DELETE", &path, None).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert!(hook.requests("/").is_empty());
}

/// Holds AM-12.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_of_resources_can_be_denied() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let rule = rule(&["CREATE"], "apiextensions.k8s.io", "*");
    validating(&server, "c", &[webhook(&hook, "/deny", &rule)]).await;
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, answer) = server.send("POST", path, Some(definition)).await;
    assert_eq!(status, 403, "{answer}");
    assert!(message(&answer).contains("denied"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_and_strange_answers() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    validating(&server, "c", &[webhook(&hook, "/warn", &maps)]).await;
    let request = Request::post(MAPS)
        .header("content-type", "application/json")
        .body(Body::from(map("m").to_string()))
        .expect("a request");
    let answer = server.raw(request).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["warning"], r#"299 - "be careful""#);
    validating(&server, "d", &[webhook(&hook, "/stranger", &maps)]).await;
    let (status, answer) = server.send("POST", MAPS, Some(map("n"))).await;
    assert_eq!(status, 500);
    assert!(
        message(&answer).contains("received invalid webhook response: expected response.uid="),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_only_for_those_without_side_effects() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    validating(&server, "c", &[webhook(&hook, "/allow", &maps)]).await;
    let (status, answer) = server.send("POST", &format!("{MAPS}?dryRun=All"), Some(map("m"))).await;
    assert_eq!(status, 201, "{answer}");
    let request = &hook.requests("/allow")[0];
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_to_its_ready_endpoint() {
    // The API takes no loopback address for an endpoint.
    let Some(address) = own_address() else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let (server, hook) = (start().await, Hook::start(&["hook.default.svc"]).await);
    let mut webhook = webhook(&hook, "/deny", &rule(&["CREATE"], "", "configmaps"));
    let service = json!({"namespace": "default", "name": "hook", "path": "/deny", "port": 8443});
    webhook["clientConfig"] = json!({"service": service, "caBundle": hook.ca});
    validating(&server, "c", &[webhook]).await;
    let fails = async |text: &str| {
        let (status, answer) = server.send("POST", MAPS, Some(map("m"))).await;
        assert!(message(&answer).contains(text), "{status} {answer}");
    };
    fails(r#"Post "https://hook.default.svc:8443/deny?timeout=10s": service "hook" not found"#).await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "web", "port": 8443}]}});
    let (status, answer) = server.send("POST", "/api/v1/namespaces/default/services", Some(service)).await;
    assert_eq!(status, 201, "{answer}");
    server.settled().await;
    fails(r#"no endpoints available for service "hook""#).await;
    let slice = json!({
        "metadata": {"name": "hook", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "web", "port": hook.port}],
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let (status, answer) = server.send("POST", path, Some(slice)).await;
    assert_eq!(status, 201, "{answer}");
    server.settled().await;
    fails("denied the request: not here").await;
}

/// The address this machine would send from; nothing is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}
