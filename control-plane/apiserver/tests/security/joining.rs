//! What machines find that are about to join, and what aggregated servers find.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_auth::bootstrap_token::{SIGNATURE_PREFIX, Token};
use skep_auth::certificates::{Authority, NewKey, is_self_signed, signer};
use skep_client::Client;
use skep_controllers::ControllersConfig;

use super::Secure;

/// Everything that controllers do is done by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// The controllers of a cluster, over the API only.
fn controllers(server: &Secure) {
    let user = UserInfo::new("system:kube-controller-manager", Vec::<String>::new());
    let client = Client::in_process(server.router.clone(), user);
    let authority = Authority::new(server.pki.ca_pem(), &server.pki.ca_key_pem()).expect("an authority");
    let config = ControllersConfig {
        ca_pem: server.pki.ca_pem().to_owned(),
        authority: Some(Arc::new(authority)),
        tokens: Some(Arc::clone(&server.signer)),
        ..ControllersConfig::default()
    };
    tokio::spawn(skep_controllers::run(client, config, server.cancel.clone()));
}

/// An object once it is as wanted.
async fn until(server: &Secure, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let look = async {
        loop {
            let (status, object) = server.send("admin", "GET", path, None).await;
            if status == StatusCode::OK && wanted(&object) {
                return object;
            }
            last = object;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(object) => object,
        Err(_) => panic!("{path} is still {last}"),
    }
}

/// From a token to the certificates of a node, as `skep agent --server --token` does it.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_with_a_token() {
    let server = Secure::start().await;
    controllers(&server);
    let token = Token::generate();
    server.create("/api/v1/namespaces/kube-system/secrets", token.to_secret("", "", &[])).await;
    let key = format!("{SIGNATURE_PREFIX}{}", token.id);
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let info = until(&server, path, |info| info["data"][&key].is_string()).await;
    let text = info["data"]["kubeconfig"].as_str().expect("a kubeconfig");
    assert!(token.verify(text, info["data"][&key].as_str().expect("a signature")));
    assert!(!Token::generate().verify(text, info["data"][&key].as_str().expect("a signature")));

    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let own = NewKey::generate().expect("a key");
    let ask = |signer: &str, usage: &str, request: String| {
        json!({
            "metadata": {"generateName": "csr-"},
            "spec": {"request": STANDARD.encode(request), "signerName": signer,
                     "usages": ["digital signature", usage], "expirationSeconds": 3600},
        })
    };
    let request = own.request("system:node:n1", "system:nodes", &[], &[]).expect("a request");
    let body = ask(signer::KUBELET_CLIENT, "client auth", request);
    let (status, made) = server.send(&token.text(), "POST", requests, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = format!("{requests}/{}", made["metadata"]["name"].as_str().expect("a name"));
    let signed = until(&server, &path, |csr| csr["status"]["certificate"].is_string()).await;
    assert_eq!(signed["status"]["conditions"][0]["reason"], "AutoApproved");
    let pem = STANDARD.decode(signed["status"]["certificate"].as_str().expect("base64")).expect("base64");
    assert!(!is_self_signed(&pem));

    // Its serving certificate waits for the node to say which addresses it has.
    let node = UserInfo::new("system:node:n1", ["system:nodes"]);
    let request = own
        .request("system:node:n1", "system:nodes", &["n1".into()], &[[192, 0, 2, 9].into()])
        .expect("a request");
    let body = ask(signer::KUBELET_SERVING, "server auth", request);
    let (status, made) = server.send_as(&node, "POST", requests, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = format!("{requests}/{}", made["metadata"]["name"].as_str().expect("a name"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_, waiting) = server.send("admin", "GET", &path, None).await;
    assert!(waiting["status"]["conditions"].is_null(), "{waiting}");
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.9"}]);
    let object = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
    server.create("/api/v1/nodes", object).await;
    let status = json!({"status": {"addresses": addresses}});
    let (code, answer) = server.send("admin", "PATCH", "/api/v1/nodes/n1/status", Some(status)).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    until(&server, &path, |csr| csr["status"]["certificate"].is_string()).await;
    // A node asks for nobody but itself.
    let request = own.request("system:node:n2", "system:nodes", &[], &[]).expect("a request");
    let body = ask(signer::KUBELET_CLIENT, "client auth", request);
    let (status, refused) = server.send_as(&node, "POST", requests, Some(body)).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{refused}");
    let message = refused["message"].as_str().expect("a message");
    assert!(message.ends_with("can only create a node CSR with CN=system:node:n1"), "{message}");
}

/// The authority is in every namespace, and put back; an account's token is put into the Secrets that
/// ask for it.
///
/// Holds AU-05.
#[tokio::test(flavor = "multi_thread")]
async fn namespaces_have_the_authority_and_secrets_get_their_tokens() {
    let server = Secure::start().await;
    controllers(&server);
    server.create("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await;
    let path = "/api/v1/namespaces/team/configmaps/kube-root-ca.crt";
    let right = |map: &Value| map["data"]["ca.crt"] == server.pki.ca_pem();
    until(&server, path, right).await;
    let (status, _) = server.send("admin", "DELETE", path, None).await;
    assert_eq!(status, StatusCode::OK);
    until(&server, path, right).await;
    let (status, _) = server.send("admin", "PATCH", path, Some(json!({"data": {"ca.crt": "other"}}))).await;
    assert_eq!(status, StatusCode::OK);
    until(&server, path, right).await;

    server.create("/api/v1/namespaces/team/serviceaccounts", json!({"metadata": {"name": "robot"}})).await;
    let secret = json!({
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}},
    });
    server.create("/api/v1/namespaces/team/secrets", secret).await;
    let path = "/api/v1/namespaces/team/secrets/t";
    let filled = until(&server, path, |secret| secret["data"]["token"].is_string()).await;
    let token = STANDARD.decode(filled["data"]["token"].as_str().expect("base64")).expect("base64");
    let token = String::from_utf8(token).expect("text");
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, answer) = server.send(&token, "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(answer["status"]["userInfo"]["username"], "system:serviceaccount:team:robot");
    let (status, _) =
        server.send("admin", "DELETE", "/api/v1/namespaces/team/serviceaccounts/robot", None).await;
    assert_eq!(status, StatusCode::OK);
    let gone = async {
        while server.send("admin", "GET", path, None).await.0 != StatusCode::NOT_FOUND {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the Secret goes with the account");
}

#[tokio::test]
async fn a_bootstrap_token_lets_in_until_it_ends() {
    let server = Secure::start().await;
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let groups = ["system:bootstrappers:kubeadm:default-node-token".to_owned()];
    let token = Token::generate();
    let (status, _) = server.send(&token.text(), "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    server.create(secrets, token.to_secret("a test", "2100-01-01T00:00:00Z", &groups)).await;
    let (status, answer) = server.send(&token.text(), "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], format!("system:bootstrap:{}", token.id));
    assert_eq!(user["groups"], json!(["system:bootstrappers", groups[0], "system:authenticated"]));

    let ended = Token::generate();
    server.create(secrets, ended.to_secret("", "2020-01-01T00:00:00Z", &[])).await;
    let (status, _) = server.send(&ended.text(), "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "expired");
    let greedy = Token::generate();
    server.create(secrets, greedy.to_secret("", "", &["system:masters".to_owned()])).await;
    let (status, _) = server.send(&greedy.text(), "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "groups of others");
    let mut wrong = token.clone();
    wrong.secret = "0000000000000000".to_owned();
    let (status, _) = server.send(&wrong.text(), "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a wrong secret");
}

#[tokio::test]
async fn what_the_cluster_says_of_itself_is_there_for_strangers_and_for_aggregated_servers() {
    let server = Secure::start().await;
    let (status, info) =
        server.send("", "GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info", None).await;
    assert_eq!(status, StatusCode::OK, "{info}");
    assert!(info["data"]["kubeconfig"].as_str().is_some_and(|text| text.contains("https://192.0.2.1:6443")));
    let (status, _) = server.send("", "GET", "/api/v1/namespaces/kube-public/configmaps", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (status, map) = server.send("admin", "GET", path, None).await;
    assert_eq!(status, StatusCode::OK, "{map}");
    assert_eq!(map["data"]["client-ca-file"], server.pki.ca_pem());
    assert_eq!(map["data"]["requestheader-client-ca-file"], server.pki.front_proxy_ca_pem());
    assert_eq!(map["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
}
