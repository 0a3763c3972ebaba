//! Who may ask and for what, over the whole way of a request: tokens in, RBAC, gates, reviews.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_admission::{Chain as Admission, Reader};
use skep_api::user::UserInfo;
use skep_apiserver::bootstrap::{self, Bootstrap, Trust};
use skep_apiserver::gates::Gates;
use skep_apiserver::identity::{ClusterLookup, publish_rbac};
use skep_apiserver::tokens::Tokens;
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::bootstrap::BootstrapTokens;
use skep_auth::authentication::{Bearer, Chain, TokenFile, TokenVerifier};
use skep_auth::authorization::Union;
use skep_auth::authorization::node::Node;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::pki::{Pki, PkiOptions};
use skep_auth::tokens::{SecretTokenVerifier, ServiceAccountVerifier, Signer};
use skep_registry::{Options, Registry};
use skep_storage::embedded::{self, Embedded};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

mod audit;
mod certificates;
mod configured;
mod devices;
mod escalation;
mod joining;
mod outside;
mod tokens;

/// The API server's audience and issuer.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Tokens of people: the administrator, and some without any right of their own.
const PEOPLE: &str = "admin,admin,1,\"system:masters\"\njane,jane,2,\"dev\"\njoe,joe,3\nnode,system:node:one,4,\"system:nodes\"\n";

/// A server with authentication and authorization.
pub(crate) struct Secure {
    router: Router,
    registry: Arc<Registry>,
    rbac: Arc<Rbac>,
    pki: Pki,
    signer: Arc<Signer>,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Secure {
    /// Starts one with the roles every cluster begins with.
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, its configuration changed.
    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Embedded::open(dir.path().join("store.redb"), embedded::Options::default())
            .await
            .expect("a store");
        let cancel = CancellationToken::new();
        let rbac = Arc::new(Rbac::new());
        let gates = Gates::new(Arc::clone(&rbac));
        let plugins = gates.clone();
        let options = Options {
            service_ranges: vec!["10.96.0.0/16".parse().expect("a range")],
            admission: Box::new(move |reader| {
                let reader: Arc<dyn Reader> = reader;
                Admission::new(plugins.plugins(&reader))
            }),
            ..Options::default()
        };
        let registry =
            Registry::start(storage, options, &TaskTracker::new(), cancel.clone()).await.expect("a registry");
        let pki = Pki::load_or_create(&dir.path().join("pki"), &PkiOptions::default()).expect("a PKI");
        let cluster = Bootstrap {
            address: [192, 0, 2, 1].into(),
            port: 6443,
            service_ip: [10, 96, 0, 1].into(),
            dns_ips: Vec::new(),
            trust: Trust {
                client_ca: pki.ca_pem().to_owned(),
                front_proxy_ca: pki.front_proxy_ca_pem().to_owned(),
                front_proxy_names: vec!["front-proxy-client".to_owned()],
                cluster_ca: pki.ca_pem().to_owned(),
                url: "https://192.0.2.1:6443".to_owned(),
                ..Trust::default()
            },
        };
        bootstrap::bootstrap(&registry, &cluster).await.expect("bootstrapped");
        publish_rbac(&registry, &rbac).await.expect("published");
        let lookup = ClusterLookup(registry.clone());
        let audiences = vec![ISSUER.to_owned()];
        let signer = Signer::new(pki.service_account_key_pem(), ISSUER, audiences.clone()).expect("a signer");
        let verifiers: Vec<Arc<dyn TokenVerifier>> = vec![
            Arc::new(ServiceAccountVerifier::new(signer.clone(), lookup.clone())),
            Arc::new(SecretTokenVerifier::new(signer.clone(), lookup.clone())),
            Arc::new(TokenFile::parse(PEOPLE).expect("tokens")),
            Arc::new(BootstrapTokens::new(lookup.clone())),
        ];
        let bearer = Arc::new(Bearer::new(verifiers, audiences));
        let authorization =
            Arc::new(Union::new(vec![Box::new(Node::new(lookup)), Box::new(Arc::clone(&rbac))]));
        gates.ask(authorization.clone());
        let mut config =
            Config::new(registry.clone(), Chain::new(vec![Box::new(bearer.clone())], true), authorization);
        config.tokens = Some(Tokens { signer: signer.clone(), bearer });
        config.rbac = Some(rbac.clone());
        change(&mut config);
        let router = ApiServer::build(config).router();
        Self { router, registry, rbac, pki, signer, cancel, _dir: dir }
    }

    /// Sends a request with a token (none: anonymous) and further headers.
    async fn raw(
        &self,
        token: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> (StatusCode, http::HeaderMap, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Body::from(body)).expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (parts.status, parts.headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Sends as a user whom somebody else has authenticated.
    async fn send_as(
        &self,
        user: &UserInfo,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut request = request.body(Body::from(body)).expect("a request");
        request.extensions_mut().insert(user.clone());
        let answer = self.router.clone().oneshot(request).await.expect("infallible");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn send(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let (status, _, body) = self.raw(token, method, path, &[], body).await;
        (status, body)
    }

    /// Creates as the administrator.
    async fn create(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send("admin", "POST", path, Some(body)).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {answer}");
        answer
    }

    /// What roles and bindings say holds from now on.
    async fn publish(&self) {
        publish_rbac(&self.registry, &self.rbac).await.expect("published");
    }

    /// Gives a user a cluster role of these rules.
    async fn grant(&self, user: &str, rules: Value) {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let name = format!("grant-{user}");
        let role = json!({"metadata": {"name": name}, "rules": rules});
        self.create(&format!("{rbac}/clusterroles"), role).await;
        let binding = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        self.create(&format!("{rbac}/clusterrolebindings"), binding).await;
        self.publish().await;
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn message(answer: &Value) -> &str {
    answer["message"].as_str().unwrap_or_default()
}
