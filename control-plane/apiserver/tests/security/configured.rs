//! Authentication and authorization by configuration files: expressions at work, and changes that take
//! effect while requests are served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use skep_api::field::{ErrorList, Path};
use skep_api::user::UserInfo;
use skep_auth::authentication::oidc::Issuers;
use skep_auth::authentication::{Bearer, Chain, Credentials, LiveAnonymous};
use skep_auth::authorization::webhook::{MatchConditions, Webhook, WebhookOptions};
use skep_auth::authorization::{AlwaysAllow, AlwaysDeny, Attributes, Authorizer, Decision, Live, Union};
use skep_auth::configuration::Authentication;
use skep_webhook::{Endpoint, Trust};

use super::outside::{Outside, client, now, serve, sign, signing_key};
use crate::support::Server;

async fn issuer(shown: Value) -> Outside {
    serve(|url| {
        let configuration = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { Json(configuration) }))
            .route("/keys", get(move || async move { Json(json!({"keys": [shown]})) }))
    })
    .await
}

fn configuration(url: &str, trust: &Trust, username: &str) -> Authentication {
    let Trust::Bundle(bundle) = trust else { panic!("{trust:?}") };
    let text = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": url, "audiences": ["k"], "certificateAuthority": String::from_utf8_lossy(bundle)},
            "claimMappings": {
                "username": {"expression": username},
                "groups": {"expression": "claims.roles.split(',').map(r, 'r:' + r)"},
                "extra": [{"key": "example.org/tenant", "valueExpression": "claims.tenant"}],
            },
            "claimValidationRules": [{"expression": "claims.exp - claims.iat <= 3600", "message": "too long a life"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
        }],
    });
    Authentication::parse(&text.to_string(), &[]).expect("a configuration")
}

#[tokio::test]
async fn issuers_are_exchanged_while_tokens_are_verified() {
    let (key, shown) = signing_key("one");
    let issuer = issuer(shown).await;
    let issuers = Issuers::new(Vec::new(), &client());
    let bearer = Bearer::new(vec![issuers.clone()], vec!["api".to_owned()]);
    let claims = json!({
        "iss": issuer.url, "aud": "k", "iat": now(), "exp": now() + 600, "sub": "jane", "roles": "dev,ops", "tenant": "t1",
    });
    let with = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        sign(&key, "one", &claims)
    };
    let token = sign(&key, "one", &claims);
    assert_eq!(bearer.verify(&token, &[]).await.expect("asked"), None, "nobody knows the issuer");
    let patience = Duration::from_secs(30);
    let first = configuration(&issuer.url, &issuer.trust, "'one:' + claims.sub");
    issuers.replace(first.issuers, &client(), patience).await.expect("its keys are there");
    let found = bearer.verify(&token, &[]).await.expect("believed").expect("known").user;
    assert_eq!(found.name, "one:jane");
    assert_eq!(found.groups, ["r:dev", "r:ops", "system:authenticated"]);
    assert_eq!(found.extra["example.org/tenant"], ["t1"]);
    let error = bearer.verify(&with("exp", (now() + 7200).into()), &[]).await.expect_err("too long");
    assert!(error.to_string().ends_with("failed: too long a life"), "{error}");
    // Another mapping of the same issuer; what was remembered of tokens goes with the first.
    let second = configuration(&issuer.url, &issuer.trust, "claims.sub");
    issuers.replace(second.issuers, &client(), patience).await.expect("its keys are there");
    assert_eq!(bearer.verify(&token, &[]).await.expect("believed").expect("known").user.name, "one:jane");
    bearer.forget();
    assert_eq!(bearer.verify(&token, &[]).await.expect("believed").expect("known").user.name, "jane");
    let error = bearer.verify(&with("sub", "system:masters".into()), &[]).await.expect_err("reserved");
    assert!(error.to_string().ends_with("failed: reserved"), "{error}");
    // An issuer whose keys can't be had is not used, and those before stay.
    let gone = configuration("https://localhost:1", &issuer.trust, "claims.sub");
    let error = issuers.replace(gone.issuers, &client(), Duration::ZERO).await.expect_err("refused");
    assert!(error.to_string().contains("https://localhost:1"), "{error}");
    bearer.forget();
    assert!(bearer.verify(&token, &[]).await.expect("believed").is_some());
}

#[tokio::test]
async fn who_may_be_anonymous_and_who_decides_change_at_once() {
    let anonymous = LiveAnonymous::from(true);
    let chain = Chain::new(Vec::new(), anonymous.clone());
    let headers = http::HeaderMap::new();
    let credentials = Credentials::none(&headers);
    assert!(chain.authenticate(&credentials, "/api").await.is_ok());
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
                anonymous: {enabled: true, conditions: [{path: /livez}]}\n";
    let file = Authentication::parse(text, &[]).expect("a configuration");
    anonymous.replace(file.anonymous.expect("it says so"));
    assert!(chain.authenticate(&credentials, "/api").await.is_err());
    assert!(chain.authenticate(&credentials, "/livez").await.is_ok());

    let live = Live::new(Union::new(vec![Box::new(AlwaysDeny)]));
    let user = UserInfo::new("jane", Vec::<String>::new());
    let attributes = Attributes::for_path(&user, "get", "/x");
    assert!(!live.authorize(&attributes).await.allowed());
    live.replace(Union::new(vec![Box::new(AlwaysAllow)]));
    assert!(live.authorize(&attributes).await.allowed());
}

