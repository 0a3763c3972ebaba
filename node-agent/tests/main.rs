//! The whole agent against a real API server, a real containerd and a network namespace of its own.

mod kubelet;
mod streams;
mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::json;
use skep_client::{DeleteParams, ListParams};
use support::with_cluster;

const NS: &str = "default";

#[test]
fn pods_live_and_end() {
    with_cluster(|cluster| async move {
        let client = cluster.client();
        let begin = Instant::now();
        cluster
            .run_pod(
                "web",
                json!({
                    "terminationGracePeriodSeconds": 1,
                    "initContainers": [{ "name": "first", "image": support::IMAGE, "command": ["sh", "-c", "echo init > /data/x"],
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
                    "containers": [{ "name": "main", "image": support::IMAGE,
                        "command": ["sh", "-c", "cat /data/x; echo ip=$IP host=$(hostname); cat /etc/hosts; trap 'exit 0' TERM; while true; do sleep 0.1; done"],
                        "env": [{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
                        "readinessProbe": { "exec": { "command": ["cat", "/data/x"] }, "periodSeconds": 1 },
                        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
                    "volumes": [{ "name": "data", "emptyDir": {} }],
                }),
            )
            .await;
        let pod = cluster.wait("web", support::ready).await;
        eprintln!("created to ready with an init container: {:?}", begin.elapsed());
        let status = pod.status.clone().unwrap();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let ip = status.pod_ip.clone().unwrap();
        assert!(ip.starts_with("10.244.7."), "{ip}");
        let log = cluster.log(&pod, "main", 0).await;
        assert!(log.contains("init\n") && log.contains(&format!("ip={ip} host=web\n")), "{log}");
        assert!(
            log.contains("Kubernetes-managed hosts file.") && log.contains(&format!("{ip}\tweb")),
            "{log}"
        );

        // The agent goes and comes back: nothing restarts.
        let id = status.container_statuses.as_ref().unwrap()[0].container_id.clone();
        cluster.restart_agent().await;
        cluster
            .run_pod("after", json!({ "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sleep", "1000"] }] }))
            .await;
        cluster.wait("after", support::ready).await;
        let pod = cluster.wait("web", support::ready).await;
        let main = pod.status.unwrap().container_statuses.unwrap().remove(0);
        assert_eq!((main.container_id, main.restart_count), (id, 0));

        let api = client.namespaced::<Pod>(NS);
        for name in ["web", "after"] {
            let begin = Instant::now();
            api.delete(name, &DeleteParams::default().grace(1)).await.unwrap();
            cluster.gone(name).await;
            eprintln!("{name} deleted in {:?}", begin.elapsed());
        }
        assert!(cluster.leftovers().await.is_empty(), "{:?}", cluster.leftovers().await);
    });
}

#[test]
fn jobs_crashes_and_errors_are_told() {
    with_cluster(|cluster| async move {
        let shell = |script: &str| json!(["sh", "-c", script]);
        cluster
            .run_pod("job", json!({ "restartPolicy": "Never", "containers": [
                { "name": "c", "image": support::IMAGE, "command": shell("echo done > /dev/termination-log") }] }))
            .await;
        cluster
            .run_pod("fail", json!({ "restartPolicy": "Never", "containers": [
                { "name": "c", "image": support::IMAGE, "command": shell("echo oh no; exit 3"), "terminationMessagePolicy": "FallbackToLogsOnError" }] }))
            .await;
        cluster
            .run_pod("crash", json!({ "containers": [{ "name": "c", "image": support::IMAGE, "command": shell("exit 1") }] }))
            .await;
        cluster
            .run_pod(
                "missing",
                json!({ "containers": [{ "name": "c", "image": "127.0.0.1:1/no/such:image" }] }),
            )
            .await;
        cluster
            .run_pod("config", json!({ "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sleep", "1"],
                "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "absent", "key": "k" } } }] }] }))
            .await;
        cluster
            .run_pod("sick", json!({ "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sleep", "1000"],
                "livenessProbe": { "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 1 } }] }))
            .await;
        let pod = cluster.wait("job", |p| support::phase(p) == "Succeeded").await;
        let state = support::terminated(&pod);
        assert_eq!((state.reason.as_deref(), state.message.as_deref()), (Some("Completed"), Some("done\n")));
        let pod = cluster.wait("fail", |p| support::phase(p) == "Failed").await;
        let state = support::terminated(&pod);
        assert_eq!((state.exit_code, state.message.as_deref()), (3, Some("oh no\n")));
        let waiting = |reason: &'static str| move |p: &Pod| support::waiting(p).as_deref() == Some(reason);
        cluster.wait("crash", waiting("CrashLoopBackOff")).await;
        cluster
            .wait("missing", |p| {
                matches!(support::waiting(p).as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
            })
            .await;
        cluster.wait("config", waiting("CreateContainerConfigError")).await;
        cluster.wait("sick", |p| support::restarts(p) >= 1).await;
        // Events are written beside the work, and a back-off is told when the second pull is due.
        let wanted = ["Pulled", "Created", "Started", "BackOff", "Failed", "Unhealthy", "Killing"];
        let mut missing = Vec::new();
        for _ in 0..300 {
            let events = cluster.client().namespaced::<Event>(NS).list(&ListParams::default()).await.unwrap();
            let told: std::collections::BTreeSet<_> =
                events.items.iter().filter_map(|e| e.reason.as_deref()).collect();
            missing = wanted.into_iter().filter(|reason| !told.contains(reason)).collect();
            if missing.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(missing.is_empty(), "never told: {missing:?}");
    });
}

#[test]
fn starting_is_quick() {
    with_cluster(|cluster| async move {
        let mut times = Vec::new();
        for n in 0..8 {
            let (name, begin) = (format!("p{n}"), Instant::now());
            cluster
                .run_pod(&name, json!({ "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sleep", "1000"] }] }))
                .await;
            cluster.wait(&name, support::ready).await;
            times.push(begin.elapsed());
        }
        times.sort();
        eprintln!("created to ready: {times:?}");
        let begin = Instant::now();
        for n in 0..20 {
            cluster
                .run_pod(&format!("q{n}"), json!({ "containers": [{ "name": "c", "image": support::IMAGE, "command": ["sleep", "1000"] }] }))
                .await;
        }
        for n in 0..20 {
            cluster.wait(&format!("q{n}"), support::ready).await;
        }
        eprintln!("20 at once: {:?}", begin.elapsed());
        assert!(times[times.len() / 2] < Duration::from_secs(2));
    });
}
