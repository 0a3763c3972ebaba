//! What machines find that are about to join, and what aggregated servers find.

use http::StatusCode;
use serde_json::json;
use skep_auth::bootstrap_token::Token;

use super::Secure;

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
