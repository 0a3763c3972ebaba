//! Discovery, lists in pages, tables, watches.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::{Cluster, name, template};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn accepting(cluster: &Cluster, method: &str, path: &str, accept: &str, body: &Value) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("accept", accept)
        .header("content-type", "application/json")
        .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
        .expect("a request");
    let (status, text) = cluster.server.text(request).await;
    (status.as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Holds AM-25, AM-27.
#[tokio::test(flavor = "multi_thread")]
async fn aggregated_discovery_has_all_built_ins() {
    let cluster = Cluster::api().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, core) = accepting(&cluster, "GET", "/api", accept, &Value::Null).await;
    let (_, groups) = accepting(&cluster, "GET", "/apis", accept, &Value::Null).await;
    assert_eq!(
        (&core["kind"], &core["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    let mut found = Vec::new();
    for list in [&core, &groups] {
        for group in list["items"].as_array().expect("groups") {
            for version in group["versions"].as_array().expect("versions") {
                for resource in version["resources"].as_array().expect("resources") {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    assert!(!text(&resource["responseKind"]["kind"]).is_empty(), "{resource}");
                    found.push((
                        name(group).to_owned(),
                        text(&version["version"]),
                        text(&resource["resource"]),
                    ));
                }
            }
        }
    }
    for (group, version, resource) in [
        ("", "v1", "namespaces"),
        ("", "v1", "pods"),
        ("apps", "v1", "deployments"),
        ("batch", "v1", "cronjobs"),
        ("autoscaling", "v2", "horizontalpodautoscalers"),
        ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
        ("authentication.k8s.io", "v1", "tokenreviews"),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        ("certificates.k8s.io", "v1", "certificatesigningrequests"),
        ("coordination.k8s.io", "v1", "leases"),
        ("discovery.k8s.io", "v1", "endpointslices"),
        ("events.k8s.io", "v1", "events"),
        ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
        ("networking.k8s.io", "v1", "ingresses"),
        ("node.k8s.io", "v1", "runtimeclasses"),
        ("policy", "v1", "poddisruptionbudgets"),
        ("rbac.authorization.k8s.io", "v1", "roles"),
        ("resource.k8s.io", "v1", "resourceclaims"),
        ("scheduling.k8s.io", "v1", "priorityclasses"),
        ("storage.k8s.io", "v1", "storageclasses"),
    ] {
        let wanted = (group.to_owned(), version.to_owned(), resource.to_owned());
        assert!(found.contains(&wanted), "{wanted:?}");
    }
}

/// Holds AM-32.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_has_numbers() {
    let cluster = Cluster::api().await;
    let version = cluster.get("/version").await;
    for field in ["major", "minor"] {
        assert!(version[field].as_str().is_some_and(|text| text.parse::<u32>().is_ok()), "{version}");
    }
}

/// Holds AM-92.
#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_of_one_revision() {
    const ALL: &str = "/api/v1/namespaces/default/podtemplates";
    const NUMBER: usize = 400;
    let cluster = Cluster::api().await;
    let make = |number: usize| {
        let body = json!({"metadata": {"name": format!("template-{number:04}")}, "template": template("t")});
        let cluster = &cluster;
        async move { cluster.create(ALL, body).await }
    };
    for chunk in (0..NUMBER).collect::<Vec<_>>().chunks(50) {
        futures::future::join_all(chunk.iter().copied().map(make)).await;
    }
    let (mut seen, mut token, mut revision) = (0, String::new(), Value::Null);
    loop {
        let limit = 20 + seen % 7;
        let page = cluster.get(&format!("{ALL}?limit={limit}&continue={token}")).await;
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= limit);
        for (offset, item) in items.iter().enumerate() {
            assert_eq!(name(item), format!("template-{:04}", seen + offset));
        }
        if revision.is_null() {
            revision = page["metadata"]["resourceVersion"].clone();
            // What comes after the first page is in none of them.
            cluster.create(ALL, json!({"metadata": {"name": "a-late-one"}, "template": template("t")})).await;
            cluster.create(ALL, json!({"metadata": {"name": "z-late-one"}, "template": template("t")})).await;
        }
        assert_eq!(page["metadata"]["resourceVersion"], revision);
        seen += items.len();
        let rest = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
        assert_eq!(usize::try_from(rest).expect("small") + seen, NUMBER);
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, NUMBER);
    assert_eq!(cluster.items(ALL).await.len(), NUMBER + 2);
}

/// Holds AM-94.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_table_is_not_acceptable_as_one() {
    let cluster = Cluster::api().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (status, answer) =
        accepting(&cluster, "POST", path, "application/json;as=Table;v=v1;g=meta.k8s.io", &review).await;
    assert_eq!(status, 406, "{answer}");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let (status, answer) =
        accepting(&cluster, "GET", "/api/v1/namespaces/default", table, &Value::Null).await;
    assert_eq!((status, &answer["kind"]), (200, &json!("Table")));
}

