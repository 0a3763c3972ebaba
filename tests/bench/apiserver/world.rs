//! A server in this process, over an embedded store or over etcd.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::Chain;
use skep_auth::authorization::AlwaysAllow;
use skep_registry::{Options, Registry, Target, WriteOptions};
use skep_storage::embedded::{self, Embedded};
use skep_storage::{Op, Storage, TxnRequest};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// A running server.
pub(crate) struct World {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) api: ApiServer,
    pub(crate) router: Router,
    cancel: CancellationToken,
}

impl World {
    /// A server over an embedded store in a folder.
    pub(crate) async fn embedded(folder: &Path) -> Result<Self> {
        let storage = Embedded::open(folder.join("store.redb"), embedded::Options::default()).await?;
        Self::over(storage).await
    }

    /// A server over a store.
    pub(crate) async fn over(storage: Arc<dyn Storage>) -> Result<Self> {
        let cancel = CancellationToken::new();
        let registry =
            Registry::start(storage.clone(), Options::default(), &TaskTracker::new(), cancel.clone()).await?;
        let mut config = Config::new(registry, Chain::new(Vec::new(), true), Arc::new(AlwaysAllow));
        // The clients here are more than one would let in.
        config.max_reads = 10_000;
        let api = ApiServer::build(config);
        Ok(Self { storage, router: api.router(), api, cancel })
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        self.api.registry()
    }

    /// Puts pods into the store, many in a transaction, and waits for the caches.
    pub(crate) async fn fill(&self, count: usize) -> Result<()> {
        for from in (0..count).step_by(100) {
            let puts = (from..count.min(from + 100)).map(|index| Op::Put {
                key: format!("/registry/pods/default/pod-{index:05}"),
                value: pod(index).to_string().into(),
                lease: 0,
            });
            let request = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
            self.storage.txn(request).await?;
        }
        let list = self.registry().list_all(&pods(), &skep_registry::cache::Filter::default()).await?;
        ensure!(list.len() == count, "{} pods of {count}", list.len());
        Ok(())
    }

    /// One request in process; the length of the answer.
    pub(crate) async fn get(&self, path: &str, accept: &str) -> Result<usize> {
        self.ask(path, accept, &[]).await
    }

    /// One request with more headers.
    pub(crate) async fn ask(
        &self,
        path: &str,
        accept: &str,
        headers: &[(HeaderName, &str)],
    ) -> Result<usize> {
        let mut request = Request::get(path).header("accept", accept).body(Body::empty())?;
        for (name, value) in headers {
            request.headers_mut().insert(name.clone(), HeaderValue::from_str(value)?);
        }
        request.extensions_mut().insert(admin());
        let answer = self.router.clone().oneshot(request).await.context("infallible")?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        let (mut body, mut size) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(size)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.api.close();
        self.cancel.cancel();
    }
}

/// Who asks: exempt from queues.
pub(crate) fn admin() -> UserInfo {
    UserInfo::new("bench", ["system:masters"])
}

/// How the benchmark writes.
pub(crate) fn options() -> WriteOptions {
    WriteOptions { user: admin(), field_manager: "bench".to_owned(), ..WriteOptions::default() }
}

/// The collection of pods.
pub(crate) fn pods() -> Target {
    Target::new(GroupVersionResource::new("", "v1", "pods"), "default", "")
}

/// The collection of config maps.
pub(crate) fn maps() -> Target {
    Target::new(GroupVersionResource::new("", "v1", "configmaps"), "default", "")
}

/// A config map of about half a kilobyte.
pub(crate) fn map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}},
        "data": {"text": "x".repeat(256)},
    })
}

/// A pod as a Deployment makes and a node reports it: about two and a half kilobytes.
pub(crate) fn pod(index: usize) -> Value {
    let name = format!("pod-{index:05}");
    let time = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": time});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "generateName": "web-6d4b75cb6d-",
            "namespace": "default",
            "uid": format!("7f1b6a2e-0000-4000-8000-{index:012}"),
            "creationTimestamp": time,
            "labels": {"app": "web", "pod-template-hash": "6d4b75cb6d", "tier": "front", "ring": format!("r{}", index % 100)},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4b75cb6d",
                "uid": "11111111-2222-4333-8444-555555555555", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ]}}],
            "containers": [{
                "name": "web", "image": "registry.example/web:1.2.3", "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "MODE", "value": "production"}, {"name": "LEVEL", "value": "info"}],
                "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
                "livenessProbe": {"httpGet": {"path": "/live", "port": 8080, "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "volumeMounts": [{"name": "kube-api-access", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default",
            "nodeName": format!("node-{:04}", index % 1000),
            "securityContext": {}, "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {
            "phase": "Running",
            "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
            "hostIP": "192.0.2.7", "podIP": "10.244.3.4", "podIPs": [{"ip": "10.244.3.4"}], "startTime": time,
            "containerStatuses": [{
                "name": "web", "state": {"running": {"startedAt": time}}, "lastState": {}, "ready": true,
                "restartCount": 0, "image": "registry.example/web:1.2.3", "imageID": "registry.example/web@sha256:0123456789abcdef",
                "containerID": "containerd://0123456789abcdef0123456789abcdef", "started": true,
            }],
            "qosClass": "Burstable",
        },
    })
}

/// A runtime of so many threads.
pub(crate) fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    Ok(match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build()?,
    })
}

/// The processor time this process has used.
pub(crate) fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields 14 and 15, in hundredths of a second; the third is the first behind the name.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}
