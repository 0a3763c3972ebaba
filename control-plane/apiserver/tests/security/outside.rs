//! What is asked of others: an issuer of id tokens, and webhooks that judge tokens and requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_auth::authentication::bearer::TokenVerifier;
use skep_auth::authentication::oidc::{Issuer, Oidc, Source};
use skep_auth::authentication::{Bearer, WebhookTokens};
use skep_auth::authorization::webhook::{Webhook, WebhookOptions};
use skep_auth::authorization::{Attributes, Authorizer, Decision};
use skep_auth::pki::{ClientAuth, Pki, PkiOptions};
use skep_webhook::{Client, Endpoint, NoServices, Trust};
use tokio::net::TcpListener;

/// A server over TLS on loopback.
pub(crate) struct Outside {
    pub(crate) url: String,
    pub(crate) trust: Trust,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn serve(router: impl FnOnce(&str) -> Router) -> Outside {
    let dir = tempfile::tempdir().expect("a folder");
    let options = PkiOptions { server_names: vec!["localhost".to_owned()], server_ips: Vec::new() };
    let pki = Pki::load_or_create(dir.path(), &options).expect("a PKI");
    let tls = pki.server_config(pki.server(), ClientAuth::Optional).expect("TLS");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
    let router = router(&url);
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let io = hyper_util::rt::TokioIo::new(stream);
                let builder =
                    hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                // A client that goes away is no failure of the test.
                let _ = builder.serve_connection(io, service).await;
            });
        }
    });
    let trust = Trust::Bundle(pki.ca_pem().as_bytes().into());
    Outside { url, trust, task, _dir: dir }
}

pub(crate) fn client() -> Client {
    Client::new(Arc::new(NoServices))
}

pub(crate) fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

/// A key of an issuer, and as its document shows it.
pub(crate) fn signing_key(id: &str) -> (EncodingKey, Value) {
    let pair = KeyPair::generate().expect("a key");
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key");
    let point = pair.public_key_raw();
    let half = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    let shown = json!({"kty": "EC", "use": "sig", "crv": "P-256", "kid": id, "alg": "ES256", "x": half(1..33), "y": half(33..65)});
    (key, shown)
}

pub(crate) fn sign(key: &EncodingKey, id: &str, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    jsonwebtoken::encode(&header, claims, key).expect("signed")
}

#[tokio::test]
async fn id_tokens_of_an_issuer_are_believed_by_its_keys() {
    let (key, shown) = signing_key("one");
    let (other, _) = signing_key("one");
    let fetched = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetched);
    let issuer = serve(|url| {
        let configuration = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(configuration) }))
            .route(
                "/keys",
                get(move || async move {
                    counter.fetch_add(1, Ordering::SeqCst);
                    Json(json!({"keys": [shown, {"kty": "oct", "k": "AAAA"}]}))
                }),
            )
    })
    .await;
    let oidc = Oidc::new(
        Issuer {
            trust: issuer.trust.clone(),
            groups: Some(Source::claim("groups", "g:")),
            required: BTreeMap::from([("hd".to_owned(), "example.org".to_owned())]),
            ..Issuer::new(&issuer.url, vec!["kubernetes".to_owned()], Source::claim("email", "o:"))
        },
        client(),
    );
    let api = vec!["api".to_owned()];
    let bearer = Bearer::new(vec![Arc::new(oidc)], api);
    let good = json!({
        "iss": issuer.url, "aud": ["kubernetes", "x"], "exp": now() + 600, "email": "jane@example.org",
        "email_verified": true, "groups": ["dev", "ops"], "hd": "example.org", "sub": "1",
    });
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        claims
    };
    let found = bearer.verify(&sign(&key, "one", &good), &[]).await.expect("believed").expect("known");
    assert_eq!(found.user.name, "o:jane@example.org");
    assert_eq!(found.user.groups, ["g:dev", "g:ops", "system:authenticated"]);
    for (claims, why) in [
        (with("exp", (now() - 600).into()), "ExpiredSignature"),
        (with("aud", "other".into()), "InvalidAudience"),
        (with("hd", "other".into()), "required claim hd"),
        (with("email_verified", false.into()), "email not verified"),
        (with("groups", json!([1])), "neither a string nor a list of strings"),
        (with("nbf", (now() + 600).into()), "ImmatureSignature"),
    ] {
        let error = bearer.verify(&sign(&key, "one", &claims), &[]).await.expect_err(why);
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    assert!(bearer.verify(&sign(&other, "one", &good), &[]).await.is_err(), "another key of that name");
    let stranger = with("iss", "https://other.example".into());
    assert!(matches!(bearer.verify(&sign(&key, "one", &stranger), &[]).await, Ok(None)));
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "keys are kept");
    for _ in 0..3 {
        assert!(bearer.verify(&sign(&other, "two", &good), &[]).await.is_err());
    }
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "names of strangers do not make us ask again at once");
    let none = json!({"alg": "none"}).to_string();
    let token = format!("{}.{}.", URL_SAFE_NO_PAD.encode(none), URL_SAFE_NO_PAD.encode(good.to_string()));
    assert!(!matches!(bearer.verify(&token, &[]).await, Ok(Some(_))), "unsigned");
}

