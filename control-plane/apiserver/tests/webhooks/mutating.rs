//! Mutating webhooks.

use serde_json::json;

use super::hook::Hook;
use super::{GROUP, MAPS, map, mutating, rule, start, webhook, with};

/// Holds AM-15.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_run_by_name_and_see_what_earlier_ones_did() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    // The configurations are made in the other order.
    mutating(&server, "b", &[webhook(&hook, "/stage-2", &maps)]).await;
    mutating(&server, "a", &[webhook(&hook, "/stage-1", &maps)]).await;
    let (status, made) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["data"], json!({"start": "yes", "stage-1": "yes", "stage-2": "yes"}));
    let request = &hook.requests("/stage-1")[0];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["namespace"], "default");
    assert_eq!(request["userInfo"]["username"], "tester");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["object"]["kind"], "ConfigMap");
}

/// Holds AM-03.
#[tokio::test(flavor = "multi_thread")]
async fn ten_configurations_are_listed_and_removed_together() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    for at in 0..10 {
        let maps = rule(&["CREATE"], "", "configmaps");
        mutating(&server, &format!("c{at}"), &[webhook(&hook, "/stage-1", &maps)]).await;
    }
    let all = format!("{GROUP}/mutatingwebhookconfigurations?labelSelector=set%3Dx");
    let (_, list) = server.send("GET", &all, None).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10));
    let (_, made) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!(made["data"]["stage-1"], "yes");
    let (status, answer) = server.send("DELETE", &all, None).await;
    assert_eq!(status, 200, "{answer}");
    server.settled().await;
    let (_, made) = server.send("POST", MAPS, Some(map("n"))).await;
    assert_eq!(made["data"], json!({"start": "yes"}));
}

/// Holds AM-05.
#[tokio::test(flavor = "multi_thread")]
async fn rules_may_change() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let path = format!("{GROUP}/mutatingwebhookconfigurations/c");
    mutating(&server, "c", &[webhook(&hook, "/stage-1", &rule(&["CREATE"], "", "configmaps"))]).await;
    let mutated = async |name: &str| {
        let (_, made) = server.send("POST", MAPS, Some(map(name))).await;
        made["data"].get("stage-1").is_some()
    };
    assert!(mutated("a").await);
    let (_, mut config) = server.send("GET", &path, None).await;
    config["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    let (status, answer) = server.send("PUT", &path, Some(config)).await;
    assert_eq!(status, 200, "{answer}");
    server.settled().await;
    assert!(!mutated("b").await);
    let patch = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": "CREATE"}]);
    let (status, answer) =
        server.send_as("PATCH", &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    server.settled().await;
    assert!(mutated("c").await);
}

/// Unknown fields of a patch are dropped and defaults come back.
///
/// Holds AM-20.
#[tokio::test(flavor = "multi_thread")]
async fn defaults_are_filled_in_after_a_patch() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    mutating(&server, "c", &[webhook(&hook, "/init", &rule(&["CREATE"], "", "pods"))]).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (status, pod) = server.send("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(status, 201, "{pod}");
    let init = &pod["spec"]["initContainers"][0];
    assert_eq!(init["terminationMessagePolicy"], "File");
    assert_eq!(init["imagePullPolicy"], "Always");
    assert_eq!(init.get("unheard"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_server_decides_stays_with_it() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    mutating(&server, "c", &[webhook(&hook, "/status", &rule(&["*"], "", "pods"))]).await;
    let pod =
        json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (status, pod) = server.send("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(status, 201, "{pod}");
    assert_eq!(pod["status"]["phase"], "Pending");
    let request = &hook.requests("/status")[0];
    assert_eq!(request["object"]["metadata"].get("uid"), None);
    assert_eq!(request.get("name"), None, "the name is not known yet");
    assert_eq!(request["object"]["metadata"]["generateName"], "p-");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_overtaken_is_called_again() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    // The second stage comes first and does nothing, until it is called again after the first.
    let second = with(webhook(&hook, "/stage-2", &maps), "reinvocationPolicy", json!("IfNeeded"));
    mutating(&server, "c", &[second, webhook(&hook, "/stage-1", &maps)]).await;
    let (status, made) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["data"]["stage-2"], "yes");
    assert_eq!(hook.requests("/stage-2").len(), 2);
    assert_eq!(hook.requests("/stage-1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_does_not_apply_fails_the_request() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    let webhook = with(webhook(&hook, "/broken-patch", &maps), "failurePolicy", json!("Ignore"));
    mutating(&server, "c", &[webhook]).await;
    let (status, answer) = server.send("POST", MAPS, Some(map("m"))).await;
    assert_eq!((status.as_u16(), answer["reason"].as_str()), (500, Some("InternalError")), "{answer}");
}

/// Holds AM-19.
#[tokio::test(flavor = "multi_thread")]
async fn match_conditions_leave_objects_out() {
    let (server, hook) = (start().await, Hook::start(&[]).await);
    let maps = rule(&["CREATE"], "", "configmaps");
    let skip = json!([{"name": "skip-me", "expression": "object.metadata.name != 'skip-me'"}]);
    mutating(&server, "c", &[with(webhook(&hook, "/stage-1", &maps), "matchConditions", skip)]).await;
    for (name, data) in
        [("other", json!({"start": "yes", "stage-1": "yes"})), ("skip-me", json!({"start": "yes"}))]
    {
        let (status, made) = server.send("POST", MAPS, Some(map(name))).await;
        assert_eq!((status.as_u16(), &made["data"]), (201, &data), "{name}: {made}");
    }
    assert_eq!(hook.requests("/stage-1").len(), 1, "one that is left out is not asked about");
}
