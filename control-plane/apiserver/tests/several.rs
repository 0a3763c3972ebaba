//! Three API servers on one etcd behave as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_apiserver::endpoints::Announcement;
use skep_apiserver::identity_lease;
use skep_registry::cache::{EventType, Filter, WatchItem, WatchOptions};
use skep_registry::{DeleteOptions, Options, Registry, Target, WriteOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::etcd_process::{Cluster, connect};

fn core(resource: &str, name: &str) -> Target {
    Target::new(GroupVersionResource::new("", "v1", resource), "default", name)
}

fn options() -> WriteOptions {
    WriteOptions {
        user: UserInfo::new("tester", ["system:masters"]),
        field_manager: "test".to_owned(),
        ..WriteOptions::default()
    }
}

/// Three registries, each with a connection of its own.
async fn three(cluster: &Cluster, cancel: &CancellationToken) -> Vec<Arc<Registry>> {
    let mut all = Vec::new();
    for _ in 0..3 {
        let storage = connect(cluster.config("")).await;
        let options = Options {
            service_ranges: vec!["10.96.0.0/28".parse().expect("a range")],
            node_ports: 30000..=30011,
            ..Options::default()
        };
        let registry = Registry::start(storage, options, &TaskTracker::new(), cancel.clone()).await;
        all.push(registry.expect("a registry"));
    }
    all
}

/// What a watcher sees until the object `last`.
async fn follow(registry: Arc<Registry>, after: u64) -> Vec<(u64, String, EventType)> {
    let (mut seen, mut at) = (Vec::new(), after);
    loop {
        let options = WatchOptions { resource_version: Some(at), ..WatchOptions::default() };
        let mut watch = registry.watch(&core("configmaps", ""), &options).await.expect("a watch");
        while let Some(item) = watch.next().await {
            let WatchItem::Event(event) = item else { continue };
            at = event.revision();
            seen.push((at, event.object.name.clone(), event.kind));
            if event.object.name == "last" {
                return seen;
            }
        }
    }
}

/// Holds AM-97, AM-99.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_all_servers_see_one_history() {
    let Some(cluster) = Cluster::start(1) else { return };
    let cancel = CancellationToken::new();
    let servers = three(&cluster, &cancel).await;
    let begin = servers[0].list(&core("configmaps", ""), &Default::default()).await.expect("a list").revision;
    let mut watchers = JoinSet::new();
    for server in servers.iter().chain(&servers) {
        watchers.spawn(follow(server.clone(), begin));
    }
    let mut writers = JoinSet::new();
    for (number, server) in servers.iter().cloned().enumerate() {
        writers.spawn(async move {
            for round in 0..30 {
                // All of them write the same objects; who loses a race tries again.
                let name = format!("shared-{}", round % 3);
                let target = core("configmaps", &name);
                let object = json!({"metadata": {"name": name}, "data": {"by": format!("{number}-{round}")}});
                match server.create(&core("configmaps", ""), object.clone(), &options()).await {
                    Err(error) if error.is_already_exists() => {
                        let stored = server.get(&target, None).await;
                        let Ok(stored) = stored else { continue };
                        let mut object = Value::clone(&stored.value);
                        object["data"]["by"] = json!(format!("{number}-{round}"));
                        match server.update(&target, object, &options()).await {
                            Err(error) if error.is_conflict() || error.is_not_found() => {}
                            other => _ = other.expect("updated"),
                        }
                    }
                    other => _ = other.expect("created"),
                }
                // What this server has written, the next one shows at once.
                let mine = format!("mine-{number}-{round}");
                let object = json!({"metadata": {"name": mine}});
                server.create(&core("configmaps", ""), object, &options()).await.expect("created");
            }
        });
    }
    writers.join_all().await;
    let last = json!({"metadata": {"name": "last"}});
    servers[1].create(&core("configmaps", ""), last, &options()).await.expect("created");
    // A list that asks for nothing special is as new as the last write, wherever it was made.
    for server in &servers {
        let found = server.get(&core("configmaps", "last"), None).await;
        assert!(found.is_ok(), "a server does not show what another has written");
    }
    let mut histories = Vec::new();
    while let Some(history) =
        tokio::time::timeout(Duration::from_secs(30), watchers.join_next()).await.expect("watchers end")
    {
        histories.push(history.expect("no panic"));
    }
    assert!(histories[0].len() >= 90, "{}", histories[0].len());
    assert!(histories.windows(2).all(|pair| pair[0] == pair[1]), "the servers tell different histories");
    assert!(histories[0].windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each once");
    cancel.cancel();
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_given_once_and_come_back_everywhere() {
    let Some(cluster) = Cluster::start(1) else { return };
    let cancel = CancellationToken::new();
    let servers = three(&cluster, &cancel).await;
    // Fourteen addresses and twelve ports, over and over, made here and deleted there.
    for round in 0..3 {
        let mut making = JoinSet::new();
        for number in 0..12 {
            let server = servers[number % 3].clone();
            making.spawn(async move {
                for _ in 0..20 {
                    let (target, options) = (core("services", ""), options());
                    match server.create(&target, service(&format!("s{number}")), &options).await {
                        Ok(made) => return made.object,
                        // The pool of this server may lag behind for a moment.
                        Err(error) => assert!(matches!(error.code, 422 | 500), "{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                panic!("no address in round {round}");
            });
        }
        let made = making.join_all().await;
        let addresses: BTreeSet<&str> = made.iter().map(|s| s.text(&["spec", "clusterIP"])).collect();
        let ports: BTreeSet<i64> =
            made.iter().filter_map(|s| s.pointer("/spec/ports/0/nodePort")?.as_i64()).collect();
        assert_eq!((addresses.len(), ports.len()), (12, 12), "round {round}");
        for (number, service) in made.iter().enumerate() {
            let server = &servers[(number + 1 + round) % 3];
            let target = core("services", service.name());
            server.delete(&target, &DeleteOptions::default(), &options()).await.expect("deleted");
        }
    }
    cancel.cancel();
}

async fn addresses(registry: &Registry) -> (Vec<String>, Vec<String>) {
    let slices = GroupVersionResource::new("discovery.k8s.io", "v1", "endpointslices");
    let slice = registry.get(&Target::new(slices, "default", "kubernetes"), None).await;
    let endpoints = registry.get(&core("endpoints", "kubernetes"), None).await;
    // Before the first server has written them.
    let (Ok(slice), Ok(endpoints)) = (slice, endpoints) else { return (Vec::new(), Vec::new()) };
    let in_slice = slice.value.items(&["endpoints"]).iter().map(|endpoint| {
        endpoint.pointer("/addresses/0").and_then(Value::as_str).unwrap_or_default().to_owned()
    });
    let subset =
        endpoints.value.pointer("/subsets/0/addresses").and_then(Value::as_array).expect("addresses");
    (in_slice.collect(), subset.iter().map(|address| address.text(&["ip"]).to_owned()).collect())
}

async fn become_these(registry: &Registry, wanted: &[&str]) {
    let mut found = (Vec::new(), Vec::new());
    for _ in 0..150 {
        found = addresses(registry).await;
        if found.0 == wanted && found.1 == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{found:?} instead of {wanted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubernetes_service_leads_to_the_servers_that_are_there() {
    let Some(cluster) = Cluster::start(1) else { return };
    let cancel = CancellationToken::new();
    let servers = three(&cluster, &cancel).await;
    let names = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    let mut running = BTreeMap::new();
    for (server, name) in servers.iter().zip(names) {
        let address: IpAddr = name.parse().expect("an address");
        let announcement =
            Announcement::timed(address, 6443, Duration::from_millis(500), Duration::from_secs(2));
        let stop = CancellationToken::new();
        let task = tokio::spawn(announcement.run(server.clone(), stop.clone()));
        running.insert(name, (stop, task));
    }
    become_these(&servers[0], &names).await;
    // One that dies says nothing: its lease ends.
    running["192.0.2.2"].1.abort();
    become_these(&servers[2], &["192.0.2.1", "192.0.2.3"]).await;
    // One that stops takes itself out at once.
    let (stop, task) = running.remove("192.0.2.1").expect("a server");
    stop.cancel();
    task.await.expect("no panic");
    assert_eq!(addresses(&servers[2]).await.0, ["192.0.2.3"]);
    // The last one keeps its place.
    let (stop, task) = running.remove("192.0.2.3").expect("a server");
    stop.cancel();
    task.await.expect("no panic");
    assert_eq!(addresses(&servers[2]).await.1, ["192.0.2.3"]);
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_has_a_lease_of_its_own() {
    let Some(cluster) = Cluster::start(1) else { return };
    let cancel = CancellationToken::new();
    let servers = three(&cluster, &cancel).await;
    let leases =
        Target::new(GroupVersionResource::new("coordination.k8s.io", "v1", "leases"), "kube-system", "");
    let over = json!({
        "metadata": {"name": "apiserver-gone", "labels": {"apiserver.kubernetes.io/identity": "kube-apiserver"}},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 1, "renewTime": "2020-01-01T00:00:00.000000Z"},
    });
    servers[0].create(&leases, over, &options()).await.expect("created");
    for (server, port) in servers.iter().zip(6443..) {
        let address = ([192, 0, 2, 1], port).into();
        tokio::spawn(identity_lease::keep(server.clone(), address, cancel.clone()));
    }
    let mut names = Vec::new();
    for _ in 0..100 {
        let found = servers[0].list_all(&leases, &Filter::default()).await.expect("a list");
        names = found.iter().map(|lease| lease.name.clone()).collect::<Vec<_>>();
        if names.len() == 3 && !names.contains(&"apiserver-gone".to_owned()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("apiserver-") && name.len() == 36), "{names:?}");
    cancel.cancel();
}
