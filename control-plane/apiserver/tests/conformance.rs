//! Behaviours of the conformance list that need no container: the API as clients use it, and the controllers
//! and the scheduler over it. Nodes are played by [`nodes`]; everything else is the real thing.
#![expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are passed")]

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use skep_client::Client;
use skep_controllers::ControllersConfig;

use crate::support::Server;

mod applying;
mod cron;
mod daemons;
mod deployments;
mod events;
mod garbage;
mod jobs;
mod kinds;
mod kubectl;
mod lifecycle;
mod namespaces;
mod nodes;
mod pods;
mod quota;
mod reading;
mod replicas;
mod scheduling;
mod services;
mod stateful;

/// Everything is done by then.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long something that must not happen is given to happen.
const A_WHILE: Duration = Duration::from_millis(700);

/// A server with the objects every cluster begins with.
pub(crate) struct Cluster {
    pub(crate) server: Server,
}

impl Cluster {
    /// The API alone, with admission.
    pub(crate) async fn api() -> Self {
        let server = Server::start_admitting().await;
        let cluster = server.cluster();
        skep_apiserver::bootstrap::bootstrap(server.api.registry(), &cluster).await.expect("bootstrapped");
        let this = Self { server };
        // Pods need their account, which a controller makes; here it is not running.
        this.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
            .await;
        this
    }

