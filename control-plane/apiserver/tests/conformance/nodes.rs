//! Nodes that play their pods: what a container would do is in its arguments.
//!
//! `run` runs and is ready; `wait` runs and is not; `exit N` ends with that code; `fail-once` fails in its
//! first life and succeeds in the next; `fail-odd N` ends with N in pods of an odd completion index, with 0 in
//! others; `stay` is like `run` but does not stop when it is told to.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use skep_api::user::UserInfo;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A node that is ready, with this many processors.
pub(crate) fn node(name: &str, cpu: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": "64Gi", "pods": "200", "ephemeral-storage": "100Gi"});
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2100-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    })
}

/// Plays until cancelled.
pub(crate) async fn run(router: Router, cancel: CancellationToken) {
    let nodes = Nodes { router };
    let mut lives: HashMap<String, u32> = HashMap::new();
    let mut addresses = 0_u16;
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        if renewed.elapsed() > Duration::from_secs(5) {
            renewed = tokio::time::Instant::now();
            nodes.renew().await;
        }
        let list = nodes.send("GET", "/api/v1/pods?resourceVersion=0", None).await;
        for pod in list["items"].as_array().into_iter().flatten() {
            if pod["spec"]["nodeName"].as_str().is_some() {
                nodes.play(pod, &mut lives, &mut addresses).await;
            }
        }
    }
}

struct Nodes {
    router: Router,
}

impl Nodes {
    /// Sends JSON; who loses a race reads the pod again in the next round.
    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let kind =
            if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .body(Body::from(body.map(|body| body.to_string()).unwrap_or_default()))
            .expect("a request");
        request.extensions_mut().insert(UserInfo::new("system:node", ["system:masters"]));
        let answer = self.router.clone().oneshot(request).await.expect("infallible");
        let status = answer.status().as_u16();
        let bytes =
            answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if !(200..300).contains(&status) && ![404, 409].contains(&status) {
            eprintln!("{method} {path}: {}", answer["message"]);
        }
        answer
    }

    /// Tells that the nodes live.
    async fn renew(&self) {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
        for lease in self.send("GET", leases, None).await["items"].as_array().into_iter().flatten() {
            let path = format!("{leases}/{}", lease["metadata"]["name"].as_str().unwrap_or_default());
            self.send("PATCH", &path, Some(json!({"spec": {"renewTime": now}}))).await;
        }
    }

    async fn play(&self, pod: &Value, lives: &mut HashMap<String, u32>, addresses: &mut u16) {
        let meta = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{}/pods/{}", meta("namespace"), meta("name"));
        let args = &pod["spec"]["containers"][0]["args"];
        let arg = |index: usize| args[index].as_str().unwrap_or_default();
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        if pod["metadata"].get("deletionTimestamp").is_some() {
            if arg(0) != "stay" {
                let precondition = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": meta("uid")}});
                self.send("DELETE", &path, Some(precondition)).await;
            }
            return;
        }
        if ["Succeeded", "Failed"].contains(&phase)
            || (phase == "Running" && !arg(0).starts_with("fail-once"))
        {
            return;
        }
        let life = lives.entry(meta("uid").to_owned()).or_default();
        let index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str();
        let odd = index.and_then(|index| index.parse::<u32>().ok()).is_some_and(|index| index % 2 == 1);
        let code = match arg(0) {
            "exit" => Some(arg(1).parse().unwrap_or(0)),
            "fail-odd" => Some(if odd { arg(1).parse().unwrap_or(1) } else { 0 }),
            "fail-once" if *life > 0 => Some(0),
            "fail-once" => Some(1),
            _ => None,
        };
        *life += 1;
        let restarts = pod["spec"]["restartPolicy"] != "Never";
        let (phase, ready) = match code {
            None => ("Running", arg(0) != "wait"),
            Some(0) if pod["spec"]["restartPolicy"] != "Always" => ("Succeeded", false),
            Some(_) if restarts => ("Running", false),
            Some(_) => ("Failed", false),
        };
        *addresses += 1;
        let new = format!("10.244.{}.{}", *addresses / 250, *addresses % 250 + 1);
        let address = pod["status"]["podIP"].as_str().unwrap_or(&new);
        let now = "2026-01-01T00:00:00Z";
        let state = match code {
            None => json!({"running": {"startedAt": now}}),
            Some(code) if phase == "Running" => {
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": format!("{code}")}})
            }
            Some(code) => json!({"terminated": {"exitCode": code, "startedAt": now, "finishedAt": now,
                "reason": if code == 0 { "Completed" } else { "Error" }}}),
        };
        let flag = if ready { "True" } else { "False" };
        let conditions: Vec<Value> = ["Initialized", "PodReadyToStartContainers"]
            .map(|kind| (kind, "True"))
            .into_iter()
            .chain([("Ready", flag), ("ContainersReady", flag)])
            .map(|(kind, status)| json!({"type": kind, "status": status, "lastTransitionTime": now}))
            .collect();
        let status = json!({
            "phase": phase,
            "hostIP": "192.0.2.9",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": [{
                "name": pod["spec"]["containers"][0]["name"], "image": "i", "imageID": "i", "ready": ready,
                "started": ready, "restartCount": *life - 1, "state": state,
            }],
        });
        let patch = json!({"metadata": {"uid": meta("uid")}, "status": status});
        self.send("PATCH", &format!("{path}/status"), Some(patch)).await;
    }
}
