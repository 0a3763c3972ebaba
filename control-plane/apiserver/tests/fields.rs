//! Unknown and repeated fields in every form a write may have.

use serde_json::json;

use crate::support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

const TWICE: &str = r#"{"metadata":{"name":"d"},"spec":{"replicas":1,"replicas":2,"selector":{"matchLabels":{"a":"b"}},
    "template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","image":"j","imagee":"k"}]}}}}"#;
const YAML: &str = "metadata:\n  name: y\n  name: y\ndata:\n  a: '1'\nunknown: 1\n";

/// Holds AM-55, AM-57.
#[tokio::test]
async fn strict_writes_name_every_slip() {
    let server = Server::start().await;
    let post = async |path: String, content: &str, body: &str| {
        let (status, answer) = server.send_as("POST", &path, content, body.to_owned()).await;
        (status.as_u16(), answer["message"].as_str().unwrap_or_default().to_owned())
    };
    let json_type = "application/json";
    let (status, message) = post(format!("{DEPLOYMENTS}?fieldValidation=Strict"), json_type, TWICE).await;
    assert_eq!(status, 400, "{message}");
    for slip in [
        "duplicate field \"spec.replicas\"",
        "duplicate field \"spec.template.spec.containers[0].image\"",
        "unknown field \"spec.template.spec.containers[0].imagee\"",
    ] {
        assert!(message.contains(slip), "{slip} in {message}");
    }
    let (status, message) = post(format!("{MAPS}?fieldValidation=Strict"), "application/yaml", YAML).await;
    assert_eq!(status, 400, "{message}");
    assert!(message.contains("\"name\" already set in map") || message.contains("duplicate"), "{message}");
    let unknown = json!({"metadata": {"name": "m", "unknownMeta": 1}, "data": {}}).to_string();
    let (status, message) = post(format!("{MAPS}?fieldValidation=Strict"), json_type, &unknown).await;
    assert_eq!(status, 400);
    assert!(message.contains("unknown field \"metadata.unknownMeta\""), "{message}");
    assert_eq!(post(format!("{MAPS}?fieldValidation=Ignore"), json_type, &unknown).await.0, 201);
    assert_eq!(post(format!("{MAPS}?fieldValidation=Maybe"), json_type, &unknown).await.0, 422);
}

/// Patches and applies are as strict as writes of whole objects.
///
/// Holds AM-55.
#[tokio::test]
async fn patches_and_applies_are_checked_too() {
    let server = Server::start().await;
    let (status, _) =
        server.send("POST", MAPS, Some(json!({"metadata": {"name": "m"}, "data": {"a": "1"}}))).await;
    assert_eq!(status, 201);
    let send = async |content: &str, query: &str, body: &str| {
        let path = format!("{MAPS}/m?fieldManager=t&{query}");
        let (status, answer) = server.send_as("PATCH", &path, content, body.to_owned()).await;
        (status.as_u16(), answer)
    };
    let merge = "application/merge-patch+json";
    let strategic = "application/strategic-merge-patch+json";
    let apply = "application/apply-patch+yaml";
    let strict = "fieldValidation=Strict";
    for content in [merge, strategic] {
        let (status, answer) = send(content, strict, r#"{"dataa":{"b":"2"}}"#).await;
        assert!([400, 422].contains(&status), "{content}: {answer}");
        assert!(
            answer["message"].as_str().is_some_and(|text| text.contains("unknown field \"dataa\"")),
            "{answer}"
        );
        let (status, answer) = send(content, strict, r#"{"data":{"b":"2","b":"3"}}"#).await;
        assert!([400, 422].contains(&status), "{content}: {answer}");
        assert!(
            answer["message"].as_str().is_some_and(|text| text.contains("duplicate field \"data.b\"")),
            "{answer}"
        );
        assert_eq!(send(content, "fieldValidation=Ignore", r#"{"dataa":{"b":"2"}}"#).await.0, 200);
    }
    let object =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"z":"1"},"dataa":{}}"#;
    let (status, answer) = send(apply, strict, object).await;
    assert!([400, 422, 500].contains(&status), "{answer}");
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  z: '1'\n  z: '2'\n";
    let (status, answer) = send(apply, strict, twice).await;
    assert_eq!(status, 400, "{answer}");
}