    /// With the controllers, and nodes that run pods.
    pub(crate) async fn whole(nodes: usize) -> Self {
        let server = Server::start_admitting().await;
        let cluster = server.cluster();
        skep_apiserver::bootstrap::bootstrap(server.api.registry(), &cluster).await.expect("bootstrapped");
        let this = Self { server };
        let client = |name: &str| {
            Client::in_process(this.server.router.clone(), UserInfo::new(name, ["system:masters"]))
        };
        let config = ControllersConfig { ca_pem: "a certificate".to_owned(), ..ControllersConfig::default() };
        let cancel = &this.server.cancel;
        tokio::spawn(skep_controllers::run(client("system:kube-controller-manager"), config, cancel.clone()));
        tokio::spawn(skep_scheduler::run(client("system:kube-scheduler"), cancel.clone()));
        for number in 0..nodes {
            this.create("/api/v1/nodes", nodes::node(&format!("node-{number}"), "16")).await;
            let lease = json!({"metadata": {"name": format!("node-{number}")}, "spec": {"renewTime": "2100-01-01T00:00:00.000000Z"}});
            this.create("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await;
        }
        tokio::spawn(nodes::run(this.server.router.clone(), cancel.clone()));
        this.until("/api/v1/namespaces/default/serviceaccounts/default", |_| true).await;
        this
    }

    /// A request that must succeed.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.server.send(method, path, body.clone()).await;
        assert!(status.is_success(), "{method} {path} {}: {status} {answer}", body.unwrap_or_default());
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None).await
    }

    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        self.ok("PATCH", path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Value {
        self.ok("DELETE", path, None).await
    }

    /// A deletion with a policy for what depends on the object.
    pub(crate) async fn delete_with(&self, path: &str, policy: &str) -> Value {
        self.ok("DELETE", path, Some(json!({"propagationPolicy": policy}))).await
    }

    /// A request that must be refused; its answer.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Option<Value>, code: u16) -> Value {
        let (status, answer) = self.server.send(method, path, body).await;
        assert_eq!(status.as_u16(), code, "{method} {path}: {answer}");
        answer
    }

    /// Reads, changes and replaces an object, again when somebody else was faster.
    pub(crate) async fn update(&self, path: &str, change: impl FnMut(&mut Value)) -> Value {
        self.update_at(path, path, change).await
    }

    /// The same when what is replaced is only written.
    pub(crate) async fn update_at(
        &self,
        read: &str,
        path: &str,
        mut change: impl FnMut(&mut Value),
    ) -> Value {
        for _ in 0..20 {
            let mut object = self.get(read).await;
            change(&mut object);
            let (status, answer) = self.server.send("PUT", path, Some(object)).await;
            if status != StatusCode::CONFLICT {
                assert!(status.is_success(), "PUT {path}: {status} {answer}");
                return answer;
            }
        }
        panic!("PUT {path}: somebody else is always faster");
    }

    /// The items of a list.
    pub(crate) async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"].as_array().cloned().unwrap_or_default()
    }

    /// An object or a list once it is as wanted.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a self,
        path: &'a str,
        wanted: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let began = tokio::time::Instant::now();
            loop {
                let (status, object) = self.server.send("GET", path, None).await;
                if status == StatusCode::OK && wanted(&object) {
                    return object;
                }
                assert!(began.elapsed() < PATIENCE, "{caller}: {path} is still {object:#}");
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub(crate) fn gone<'a>(&'a self, path: &'a str) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let began = tokio::time::Instant::now();
            loop {
                let (status, object) = self.server.send("GET", path, None).await;
                if status == StatusCode::NOT_FOUND {
                    return;
                }
                assert!(began.elapsed() < PATIENCE, "{caller}: {path} is still there: {object:#}");
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    }

    /// Waits until a list has this many items.
    #[track_caller]
    pub(crate) fn count<'a>(&'a self, path: &'a str, wanted: usize) -> impl Future<Output = Vec<Value>> + 'a {
        let until = self.until(path, move |list| list["items"].as_array().is_some_and(|i| i.len() == wanted));
        async move { until.await["items"].as_array().cloned().unwrap_or_default() }
    }

    /// A list must be as wanted for a while.
    pub(crate) async fn stays(&self, path: &str, wanted: impl Fn(&Value) -> bool) {
        let began = tokio::time::Instant::now();
        while began.elapsed() < A_WHILE {
            let object = self.get(path).await;
            assert!(wanted(&object), "{path}: {object:#}");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Watches a collection. `path` has a `?` already.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let request = Request::get(format!("{path}&watch=true")).body(Body::empty()).expect("a request");
        let answer = self.server.raw(request).await;
        assert_eq!(answer.status(), 200, "{path}");
        Watch { body: answer.into_body(), read: Vec::new() }
    }

    /// A namespace of its own.
    pub(crate) async fn namespace(&self, name: &str) {
        self.create("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
        let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
        let account = json!({"metadata": {"name": "default"}});
        // The controller may be faster.
        let (status, answer) = self.server.send("POST", &accounts, Some(account)).await;
        assert!(status == 201 || status == 409, "{answer}");
    }
}

/// An open watch.
pub(crate) struct Watch {
    body: Body,
    read: Vec<u8>,
}

impl Watch {
    /// The next event: its type and object.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).expect("an event");
                return (event["type"].as_str().expect("a type").to_owned(), event["object"].take());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time");
            let frame = frame.expect("the watch goes on").expect("a frame");
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }

    /// The next event of this type that is as wanted; others are passed over.
    pub(crate) async fn see(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (found, object) = self.next().await;
            if found == kind && wanted(&object) {
                return object;
            }
        }
    }

    /// Nothing comes for a while.
    pub(crate) async fn silent(&mut self) {
        if let Ok(event) = tokio::time::timeout(A_WHILE, self.next()).await {
            panic!("{event:?}");
        }
    }
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The condition of a type: its status, or nothing.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|c| c["type"] == kind).find_map(|c| c["status"].as_str()).unwrap_or_default()
}

/// A pod template that runs until it is stopped.
pub(crate) fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": pod_spec(&["run"])})
}

/// The spec of a pod that does what [`nodes`] understands.
pub(crate) fn pod_spec(does: &[&str]) -> Value {
    json!({"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "registry.example/image:1", "args": does}]})
}

/// Pods that are Ready and not going.
pub(crate) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True" && pod["metadata"].get("deletionTimestamp").is_none()
}
