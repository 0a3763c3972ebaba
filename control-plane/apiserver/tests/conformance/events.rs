//! Events, in both their groups: one store, two shapes.

use serde_json::{Value, json};

use super::{Cluster, name};

const CORE: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn event(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"testevent-set": label}}, "regarding": {"namespace": "default"},
        "note": "this is a test", "reason": "Test", "type": "Normal", "action": "Do", "reportingController": "test-controller",
        "reportingInstance": "test-node", "eventTime": "2026-01-01T00:00:00.000000Z"})
}

fn core_event(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"testevent-set": label}}, "involvedObject": {"namespace": "default"},
        "message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1})
}

/// Holds IN-01, IN-02.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_newer_group() {
    let cluster = Cluster::api().await;
    cluster.create(NEW, event("a", "set")).await;
    let other = cluster.get(&format!("{CORE}/a")).await;
    assert_eq!(
        (&other["message"], &other["reportingComponent"]),
        (&json!("this is a test"), &json!("test-controller"))
    );
    for path in [NEW, "/apis/events.k8s.io/v1/events"] {
        assert_eq!(
            cluster.items(&format!("{path}?fieldSelector=reportingController%3Dtest-controller")).await.len(),
            1,
            "{path}"
        );
    }
    let path = format!("{NEW}/a");
    // In this view the series goes on and the rest stays as it was; in that of core the message may change.
    let series = |count: u32| json!({"count": count, "lastObservedTime": "2026-01-01T00:01:00.000000Z"});
    let patched = cluster.patch(&path, json!({"series": series(2)})).await;
    assert_eq!(patched["series"], series(2));
    cluster.refused("PATCH", &path, Some(json!({"note": "another"})), 422).await;
    let series = series(100);
    let updated = cluster.update(&path, |event| event["series"] = series.clone()).await;
    assert_eq!(updated["series"], series);
    assert_eq!(cluster.get(&format!("{CORE}/a")).await["series"]["count"], 100);
    cluster.delete(&path).await;
    cluster.refused("GET", &path, None, 404).await;
    cluster.refused("GET", &format!("{CORE}/a"), None, 404).await;
    for number in 0..3 {
        cluster.create(NEW, event(&format!("e{number}"), "true")).await;
    }
    cluster.create(NEW, event("stays", "no")).await;
    cluster.ok("DELETE", &format!("{NEW}?labelSelector=testevent-set%3Dtrue"), None).await;
    assert_eq!(cluster.items(NEW).await.iter().map(name).collect::<Vec<_>>(), ["stays"]);
}

/// Holds IN-03, IN-04.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_core() {
    let cluster = Cluster::api().await;
    cluster.create(CORE, core_event("a", "one")).await;
    let everywhere = "/api/v1/events?labelSelector=testevent-set%3Done";
    assert_eq!(cluster.items(everywhere).await.len(), 1);
    let path = format!("{CORE}/a");
    let patched = cluster.patch(&path, json!({"message": "This is a test event - patched"})).await;
    assert_eq!(patched["message"], "This is a test event - patched");
    let updated = cluster
        .update(&path, |event| {
            event["series"] = json!({"count": 100, "lastObservedTime": "2026-01-01T00:01:00.000000Z"});
        })
        .await;
    assert_eq!(updated["series"]["count"], 100);
    cluster.delete(&path).await;
    assert!(cluster.items(everywhere).await.is_empty());
    for number in 0..3 {
        cluster.create(CORE, core_event(&format!("e{number}"), "true")).await;
    }
    let set = format!("{CORE}?labelSelector=testevent-set%3Dtrue");
    assert_eq!(cluster.items(&set).await.len(), 3);
    cluster.ok("DELETE", &set, None).await;
    assert!(cluster.items(&set).await.is_empty());
}
