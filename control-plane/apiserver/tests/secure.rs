//! TLS, certificates, tokens and RBAC, end to end.

use std::sync::Arc;

use skep_apiserver::identity::{ClusterLookup, publish_rbac};
use skep_apiserver::tokens::Tokens;
use skep_apiserver::{ApiServer, Config, bootstrap};
use skep_auth::authentication::Chain;
use skep_auth::authentication::ClientCertificate;
use skep_auth::authentication::bearer::Bearer;
use skep_auth::authorization::Union;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::pki::{ClientAuth, Pki, PkiOptions};
use skep_auth::tokens::{ServiceAccountVerifier, Signer};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::kubectl::kubectl;
use crate::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_with_certificates_and_tokens() {
    let Some(kubectl) = kubectl() else {
        eprintln!("SKIPPED: there is no kubectl");
        return;
    };
    let server = Server::start().await;
    let registry = server.api.registry().clone();
    bootstrap::bootstrap(&registry, &server.cluster()).await.expect("bootstrapped");
    let dir = tempfile::tempdir().expect("a folder");
    let options =
        PkiOptions { server_names: vec!["localhost".to_owned()], server_ips: vec![[127, 0, 0, 1].into()] };
    let pki = Pki::load_or_create(&dir.path().join("pki"), &options).expect("a PKI");
    let audiences = vec!["https://kubernetes.default.svc.cluster.local".to_owned()];
    let signer = Signer::new(pki.service_account_key_pem(), audiences[0].clone(), audiences.clone())
        .expect("a signer");
    let verifier = ServiceAccountVerifier::new(signer.clone(), ClusterLookup(registry.clone()));
    let bearer = Arc::new(Bearer::new(vec![Arc::new(verifier)], audiences));
    let rbac = Arc::new(Rbac::new());
    publish_rbac(&registry, &rbac).await.expect("published");
    let authentication = Chain::new(
        vec![Box::new(ClientCertificate::new(pki.ca_pem()).expect("an authority")), Box::new(bearer.clone())],
        true,
    );
    let mut config =
        Config::new(registry.clone(), authentication, Arc::new(Union::new(vec![Box::new(rbac.clone())])));
    config.tokens = Some(Tokens { signer, bearer });
    config.rbac = Some(rbac.clone());
    let api = ApiServer::build(config);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let tls = pki.server_config(pki.server(), ClientAuth::Optional).expect("TLS");
    let serving = tokio::spawn(api.clone().serve(listener, tls, server.cancel.clone()));

    let pair = pki.issue_client("kubernetes-admin", &["system:masters"]).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let ca = file("ca.crt", pki.ca_pem());
    let (cert, key) = (file("c.crt", &pair.cert_pem), file("c.key", &pair.key_pem));
    let run = async |args: &[&str]| {
        let output = Command::new(&kubectl)
            .env_clear()
            .env("HOME", dir.path())
            .args(["--server", &url, "--certificate-authority", &ca])
            .args(args)
            .output()
            .await
            .expect("kubectl runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let admin = ["--client-certificate", &cert, "--client-key", &key];
    let admin = async |args: &[&str]| run(&[&admin[..], args].concat()).await;

    let (good, text) = admin(&["get", "svc", "-A"]).await;
    assert!(good && text.contains("kube-dns") && text.contains("10.96.0.1 "), "{text}");
    let (good, text) = admin(&["auth", "whoami"]).await;
    assert!(good && text.contains("kubernetes-admin"), "{text}");
    let (good, text) = admin(&["create", "serviceaccount", "robot"]).await;
    assert!(good, "{text}");
    let (good, token) = admin(&["create", "token", "robot"]).await;
    assert!(good, "{token}");
    let token = token.trim().to_owned();
    let robot = async |args: &[&str]| run(&[&["--token", &token], args].concat()).await;
    let (good, text) = robot(&["get", "configmaps"]).await;
    assert!(!good && text.contains("system:serviceaccount:default:robot"), "{text}");
    assert!(text.contains("Error from server (Forbidden)"), "{text}");
    let (good, text) = robot(&["auth", "can-i", "list", "configmaps"]).await;
    assert!(!good && text.contains("no"), "{text}");
    let (good, text) =
        admin(&["create", "rolebinding", "r", "--clusterrole=view", "--serviceaccount=default:robot"]).await;
    assert!(good, "{text}");
    publish_rbac(&registry, &rbac).await.expect("published");
    let (good, text) = robot(&["auth", "can-i", "list", "configmaps"]).await;
    assert!(good && text.contains("yes"), "{text}");
    let (good, text) =
        admin(&["auth", "can-i", "list", "secrets", "--as=system:serviceaccount:default:robot"]).await;
    assert!(!good && text.contains("no"), "{text}");
    let (good, text) = run(&["--token", "wrong", "get", "pods"]).await;
    assert!(!good && text.contains("Unauthorized"), "{text}");
    server.cancel.cancel();
    serving.await.expect("no panic").expect("served");
}
