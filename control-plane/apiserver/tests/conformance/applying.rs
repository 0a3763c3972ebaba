//! From client-side apply to server-side apply and back, with every kubectl there is: who owns what on the way, and
//! what disappears when it is left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::kubectl::{Kubectl, each};

/// Who applies on the client's side: a map with this data.
const CLIENT: &str = "kubectl-client-side-apply";

fn map(data: Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}).to_string()
}

/// The managers of the map by name and operation, with the keys of its data that they own.
async fn owners(kubectl: &Kubectl) -> BTreeMap<String, Vec<String>> {
    let found = kubectl.cluster.get(&format!("{}/m", kubectl.path("configmaps"))).await;
    let entries = found["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owned = entries.iter().filter_map(|entry| {
        let fields = entry["fieldsV1"]["f:data"].as_object()?;
        let keys = fields.keys().filter_map(|key| key.strip_prefix("f:")).map(str::to_owned).collect();
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Some((format!("{} {}", text("manager"), text("operation")), keys))
    });
    owned.collect()
}

async fn owned(kubectl: &Kubectl, wanted: &[(&str, &str, &[&str])]) {
    let wanted: BTreeMap<String, Vec<String>> = wanted
        .iter()
        .map(|(manager, operation, keys)| {
            (format!("{manager} {operation}"), keys.iter().map(|key| (*key).to_owned()).collect())
        })
        .collect();
    assert_eq!(owners(kubectl).await, wanted, "{}", kubectl.program.display());
}

async fn data(kubectl: &Kubectl) -> Value {
    kubectl.cluster.get(&format!("{}/m", kubectl.path("configmaps"))).await["data"].clone()
}

/// What client-side apply remembers.
async fn last_applied(kubectl: &Kubectl) -> Value {
    let found = kubectl.cluster.get(&format!("{}/m", kubectl.path("configmaps"))).await;
    let text = found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    serde_json::from_str::<Value>(text.unwrap_or("null")).expect("JSON")["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_applied_the_server_applies_on() {
    each(async |kubectl| {
        let client = async |data: Value| kubectl.ok(&["apply", "-f", "-"], &map(data)).await;
        let server = async |data: Value| {
            let text = kubectl.ok(&["apply", "--server-side", "-f", "-"], &map(data)).await;
            assert!(text.contains("serverside-applied"), "{text}");
        };
        client(json!({"a": "1", "b": "2"})).await;
        owned(kubectl, &[(CLIENT, "Update", &["a", "b"])]).await;
        // No conflict with oneself; what is left out goes, though another manager's name is on it.
        server(json!({"a": "2"})).await;
        assert_eq!(data(kubectl).await, json!({"a": "2"}));
        owned(kubectl, &[("kubectl", "Apply", &["a"])]).await;
        assert_eq!(last_applied(kubectl).await, json!({"a": "2"}), "for the way back");

        // Back: the three-way merge begins at what the server applied.
        client(json!({"a": "2", "c": "3"})).await;
        owned(kubectl, &[("kubectl", "Apply", &["a"]), (CLIENT, "Update", &["c"])]).await;
        client(json!({"c": "4"})).await;
        assert_eq!(data(kubectl).await, json!({"c": "4"}));
        owned(kubectl, &[(CLIENT, "Update", &["c"])]).await;
        // And again.
        server(json!({"c": "5", "d": "6"})).await;
        owned(kubectl, &[("kubectl", "Apply", &["c", "d"])]).await;

        // Others are asked first.
        let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
        let (code, text) = kubectl.run(&other, &map(json!({"c": "7"}))).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("conflict with \"kubectl\"") && text.contains(".data.c"), "{text}");
        let forced = ["apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-"];
        kubectl.ok(&forced, &map(json!({"c": "7"}))).await;
        owned(kubectl, &[("kubectl", "Apply", &["d"]), ("other", "Apply", &["c"])]).await;
        let (code, text) = kubectl.run(&["apply", "--server-side", "-f", "-"], &map(json!({"c": "8"}))).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("conflict with \"other\""), "{text}");
        // The same value is no conflict: both own it.
        server(json!({"c": "7"})).await;
        owned(kubectl, &[("kubectl", "Apply", &["c"]), ("other", "Apply", &["c"])]).await;
        assert_eq!(data(kubectl).await, json!({"c": "7"}));
        // On trial nothing moves.
        let text = kubectl
            .ok(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &map(json!({"e": "1"})))
            .await;
        assert!(text.contains("server dry run"), "{text}");
        owned(kubectl, &[("kubectl", "Apply", &["c"]), ("other", "Apply", &["c"])]).await;
    })
    .await;
}

/// A deployment of the client's side: defaults and lists with keys take the same way.
#[tokio::test(flavor = "multi_thread")]
async fn lists_with_keys_move_to_the_server() {
    each(async |kubectl| {
        let deployment = |containers: Value, replicas: Value| {
            let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}});
            if !replicas.is_null() {
                object["spec"]["replicas"] = replicas;
            }
            object.to_string()
        };
        let container = |name: &str, env: Value| json!({"name": name, "image": "registry.example/i:1", "args": ["run"], "env": env});
        let one = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
        let both = json!([container("main", one), container("side", json!([]))]);
        kubectl.ok(&["apply", "-f", "-"], &deployment(both, json!(1))).await;
        kubectl.ok(&["scale", "deployment", "d", "--replicas=2"], "").await;
        // Replicas are the scaler's now: who leaves them out leaves them alone.
        let less = json!([container("main", json!([{"name": "A", "value": "1"}]))]);
        kubectl.ok(&["apply", "--server-side", "-f", "-"], &deployment(less, Value::Null)).await;
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/d", kubectl.namespace);
        let found = kubectl.cluster.get(&path).await;
        assert_eq!(found["spec"]["replicas"], 2, "{found:#}");
        let containers = found["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        assert_eq!(containers.len(), 1, "{found:#}");
        assert_eq!(containers[0]["env"], json!([{"name": "A", "value": "1"}]));
        let managers: Vec<&str> = found["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["manager"].as_str())
            .collect();
        assert!(!managers.contains(&CLIENT), "{managers:?}");
    })
    .await;
}
