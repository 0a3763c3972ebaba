//! Service-account tokens from request to review.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use skep_auth::authentication::{Bearer, TokenVerifier};
use skep_auth::pki::{Pki, PkiOptions};
use skep_auth::tokens::{
    BoundObject, Lookup, Seen, ServiceAccountVerifier, Signer, TokenSubject, token_request, token_review,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<HashMap<String, Seen>>>);

impl Cluster {
    fn set(&self, kind: BoundObject, name: &str, uid: Option<&str>) {
        let mut objects = self.0.lock().expect("not poisoned");
        let key = format!("{kind:?} {name}");
        match uid {
            Some(uid) => objects.insert(key, Seen { uid: uid.into(), deleted: None }),
            None => objects.remove(&key),
        };
    }
}

#[async_trait]
impl Lookup for Cluster {
    async fn seen(&self, kind: BoundObject, namespace: &str, name: &str) -> Result<Option<Seen>, String> {
        assert_eq!(namespace, "team");
        Ok(self.0.lock().expect("not poisoned").get(&format!("{kind:?} {name}")).cloned())
    }
}

fn signer() -> Arc<Signer> {
    signer_and_key().0
}

fn signer_and_key() -> (Arc<Signer>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let pki = Pki::load_or_create(folder.path(), &PkiOptions::default()).expect("makes");
    let key = pki.service_account_key_pem().to_owned();
    (Signer::new(&key, ISSUER, vec![ISSUER.into()]).expect("signs"), key)
}

fn cluster() -> Cluster {
    let cluster = Cluster::default();
    cluster.set(BoundObject::ServiceAccount, "robot", Some("sa-uid"));
    cluster.set(BoundObject::Pod, "web", Some("pod-uid"));
    cluster
}

fn account() -> Value {
    json!({ "metadata": { "name": "robot", "namespace": "team", "uid": "sa-uid" } })
}

fn pod() -> Value {
    json!({ "metadata": { "name": "web", "namespace": "team", "uid": "pod-uid" } })
}