/// Several watchers by label; an object that leaves the selector is gone for it, and comes again.
///
/// Holds AM-97, AM-98.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_what_their_selector_selects() {
    let cluster = Cluster::api().await;
    let version =
        cluster.get(MAPS).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let open = async |selector: &str| {
        cluster.watch(&format!("{MAPS}?labelSelector={selector}&resourceVersion={version}")).await
    };
    let (mut a, mut b, mut both) =
        (open("watch%3Da").await, open("watch%3Db").await, open("watch%20in%20(a,b)").await);
    let map = |label: &str| json!({"metadata": {"name": label, "labels": {"watch": label}}, "data": {}});
    cluster.create(MAPS, map("a")).await;
    for watch in [&mut a, &mut both] {
        assert_eq!(watch.next().await.0, "ADDED");
    }
    cluster.patch(&format!("{MAPS}/a"), json!({"data": {"mutation": "1"}})).await;
    for watch in [&mut a, &mut both] {
        let (kind, object) = watch.next().await;
        assert_eq!((kind.as_str(), &object["data"]["mutation"]), ("MODIFIED", &json!("1")));
    }
    cluster.create(MAPS, map("b")).await;
    for watch in [&mut b, &mut both] {
        let (kind, object) = watch.next().await;
        assert_eq!((kind.as_str(), name(&object)), ("ADDED", "b"));
    }
    // It leaves one selector and comes under another: deleted here, added there, modified for both.
    cluster.patch(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"watch": "b"}}})).await;
    let (kind, object) = a.next().await;
    assert_eq!((kind.as_str(), name(&object)), ("DELETED", "a"));
    assert_eq!(b.next().await.0, "ADDED");
    assert_eq!(both.next().await.0, "MODIFIED");
    cluster.patch(&format!("{MAPS}/a"), json!({"data": {"mutation": "2"}})).await;
    a.silent().await;
    cluster.patch(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"watch": "a"}}})).await;
    let (kind, object) = a.next().await;
    assert_eq!((kind.as_str(), &object["data"]["mutation"]), ("ADDED", &json!("2")));
    cluster.delete(&format!("{MAPS}/a")).await;
    assert_eq!(a.next().await.0, "DELETED");
    cluster.delete(&format!("{MAPS}/b")).await;
    b.see("DELETED", |object| name(object) == "b").await;
    b.silent().await;
}

/// Holds AM-95, AM-96.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_where_another_ended() {
    let cluster = Cluster::api().await;
    let map = json!({"metadata": {"name": "m", "labels": {"w": "r"}}, "data": {}});
    let made = cluster.create(MAPS, map).await;
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut watch = cluster.watch(&format!("{MAPS}?labelSelector=w%3Dr&resourceVersion={version}")).await;
    let path = format!("{MAPS}/m");
    cluster.patch(&path, json!({"data": {"n": "1"}})).await;
    let (kind, first) = watch.next().await;
    assert_eq!(
        (kind.as_str(), &first["data"]["n"]),
        ("MODIFIED", &json!("1")),
        "what was before is not told"
    );
    drop(watch);
    cluster.patch(&path, json!({"data": {"n": "2"}})).await;
    cluster.delete(&path).await;
    let seen = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut again = cluster.watch(&format!("{MAPS}?labelSelector=w%3Dr&resourceVersion={seen}")).await;
    let (kind, second) = again.next().await;
    assert_eq!((kind.as_str(), &second["data"]["n"]), ("MODIFIED", &json!("2")));
    assert_eq!(again.next().await.0, "DELETED");
}

/// Holds AM-80.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_quota_is_apart_from_its_spec() {
    let cluster = Cluster::api().await;
    let all = "/api/v1/namespaces/default/resourcequotas";
    cluster
        .create(all, json!({"metadata": {"name": "q"}, "spec": {"hard": {"cpu": "500m", "memory": "500Mi"}}}))
        .await;
    let status = format!("{all}/q/status");
    let updated = cluster
        .update(&status, |quota| quota["status"] = json!({"hard": {"cpu": "500m", "memory": "500Mi"}}))
        .await;
    assert_eq!(updated["status"]["hard"]["cpu"], "500m");
    let patched = cluster
        .patch(&status, json!({"spec": {"hard": {"cpu": "1"}}, "status": {"hard": {"cpu": "600m"}}}))
        .await;
    assert_eq!(
        (&patched["spec"]["hard"]["cpu"], &patched["status"]["hard"]["cpu"]),
        (&json!("500m"), &json!("600m"))
    );
}
