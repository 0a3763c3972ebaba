//! Certificate requests over HTTP: whose they are, and who may approve and sign them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::{Secure, message};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

pub(super) fn request(name: &str, organization: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    STANDARD.encode(params.serialize_request(&key).expect("a request").pem().expect("PEM"))
}

fn object(name: &str, signer: &str, request: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": signer, "usages": ["digital signature", "client auth"],
                 "username": "somebody-else", "groups": ["system:masters"]},
        "status": {"conditions": [{"type": "Approved", "status": "True"}]},
    })
}

/// Holds AU-01.
#[tokio::test]
async fn requests_live_and_their_subresources_are_guarded() {
    let server = Secure::start().await;
    let csr = "certificates.k8s.io";
    server
        .grant(
            "jane",
            json!([{"verbs": ["*"], "apiGroups": [csr],
                    "resources": ["certificatesigningrequests", "certificatesigningrequests/approval",
                                  "certificatesigningrequests/status"]}]),
        )
        .await;
    let client = "kubernetes.io/kube-apiserver-client";
    let (status, made) =
        server.send("jane", "POST", REQUESTS, Some(object("a", client, &request("jane", "dev")))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["username"], "jane", "the server says who asks");
    assert_eq!(made["spec"]["groups"], json!(["dev", "system:authenticated"]));
    assert!(made["status"]["conditions"].is_null(), "nobody approves by asking");

    let masters = object("m", client, &request("jane", "system:masters"));
    let (status, answer) = server.send("jane", "POST", REQUESTS, Some(masters)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(message(&answer).contains("with system:masters group is not allowed"), "{answer}");
    let (status, answer) =
        server.send("jane", "POST", REQUESTS, Some(object("b", client, &STANDARD.encode("nonsense")))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&answer).contains("PEM block type must be CERTIFICATE REQUEST"), "{answer}");

    let mut approved = made.clone();
    approved["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Test", "message": "yes"}]);
    let approval = format!("{REQUESTS}/a/approval");
    let (status, answer) = server.send("jane", "PUT", &approval, Some(approved.clone())).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let why = "user not permitted to approve requests with signerName \
               \"kubernetes.io/kube-apiserver-client\"";
    assert!(message(&answer).contains(why), "{answer}");
    server
        .grant(
            "joe",
            json!([
                {"verbs": ["*"], "apiGroups": [csr], "resources": ["certificatesigningrequests",
                 "certificatesigningrequests/approval", "certificatesigningrequests/status"]},
                {"verbs": ["approve", "sign"], "apiGroups": [csr], "resources": ["signers"],
                 "resourceNames": ["kubernetes.io/*"]},
            ]),
        )
        .await;
    let (status, answer) = server.send("joe", "PUT", &approval, Some(approved)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["status"]["conditions"][0]["type"], "Approved");
    let certificate = STANDARD.encode(&server.pki.issue_client("jane", &["dev"]).expect("issued").cert_pem);
    let signed = json!({"status": {"certificate": certificate}});
    let path = format!("{REQUESTS}/a/status");
    let (status, _) = server.send("jane", "PATCH", &path, Some(signed.clone())).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "who may approve may not sign");
    let (status, answer) = server.send("joe", "PATCH", &path, Some(signed)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    for path in [approval, path] {
        let (status, answer) = server.send("joe", "GET", &path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(answer["status"]["certificate"], certificate.as_str(), "{path}");
    }
    let (status, list) = server.send("joe", "GET", REQUESTS, None).await;
    assert_eq!((status, list["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let (status, _) = server.send("joe", "DELETE", &format!("{REQUESTS}/a"), None).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_node_asks_for_certificates_of_its_own_name() {
    let server = Secure::start().await;
    for (signer, name, allowed) in [
        ("kubernetes.io/kubelet-serving", "system:node:one", true),
        ("kubernetes.io/kubelet-serving", "system:node:two", false),
        ("kubernetes.io/kube-apiserver-client-kubelet", "system:node:two", false),
        ("kubernetes.io/kube-apiserver-client", "system:node:two", true),
    ] {
        let mut asked = object("", signer, &request(name, "system:nodes"));
        asked["metadata"] = json!({"generateName": "csr-"});
        let (status, answer) = server.send("node", "POST", REQUESTS, Some(asked)).await;
        assert_eq!(status.is_success(), allowed, "{signer} {name}: {answer}");
        if !allowed {
            assert!(
                message(&answer).contains("can only create a node CSR with CN=system:node:one"),
                "{answer}"
            );
        }
    }
}
