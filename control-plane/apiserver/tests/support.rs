//! A server over an embedded store in a temporary folder.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use skep_admission::LateAccess;
use skep_admission::plugins::{Environment, Selection, chain};
use skep_admission::webhook::Metrics;
use skep_api::user::UserInfo;
use skep_apiserver::bootstrap::{Bootstrap, Trust};
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::Chain;
use skep_auth::authorization::{AlwaysAllow, Union};
use skep_registry::{ClusterReader, Options, Registry};
use skep_storage::Storage;
use skep_storage::embedded::{self, Embedded};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// A running server.
pub(crate) struct Server {
    pub(crate) api: ApiServer,
    pub(crate) router: Router,
    pub(crate) cancel: CancellationToken,
    pub(crate) user: UserInfo,
    pub(crate) storage: Arc<dyn Storage>,
    dir: Arc<tempfile::TempDir>,
}

impl Server {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts one that is configured otherwise.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_admission(change, Box::new(|_| skep_admission::Chain::default())).await
    }

    /// Starts one with the admission plug-ins that run by default.
    pub(crate) async fn start_admitting() -> Self {
        Self::start_selecting(Selection::default()).await
    }

    /// The same with a selection of plug-ins.
    pub(crate) async fn start_selecting(selection: Selection) -> Self {
        let access = LateAccess::default();
        let late = access.clone();
        let server = Self::with_admission(
            |_| {},
            Box::new(move |cluster| {
                let environment = Environment {
                    reader: cluster.clone(),
                    ledger: cluster.clone(),
                    client: skep_webhook::Client::new(cluster),
                    access: Arc::new(late),
                    metrics: Metrics::default(),
                    pod_security: skep_admission::plugins::pod_security::Config::default(),
                };
                chain(&environment, &selection, Vec::new())
            }),
        )
        .await;
        access.set(server.api.access());
        server
    }

    async fn with_admission(
        change: impl FnOnce(&mut Config),
        admission: Box<dyn FnOnce(Arc<ClusterReader>) -> skep_admission::Chain + Send>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Embedded::open(dir.path().join("store.redb"), embedded::Options::default())
            .await
            .expect("a store");
        Self::over(storage, Arc::new(dir), change, admission).await
    }

    /// Another server on the same store, which knows nothing of the past.
    pub(crate) async fn another(&self) -> Self {
        let admission = Box::new(|_| skep_admission::Chain::default());
        Self::over(self.storage.clone(), self.dir.clone(), |_| {}, admission).await
    }

    async fn over(
        storage: Arc<dyn Storage>,
        dir: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut Config),
        admission: Box<dyn FnOnce(Arc<ClusterReader>) -> skep_admission::Chain + Send>,
    ) -> Self {
        let cancel = CancellationToken::new();
        let service_ranges = vec!["10.96.0.0/16".parse().expect("a range")];
        let options = Options { service_ranges, admission, ..Options::default() };
        let started = Registry::start(storage.clone(), options, &TaskTracker::new(), cancel.clone()).await;
        let registry = started.expect("a registry");
        let authorization = Arc::new(Union::new(vec![Box::new(AlwaysAllow)]));
        let mut config = Config::new(registry, Chain::new(Vec::new(), true), authorization);
        change(&mut config);
        let api = ApiServer::build(config);
        let user = UserInfo::new("tester", ["system:masters"]);
        Self { router: api.router(), api, cancel, user, storage, dir }
    }

    /// The addresses of a test's cluster.
    pub(crate) fn cluster(&self) -> Bootstrap {
        Bootstrap {
            address: [192, 0, 2, 1].into(),
            port: 6443,
            service_ip: [10, 96, 0, 1].into(),
            dns_ips: vec![[10, 96, 0, 10].into()],
            trust: Trust::default(),
        }
    }

    /// Waits until the caches show what was written.
    pub(crate) async fn settled(&self) {
        let (status, _) = self.send("GET", "/api/v1/namespaces?limit=1", None).await;
        assert_eq!(status, 200);
    }

    /// Sends a request.
    pub(crate) async fn raw(&self, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(self.user.clone());
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    /// Sends a request; the answer's status and text.
    pub(crate) async fn text(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.raw(request).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends JSON and reads JSON.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let content_type =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.send_as(method, path, content_type, body.map(|body| body.to_string()).unwrap_or_default()).await
    }

    /// The same with a content type.
    pub(crate) async fn send_as(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(Body::from(body))
            .expect("a request");
        let (status, text) = self.text(request).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api.close();
        self.cancel.cancel();
    }
}
