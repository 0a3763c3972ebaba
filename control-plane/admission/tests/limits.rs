//! LimitRanger and ResourceQuota.

use serde_json::{Value, json};
use skep_admission::Operation;
use skep_api::object::ObjectExt;

use crate::{Cluster, create, message, pod, request};

fn range(limits: &Value) -> Value {
    json!({ "metadata": { "name": "limits", "namespace": "team" }, "spec": { "limits": limits } })
}

fn quota(hard: &Value) -> Value {
    json!({ "metadata": { "name": "quota", "namespace": "team" }, "spec": { "hard": hard } })
}

fn sized(name: &str, requests: &Value, limits: &Value) -> Value {
    let mut pod = pod();
    pod.set_name(name);
    pod["spec"]["containers"][0]["resources"] = json!({ "requests": requests, "limits": limits });
    pod
}

#[tokio::test]
async fn defaults_fill_what_is_left_out() {
    let limits = range(&json!([{
        "type": "Container",
        "default": { "cpu": "500m", "memory": "64Mi" },
        "defaultRequest": { "cpu": "100m", "memory": "32Mi" },
    }]));
    let admit = |pod| Cluster::new().with("limitranges", limits.clone()).run(create("pods", pod));
    let admitted = admit(pod()).await.expect("is admitted");
    let resources = &admitted["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"], json!({ "cpu": "100m", "memory": "32Mi" }));
    assert_eq!(resources["limits"], json!({ "cpu": "500m", "memory": "64Mi" }));
    assert!(admitted.annotation("kubernetes.io/limit-ranger").is_some());
    let admitted = admit(sized("a", &json!({ "cpu": "200m" }), &json!({ "memory": "48Mi" }))).await;
    let resources = admitted.expect("is admitted")["spec"]["containers"][0]["resources"].clone();
    assert_eq!(resources["requests"], json!({ "cpu": "200m", "memory": "48Mi" }));
    assert_eq!(resources["limits"], json!({ "cpu": "500m", "memory": "48Mi" }));
}

#[tokio::test]
async fn bounds_are_kept_and_complaints_joined() {
    let limits = range(&json!([
        { "type": "Container", "min": { "cpu": "100m" }, "max": { "cpu": "1", "memory": "1Gi" } },
        { "type": "Pod", "max": { "cpu": "1500m" } },
    ]));
    let admit = |pod| Cluster::new().with("limitranges", limits.clone()).run(create("pods", pod));
    let fine = json!({ "cpu": "1", "memory": "1Gi" });
    admit(sized("a", &fine, &fine)).await.expect("is admitted");
    let small = admit(sized("a", &json!({ "cpu": "50m", "memory": "1Gi" }), &fine)).await;
    assert_eq!(
        message(small),
        r#"pods "a" is forbidden: minimum cpu usage per Container is 100m, but request is 50m"#
    );
    let large = admit(sized("a", &fine, &json!({ "cpu": "2", "memory": "2Gi" }))).await;
    assert_eq!(
        message(large),
        r#"pods "a" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum memory usage per Container is 1Gi, but limit is 2Gi, maximum cpu usage per Pod is 1500m, but limit is 2]"#
    );
}

#[tokio::test]
async fn quotas_count_what_is_there() {
    let hard = quota(&json!({ "pods": "2", "requests.cpu": "1", "services.nodeports": "1" }));
    let cpu = |amount: &str| json!({ "cpu": amount });
    let none = json!({});
    let cluster = || {
        Cluster::new()
            .with("resourcequotas", hard.clone())
            .with("pods", sized("one", &cpu("600m"), &none))
            .with("pods", {
                let mut done = sized("done", &cpu("5"), &none);
                done.set(&["status", "phase"], "Succeeded");
                done
            })
    };
    cluster().run(create("pods", sized("two", &cpu("400m"), &none))).await.expect("fits");
    assert_eq!(
        message(cluster().run(create("pods", sized("two", &cpu("500m"), &none))).await),
        r#"pods "two" is forbidden: exceeded quota: quota, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"#
    );
    assert_eq!(
        message(cluster().run(create("pods", pod())).await),
        r#"pods "web" is forbidden: failed quota: quota: must specify requests.cpu"#
    );
    let service = |kind: &str| {
        json!({
            "metadata": { "name": "s", "namespace": "team" },
            "spec": { "type": kind, "ports": [{ "port": 1 }, { "port": 2 }] },
        })
    };
    cluster().run(create("services", service("ClusterIP"))).await.expect("fits");
    let refused = message(cluster().run(create("services", service("NodePort"))).await);
    assert!(refused.contains("requested: services.nodeports=2, used: services.nodeports=0"), "{refused}");
    // What does not grow is not held against a quota that is full.
    let mut unchanged = request(Operation::Update, "pods", sized("one", &cpu("600m"), &none));
    unchanged.old_object = unchanged.object.clone();
    cluster().with("pods", sized("x", &cpu("9"), &none)).run(unchanged).await.expect("may stay");
}

#[tokio::test]
async fn scopes_choose_pods() {
    let mut scoped = quota(&json!({ "pods": "0" }));
    scoped.set(&["spec", "scopes"], json!(["BestEffort"]));
    let cluster = || Cluster::new().with("resourcequotas", scoped.clone());
    let burstable = sized("a", &json!({ "cpu": "1" }), &json!({}));
    cluster().run(create("pods", burstable)).await.expect("is out of scope");
    assert!(message(cluster().run(create("pods", pod())).await).contains("exceeded quota"));
    let by_count = quota(&json!({ "count/configmaps": "0" }));
    let object = json!({ "metadata": { "name": "c", "namespace": "team" } });
    let refused = Cluster::new().with("resourcequotas", by_count).run(create("configmaps", object)).await;
    assert!(message(refused).contains("limited: count/configmaps=0"));
}
