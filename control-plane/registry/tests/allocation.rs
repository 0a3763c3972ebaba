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

fn range(name: &str, cidr: &str, ready: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

/// Writes a ServiceCIDR with its status, and waits until the pools know it.
async fn add_range(world: &World, name: &str, cidr: &str, ready: &str) {
    let target = skep_registry::Target::new(
        skep_api::resource::GroupVersionResource::new("networking.k8s.io", "v1", "servicecidrs"),
        "",
        name,
    );
    let object = range(name, cidr, ready);
    world.registry.create(&target, object.clone(), &options()).await.expect("created");
    world.registry.update(&target.below("status"), object, &options()).await.expect("told");
}

#[tokio::test]
async fn an_address_is_an_object_of_its_service() {
    let world = World::new(usize::MAX).await;
    let made = world.create(&core("services", "n", ""), service("a", &json!({}))).await;
    let address = made["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let addresses = skep_api::resource::GroupVersionResource::new("networking.k8s.io", "v1", "ipaddresses");
    let target = skep_registry::Target::new(addresses.clone(), "", address.as_str());
    let found = world.registry.get(&target, None).await.expect("an object");
    assert_eq!(
        found.value["spec"]["parentRef"],
        json!({"group": "", "resource": "services", "namespace": "n", "name": "a"})
    );
    assert_eq!(found.value["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    // What somebody writes there is taken as well. The range is small: the service may have drawn either.
    let other = if address == "10.96.0.12" { "10.96.0.11" } else { "10.96.0.12" };
    let theirs =
        json!({"metadata": {"name": other}, "spec": {"parentRef": {"resource": "things", "name": "t"}}});
    let hand = skep_registry::Target::new(addresses, "", other);
    world.registry.create(&hand, theirs, &options()).await.expect("created");
    let wanted = service("b", &json!({"clusterIP": other}));
    // Whether the pool knows it yet or not: the key decides.
    let error = world.registry.create(&core("services", "n", ""), wanted, &options()).await;
    let message = error.expect_err("taken").message;
    assert!(message.contains("already allocated"), "{message}");
    world
        .registry
        .delete(&core("services", "n", "a"), &DeleteOptions::default(), &options())
        .await
        .expect("gone");
    assert!(world.registry.get(&target, None).await.is_err_and(|error| error.is_not_found()));
}

#[tokio::test]
async fn ranges_that_are_ready_give_addresses() {
    let world = World::new(usize::MAX).await;
    let collection = core("services", "n", "");
    let wanted = |name: &str| service(name, &json!({"clusterIP": "192.0.2.3"}));
    let refused =
        world.registry.create(&collection, wanted("a"), &options()).await.expect_err("no such range");
    assert!(refused.message.contains("is not in the valid range"), "{refused}");
    add_range(&world, "waiting", "198.51.100.0/29", "False").await;
    add_range(&world, "more", "192.0.2.0/29", "True").await;
    let made = async {
        loop {
            if let Ok(made) = world.registry.create(&collection, wanted("a"), &options()).await {
                return made.object;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let made = tokio::time::timeout(std::time::Duration::from_secs(20), made).await.expect("in time");
    assert_eq!(made["spec"]["clusterIP"], "192.0.2.3");
    let waiting = service("b", &json!({"clusterIP": "198.51.100.3"}));
    let refused = world.registry.create(&collection, waiting, &options()).await.expect_err("not ready");
    assert!(refused.message.contains("is not in the valid range"), "{refused}");
}
