//! A definition as large as those people install, sent as YAML as kubectl sends it.

use http::Request;
use serde_json::{Value, json};

use super::{CRDS, condition, wait};
use crate::support::Server;

const CERTIFICATES: &str = "/apis/pki.example.com/v1/namespaces/default/certificates";

fn certificate(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "pki.example.com/v1",
        "kind": "Certificate",
        "metadata": {"name": name},
        "spec": {"secretName": "tls", "issuerRef": {"name": "ca"}, "dnsNames": ["a.example.com"]},
    });
    change(&mut object["spec"]);
    object
}

/// Holds AM-44, AM-45, AM-46.
#[tokio::test]
async fn a_large_definition_does_what_it_says() {
    let server = Server::start().await;
    let yaml = include_str!("certificates.yaml").to_owned();
    let path = format!("{CRDS}?fieldValidation=Strict");
    let (status, created) = server.send_as("POST", &path, "application/yaml", yaml).await;
    assert_eq!(status, 201, "{created}");
    let one = format!("{CRDS}/certificates.pki.example.com");
    wait(&server, &one, |found| condition(found, "Established") == "True").await;
    let (status, made) = server.send("POST", CERTIFICATES, Some(certificate("a", |_| {}))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        made["spec"]["privateKey"],
        json!({"algorithm": "RSA", "encoding": "PKCS1", "rotationPolicy": "Always"})
    );
    assert_eq!(
        made["spec"]["issuerRef"],
        json!({"name": "ca", "kind": "Issuer", "group": "pki.example.com"})
    );
    assert_eq!((&made["spec"]["isCA"], &made["spec"]["duration"]), (&json!(false), &json!("2160h")));

    type Change = fn(&mut Value);
    let cases: [(Change, &str); 8] = [
        (|spec| spec["secretName"] = json!("No!"), "spec.secretName in body should match"),
        (|spec| spec["issuerRef"] = json!({}), "spec.issuerRef.name: Required value"),
        (|spec| spec["privateKey"] = json!({"size": 1024}), "must validate at least one schema (anyOf)"),
        (
            |spec| spec["usages"] = json!(["signing", "signing"]),
            "spec.usages[1]: Duplicate value: \"signing\"",
        ),
        (
            |spec| spec["acme"] = json!({"email": "nobody"}),
            "spec.acme.email in body must be of type email: \"nobody\"",
        ),
        (
            |spec| spec["acme"] = json!({"solver": {"kind": "S", "apiVersion": "v1"}, "config": {}}),
            "\"spec.acme\" must not validate the schema (not)",
        ),
        (
            |spec| spec["renewBefore"] = json!("9000h"),
            "spec: Invalid value: renewBefore must be shorter than duration",
        ),
        (|spec| spec["dnsNames"] = Value::Null, "spec: Invalid value: a certificate needs a name"),
    ];
    for (change, wanted) in cases {
        let (status, refused) = server.send("POST", CERTIFICATES, Some(certificate("b", change))).await;
        assert_eq!(status, 422, "{refused}");
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains(wanted), "{wanted}\n{message}");
    }
    let rename = json!({"spec": {"secretName": "other"}});
    let (status, refused) = server.send("PATCH", &format!("{CERTIFICATES}/a"), Some(rename)).await;
    assert_eq!(status, 422);
    assert!(refused["message"].as_str().expect("text").contains("secretName is immutable"), "{refused}");

    let (_, document) = server.send("GET", "/openapi/v3/apis/pki.example.com/v1", None).await;
    let schema = &document["components"]["schemas"]["com.example.pki.v1.Certificate"];
    assert_eq!(schema["description"], "A certificate, and the Secret it is kept in.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Certificate");
    let solver = &schema["properties"]["spec"]["properties"]["acme"]["properties"]["solver"];
    assert_eq!(solver["x-kubernetes-preserve-unknown-fields"], true);

    let mut request = Request::get("/apis/pki.example.com/v1alpha1/certificates")
        .body(axum::body::Body::empty())
        .expect("a request");
    request.extensions_mut().insert(server.user.clone());
    let answer = tower::ServiceExt::oneshot(server.router.clone(), request).await.expect("infallible");
    let warning = answer.headers()["warning"].to_str().expect("text");
    assert_eq!(warning, "299 - \"pki.example.com/v1alpha1 Certificate is deprecated; use v1\"");
}
