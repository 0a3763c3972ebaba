//! Tokens of service accounts over HTTP: bound, reviewed, rotated, and verified by their holders.

use http::StatusCode;
use serde_json::{Value, json};

use super::{ISSUER, Secure};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

async fn token(server: &Secure, spec: Value) -> Value {
    server.create(&format!("{ACCOUNTS}/robot/token"), json!({"spec": spec})).await
}

async fn review(server: &Secure, token: &str) -> Value {
    server.create(REVIEWS, json!({"spec": {"token": token}})).await["status"].clone()
}

/// A token that was asked for is good in a review, until what it is bound to goes.
///
/// Holds AU-04.
#[tokio::test]
async fn a_requested_token_is_good_as_long_as_what_it_is_bound_to() {
    let server = Secure::start().await;
    server.create(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await;
    let secret =
        server.create("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    let plain = token(&server, json!({"expirationSeconds": 3600})).await;
    let plain = plain["status"]["token"].as_str().expect("a token").to_owned();
    let status = review(&server, &plain).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["audiences"], json!([ISSUER]));
    let bound = json!({"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": secret["metadata"]["uid"]});
    let bound = token(&server, json!({"boundObjectRef": bound})).await;
    let bound = bound["status"]["token"].as_str().expect("a token").to_owned();
    let (status, _) = server.send("admin", "DELETE", "/api/v1/namespaces/default/secrets/s", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_ne!(review(&server, &bound).await["authenticated"], true, "what it was bound to is gone");
    let elsewhere = token(&server, json!({"audiences": ["vault"]})).await;
    let elsewhere = elsewhere["status"]["token"].as_str().expect("a token");
    assert_ne!(review(&server, elsewhere).await["authenticated"], true, "it is for others");
    let whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, answer) = server.send(&plain, "POST", whoami, Some(json!({}))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(answer["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
}

/// The documents by which a pod verifies its own token.
///
/// Holds AU-02.
#[tokio::test]
async fn the_issuer_tells_its_keys() {
    let server = Secure::start().await;
    server.create(ACCOUNTS, json!({"metadata": {"name": "robot"}})).await;
    let issued = token(&server, json!({})).await;
    let issued = issued["status"]["token"].as_str().expect("a token");
    let (status, found) = server.send(issued, "GET", "/.well-known/openid-configuration", None).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!(found["issuer"], ISSUER);
    assert_eq!(found["jwks_uri"], format!("{ISSUER}/openid/v1/jwks"));
    assert_eq!(found["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let (status, keys) = server.send(issued, "GET", "/openid/v1/jwks", None).await;
    assert_eq!(status, StatusCode::OK, "{keys}");
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).expect("keys");
    let header = jsonwebtoken::decode_header(issued).expect("a header");
    let key = set.find(header.kid.as_deref().expect("a key id")).expect("the key of the token");
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    validation.set_audience(&[ISSUER]);
    validation.set_issuer(&[ISSUER]);
    let claims = jsonwebtoken::decode::<Value>(issued, &key, &validation).expect("verified").claims;
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
}
