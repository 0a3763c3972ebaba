//! Service addresses and node ports.

use serde_json::{Value, json};
use skep_registry::{DeleteOptions, Patch};

use crate::support::{World, core, options};

fn service(name: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test]
async fn two_servers_never_give_one_address_twice() {
    let world = World::new(usize::MAX).await;
    let another = world.another().await;
    let mut all = tokio::task::JoinSet::new();
    for index in 0..12 {
        let registry = if index % 2 == 0 { world.registry.clone() } else { another.clone() };
        all.spawn(async move {
            let object = service(&format!("s{index}"), &json!({}));
            let written = registry.create(&core("services", "n", ""), object, &options()).await;
            written.expect("created").object["spec"]["clusterIP"].as_str().expect("an address").to_owned()
        });
    }
    let mut given = Vec::new();
    while let Some(address) = all.join_next().await {
        given.push(address.expect("no panic"));
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 12);
}

#[tokio::test]
async fn what_is_given_comes_back_on_delete() {
    let world = World::new(usize::MAX).await;
    let collection = core("services", "n", "");
    let wanted =
        json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 1, "nodePort": 30003}]});
    let made = world.create(&collection, service("a", &wanted)).await;
    assert_eq!(made["spec"]["clusterIPs"], json!(["10.96.0.9"]));
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let error = world.registry.create(&collection, service("b", &wanted), &options()).await;
    let error = error.expect_err("both are taken");
    assert!(error.message.contains("provided IP is already allocated"), "{error}");
    assert!(error.message.contains("provided port is already allocated"), "{error}");
    let target = core("services", "n", "a");
    world.registry.delete(&target, &DeleteOptions::default(), &options()).await.expect("deleted");
    world.create(&collection, service("b", &wanted)).await;
}

#[tokio::test]
async fn an_update_keeps_what_the_client_leaves_out() {
    let world = World::new(usize::MAX).await;
    let collection = core("services", "n", "");
    let made = world.create(&collection, service("a", &json!({"type": "NodePort"}))).await;
    let port = made["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.is_u64(), "{made}");
    let target = core("services", "n", "a");
    let sent = service("a", &json!({"type": "NodePort"}));
    let updated = world.registry.update(&target, sent, &options()).await.expect("updated").object;
    assert_eq!(updated["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(updated["spec"]["ports"][0]["nodePort"], port);
    let plain = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    let plain = world.registry.patch(&target, &plain, &options()).await.expect("patched").object;
    assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
    let takes = json!({"type": "NodePort", "ports": [{"port": 2, "nodePort": port}]});
    world.create(&collection, service("b", &takes)).await;
}