#[tokio::test]
async fn a_webhook_is_asked_only_about_what_its_conditions_match() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let webhook = serve(|_| {
        Router::new().route(
            "/",
            post(move |Json(mut review): Json<Value>| async move {
                counter.fetch_add(1, Ordering::SeqCst);
                review["status"] = json!({"allowed": true});
                Json(review)
            }),
        )
    })
    .await;
    let endpoint = Endpoint::url(&webhook.url).expect("a URL").with_trust(webhook.trust.clone());
    let texts = [
        "has(request.resourceAttributes)".to_owned(),
        "request.resourceAttributes.namespace == 'kube-system'".to_owned(),
        "!('system:serviceaccounts' in request.groups)".to_owned(),
        "request.extra['example.org/tenant'][0] == 't1'".to_owned(),
    ];
    let user = UserInfo {
        extra: [("example.org/tenant".to_owned(), vec!["t1".to_owned()])].into(),
        ..UserInfo::new("jane", ["dev"])
    };
    let account = UserInfo { extra: user.extra.clone(), ..UserInfo::new("sa", ["system:serviceaccounts"]) };
    let nobody = UserInfo::new("nobody", Vec::<String>::new());
    let on = |user, namespace| Attributes { namespace, ..Attributes::for_resource(user, "get", "", "pods") };
    for deny in [false, true] {
        let mut errors = ErrorList::new();
        let conditions = MatchConditions::compile(&texts, &Path::new("matchConditions"), &mut errors);
        assert!(errors.is_empty(), "{errors}");
        let options = WebhookOptions { conditions, deny_on_failure: deny, ..WebhookOptions::default() };
        let authorizer = Webhook::new(client(), endpoint.clone(), options);
        asked.store(0, Ordering::SeqCst);
        assert!(authorizer.authorize(&on(&user, "kube-system")).await.allowed());
        for skipped in
            [on(&user, "default"), on(&account, "kube-system"), Attributes::for_path(&user, "get", "/x")]
        {
            assert_eq!(authorizer.authorize(&skipped).await, Decision::NoOpinion(String::new()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // A condition that fails is as good as a webhook that does.
        let failed = authorizer.authorize(&on(&nobody, "kube-system")).await;
        assert_eq!(matches!(failed, Decision::Deny(_)), deny, "{failed:?}");
        assert!(!failed.allowed());
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it was not asked");
    }
}

/// Allows everything and writes down what it was asked.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Authorizer for Recorder {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let fields: Vec<String> = attributes
            .fields
            .iter()
            .map(|one| format!("{}{}{}", one.field, if one.negated { "!=" } else { "=" }, one.value))
            .collect();
        let labels: Vec<&str> = attributes.labels.iter().map(|one| one.key.as_str()).collect();
        let line = format!(
            "{} {} {:?} [{}] [{}]",
            attributes.verb,
            attributes.resource,
            attributes.name,
            fields.join(","),
            labels.join(",")
        );
        self.0.lock().expect("unpoisoned").push(line);
        Decision::Allow(String::new())
    }
}

#[tokio::test]
async fn authorizers_know_the_selectors() {
    let recorder = Recorder::default();
    let mut server = Server::start_with({
        let recorder = recorder.clone();
        move |config| config.authorization = Arc::new(recorder)
    })
    .await;
    server.user = UserInfo::new("jane", Vec::<String>::new());
    let asked = || std::mem::take(&mut *recorder.0.lock().expect("unpoisoned"));
    for (method, path, want) in [
        (
            "GET",
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dn,status.phase!%3DFailed&labelSelector=a%3Db",
            r#"list pods "" [spec.nodeName=n,status.phase!=Failed] [a]"#,
        ),
        (
            "GET",
            "/api/v1/namespaces/d/secrets?fieldSelector=metadata.name%3Dx",
            r#"list secrets "x" [metadata.name=x] []"#,
        ),
        ("GET", "/api/v1/namespaces/d/secrets/y?labelSelector=a", r#"get secrets "y" [] []"#),
        (
            "DELETE",
            "/api/v1/namespaces/d/configmaps?fieldSelector=metadata.name%3Dx",
            r#"deletecollection configmaps "" [metadata.name=x] []"#,
        ),
        ("GET", "/api/v1/pods?labelSelector=!!", r#"list pods "" [] []"#),
    ] {
        server.send(method, path, None).await;
        assert_eq!(asked(), [want], "{method} {path}");
    }
    let review = |attributes: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let good = review(json!({
        "verb": "list", "resource": "pods",
        "fieldSelector": {"rawSelector": "spec.nodeName=n"},
        "labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}]},
    }));
    let (status, answer) = server.send("POST", path, Some(good)).await;
    assert_eq!((status.as_u16(), &answer["status"]["allowed"]), (201, &json!(true)), "{answer}");
    assert_eq!(asked()[1], r#"list pods "" [spec.nodeName=n] [a]"#);
    let bad = review(json!({"verb": "list", "resource": "pods", "fieldSelector": {}}));
    let (status, answer) = server.send("POST", path, Some(bad)).await;
    assert_eq!(status.as_u16(), 422, "{answer}");
}