#[tokio::test]
async fn a_webhook_judges_tokens_and_is_not_asked_twice() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let webhook = serve(|_| {
        Router::new().route(
            "/",
            post(move |Json(review): Json<Value>| async move {
                counter.fetch_add(1, Ordering::SeqCst);
                assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("TokenReview"), &json!("authentication.k8s.io/v1")));
                let status = match review["spec"]["token"].as_str() {
                    Some("good") => json!({"authenticated": true, "audiences": review["spec"]["audiences"],
                        "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"a": ["b"]}}}),
                    Some("broken") => json!({"authenticated": false, "error": "no way"}),
                    _ => json!({"authenticated": false}),
                };
                Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
            }),
        )
    })
    .await;
    let endpoint = Endpoint::url(&webhook.url).expect("a URL").with_trust(webhook.trust.clone());
    let tokens = WebhookTokens::new(client(), endpoint, "v1", Duration::from_secs(60));
    let audiences = vec!["api".to_owned()];
    for _ in 0..2 {
        let found = tokens.verify("good", &audiences).await.expect("asked").expect("known");
        assert_eq!((found.user.name.as_str(), found.user.uid.as_str()), ("jane", "7"));
        assert_eq!(found.user.groups, ["dev", "system:authenticated"]);
        assert_eq!(found.user.extra["a"], ["b"]);
        assert_eq!(tokens.verify("bad", &audiences).await.expect("asked"), None);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert!(tokens.verify("broken", &audiences).await.is_err());
}

#[tokio::test]
async fn a_webhook_decides_and_its_failure_is_what_the_policy_says() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let webhook = serve(|_| {
        Router::new().route(
            "/",
            post(move |Json(review): Json<Value>| async move {
                counter.fetch_add(1, Ordering::SeqCst);
                let spec = &review["spec"];
                let status = match spec["resourceAttributes"]["resource"].as_str() {
                    Some("pods") => json!({"allowed": true, "reason": "pods are for all"}),
                    Some("secrets") => json!({"allowed": false, "denied": true, "reason": "never"}),
                    _ if spec["nonResourceAttributes"]["path"] == "/x" => json!({"allowed": true}),
                    _ => json!({"allowed": false}),
                };
                Json(json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}))
            }),
        )
    })
    .await;
    let endpoint = Endpoint::url(&webhook.url).expect("a URL").with_trust(webhook.trust.clone());
    let authorizer = Webhook::new(client(), endpoint.clone(), WebhookOptions::default());
    let user = UserInfo::new("jane", ["dev"]);
    let on = |resource| Attributes::for_resource(&user, "get", "", resource);
    for _ in 0..2 {
        assert_eq!(authorizer.authorize(&on("pods")).await, Decision::Allow("pods are for all".into()));
        assert_eq!(authorizer.authorize(&on("secrets")).await, Decision::Deny("never".into()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "answers are remembered");
    assert_eq!(authorizer.authorize(&on("nodes")).await, Decision::NoOpinion(String::new()));
    assert!(authorizer.authorize(&Attributes::for_path(&user, "get", "/x")).await.allowed());
    drop(webhook);
    for deny in [false, true] {
        let options = WebhookOptions {
            deny_on_failure: deny,
            deadline: Duration::from_secs(2),
            ..WebhookOptions::default()
        };
        let authorizer = Webhook::new(client(), endpoint.clone(), options);
        let decision = authorizer.authorize(&on("pods")).await;
        assert_eq!(matches!(decision, Decision::Deny(_)), deny, "{decision:?}");
        assert!(!decision.allowed());
    }
}