fn bound_token(signer: &Signer, audiences: &[&str]) -> String {
    let request = json!({ "spec": {
        "audiences": audiences,
        "expirationSeconds": 600,
        "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "pod-uid" },
    } });
    let node = json!({ "metadata": { "name": "one", "uid": "node-uid" } });
    let subject = TokenSubject { account: &account(), bound: Some(&pod()), node: Some(&node) };
    let (answer, _) = token_request(signer, &request, &subject).expect("issues");
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn a_bound_token_is_its_account_while_the_pod_lives() {
    let (signer, cluster) = (signer(), cluster());
    let token = bound_token(&signer, &[]);
    let verifier = ServiceAccountVerifier::new(Arc::clone(&signer), cluster.clone());
    let audiences = [ISSUER.to_owned()];
    let found = verifier.verify(&token, &audiences).await.expect("verifies").expect("is ours");
    assert_eq!(found.user.name, "system:serviceaccount:team:robot");
    assert_eq!(found.user.uid, "sa-uid");
    assert_eq!(
        found.user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated"]
    );
    let extra = |key: &str| found.user.extra.get(&format!("authentication.kubernetes.io/{key}"));
    assert_eq!(extra("pod-name"), Some(&vec!["web".to_owned()]));
    assert_eq!(extra("node-uid"), Some(&vec!["node-uid".to_owned()]));
    assert!(extra("credential-id").is_some());
    // Another pod of that name is another pod.
    cluster.set(BoundObject::Pod, "web", Some("other"));
    assert!(verifier.verify(&token, &audiences).await.is_err());
    cluster.set(BoundObject::Pod, "web", Some("pod-uid"));
    cluster.set(BoundObject::ServiceAccount, "robot", None);
    assert!(verifier.verify(&token, &audiences).await.is_err());
}

#[tokio::test]
async fn forged_expired_and_foreign_tokens_are_refused() {
    let ((signer, key), cluster) = (signer_and_key(), cluster());
    let verifier = ServiceAccountVerifier::new(Arc::clone(&signer), cluster.clone());
    let audiences = [ISSUER.to_owned()];
    let token = bound_token(&signer, &[]);
    // Claims exchanged under the same signature.
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let claims = URL_SAFE_NO_PAD.decode(&parts[1]).expect("decodes");
    let claims = String::from_utf8(claims).expect("text").replace("robot", "admin");
    parts[1] = URL_SAFE_NO_PAD.encode(claims);
    assert!(verifier.verify(&parts.join("."), &audiences).await.is_err());
    // No signature at all.
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let unsigned = format!("{none}.{}.", token.split('.').nth(1).expect("claims"));
    assert!(verifier.verify(&unsigned, &audiences).await.is_err());
    // Another key under the same issuer.
    let stranger = bound_token(&self::signer(), &[]);
    assert!(verifier.verify(&stranger, &audiences).await.is_err());
    // Time is up: the same claims with an end in the past, signed with the right key.
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("decodes");
    let mut claims: Value = serde_json::from_slice(&claims).expect("claims");
    let end = claims["exp"].as_u64().expect("an end");
    let sign = |claims: &Value| {
        let key = jsonwebtoken::EncodingKey::from_ec_pem(key.as_bytes()).expect("a key");
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        jsonwebtoken::encode(&header, claims, &key).expect("signs")
    };
    assert!(verifier.verify(&sign(&claims), &audiences).await.is_ok());
    claims["exp"] = (end - 700).into();
    assert!(verifier.verify(&sign(&claims), &audiences).await.is_err());
    claims["exp"] = end.into();
    claims["nbf"] = (end + 100).into();
    assert!(verifier.verify(&sign(&claims), &audiences).await.is_err());
    // Other audiences.
    let foreign = bound_token(&signer, &["vault"]);
    assert!(verifier.verify(&foreign, &audiences).await.is_err());
    assert!(verifier.verify(&foreign, &["vault".into()]).await.is_ok());
    // Not a token of ours.
    assert_eq!(verifier.verify("abc", &audiences).await.ok(), Some(None));
    assert_eq!(verifier.verify("a.b.c", &audiences).await.ok(), Some(None));
}

#[tokio::test]
async fn a_review_tells_who_and_for_whom() {
    let (signer, cluster) = (signer(), cluster());
    let verifier = Arc::new(ServiceAccountVerifier::new(Arc::clone(&signer), cluster));
    let bearer = Bearer::new(vec![verifier], vec![ISSUER.into()]);
    let review =
        |token: &str, audiences: &[&str]| json!({ "spec": { "token": token, "audiences": audiences } });
    let token = bound_token(&signer, &["vault", ISSUER]);
    let answer = token_review(&bearer, &review(&token, &["vault", "other"])).await;
    assert_eq!(answer["status"]["authenticated"], true);
    assert_eq!(answer["status"]["audiences"], json!(["vault"]));
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:team:robot");
    let answer = token_review(&bearer, &review("nonsense", &[])).await;
    assert_eq!(answer["status"]["authenticated"], false);
}

#[test]
fn requests_are_checked() {
    let signer = signer();
    let account = account();
    let subject = TokenSubject { account: &account, bound: None, node: None };
    let short = json!({ "spec": { "expirationSeconds": 5 } });
    assert_eq!(token_request(&signer, &short, &subject).map_err(|e| e.code).err(), Some(422));
    let gone = json!({ "spec": { "boundObjectRef": { "kind": "Pod", "name": "web" } } });
    assert_eq!(token_request(&signer, &gone, &subject).map_err(|e| e.code).err(), Some(404));
    let other = json!({ "spec": { "boundObjectRef": { "kind": "Pod", "name": "web", "uid": "else" } } });
    let pod = pod();
    let with_pod = TokenSubject { bound: Some(&pod), ..subject };
    assert_eq!(token_request(&signer, &other, &with_pod).map_err(|e| e.code).err(), Some(409));
    let (plain, _) = token_request(&signer, &json!({ "spec": {} }), &subject).expect("issues");
    assert_eq!(plain["spec"]["expirationSeconds"], 3600);
    assert_eq!(plain["spec"]["audiences"], json!([ISSUER]));
}

#[test]
fn the_published_key_is_the_one_that_signs() {
    let signer = signer();
    let keys = signer.jwks();
    let key = &keys["keys"][0];
    let text = |name: &str| key[name].as_str().expect("is there").to_owned();
    let decoding = jsonwebtoken::DecodingKey::from_ec_components(&text("x"), &text("y")).expect("is a key");
    let token = bound_token(&signer, &[]);
    let header = jsonwebtoken::decode_header(&token).expect("has a header");
    assert_eq!(header.kid, Some(text("kid")));
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.validate_aud = false;
    jsonwebtoken::decode::<Value>(&token, &decoding, &validation).expect("verifies");
    assert_eq!(signer.discovery_document()["issuer"], ISSUER);
}
