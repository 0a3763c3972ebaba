//! The collector over a real API server, against a model: random ownership graphs and deletions leave
//! exactly the survivors that the rules say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::{ConfigMap, Event};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::json;
use skep_api::user::UserInfo;
use skep_apiserver::{ApiServer, Config};
use skep_auth::authentication::Chain;
use skep_auth::authorization::AlwaysAllow;
use skep_client::{Api, DeleteParams, Propagation};
use skep_registry::{Options, Registry};
use skep_storage::embedded::{self, Embedded};

use super::*;

/// A server with nothing but the collector at work.
struct World {
    client: Client,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let storage = Embedded::open(dir.path().join("store.redb"), embedded::Options::default()).await;
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let registry =
            Registry::start(storage.expect("a store"), Options::default(), &tracker, cancel.clone()).await;
        let config =
            Config::new(registry.expect("a registry"), Chain::new(Vec::new(), true), Arc::new(AlwaysAllow));
        let api = ApiServer::build(config);
        let client = Client::in_process(api.router(), UserInfo::new("system:gc", ["system:masters"]));
        let recorder = Recorder::spawn(client.clone(), "gc", "", &tracker, cancel.clone());
        let collector = GarbageCollector::new(&client, &recorder);
        let stop = cancel.clone();
        tracker.spawn(async move { collector.run(&stop).await });
        Self { client, cancel, _dir: dir }
    }

    fn maps(&self, namespace: &str) -> Api<ConfigMap> {
        self.client.namespaced(namespace)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn map(name: &str, owners: &serde_json::Value) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "ownerReferences": owners}});
    serde_json::from_value(object).expect("a ConfigMap")
}

fn owner(name: &str, uid: &str, blocks: bool) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": blocks})
}

/// Waits until these and only these are there, and no later deletion comes.
async fn settle(maps: &Api<ConfigMap>, wanted: &BTreeSet<String>) -> Result<(), String> {
    let mut last = BTreeSet::new();
    for _ in 0..400 {
        let list = maps.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        last = list.items.into_iter().filter_map(|map| map.metadata.name).collect();
        if last == *wanted {
            return Ok(());
        }
        if !wanted.is_subset(&last) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Err(format!("there is {last:?}, there should be {wanted:?}"))
}

/// Who owns whom; an owner past the end never existed.
#[derive(Clone, Debug)]
struct Case {
    owners: Vec<BTreeMap<usize, bool>>,
    deletions: Vec<(usize, u8)>,
}

const MOST: usize = 7;

fn cases() -> impl Strategy<Value = Case> {
    let owners = prop::collection::btree_map(0..MOST + 1, any::<bool>(), 0..3);
    let owners = prop::collection::vec(owners, MOST);
    let deletions = prop::collection::vec((0..MOST, 0_u8..3), 1..4);
    (owners, deletions).prop_map(|(mut owners, deletions)| {
        for (own, owners) in owners.iter_mut().enumerate() {
            owners.remove(&own);
        }
        Case { owners, deletions }
    })
}

/// The rules.
struct Model {
    alive: BTreeMap<usize, BTreeSet<usize>>,
}

impl Model {
    /// An object whose owners are all gone goes; of one that has another, the references to those go.
    fn collect(&mut self) {
        loop {
            let here: BTreeSet<usize> = self.alive.keys().copied().collect();
            let orphaned: Vec<usize> = self
                .alive
                .iter()
                .filter(|(_, owners)| !owners.is_empty() && owners.is_disjoint(&here))
                .map(|(own, _)| *own)
                .collect();
            if orphaned.is_empty() {
                break;
            }
            orphaned.iter().for_each(|gone| _ = self.alive.remove(gone));
        }
        let here: BTreeSet<usize> = self.alive.keys().copied().collect();
        self.alive.values_mut().for_each(|owners| owners.retain(|owner| here.contains(owner)));
    }

    fn delete(&mut self, own: usize, orphan: bool) {
        if self.alive.remove(&own).is_some() {
            if orphan {
                self.alive.values_mut().for_each(|owners| _ = owners.remove(&own));
            }
            self.collect();
        }
    }

    fn names(&self) -> BTreeSet<String> {
        self.alive.keys().map(|own| format!("o{own}")).collect()
    }
}

async fn check(world: &World, namespace: &str, case: &Case) -> Result<(), String> {
    let maps = world.maps(namespace);
    let name = |own: usize| format!("o{own}");
    let text = |error: Error| error.to_string();
    let mut uids = Vec::new();
    for own in 0..MOST {
        let made = maps.create(&map(&name(own), &json!([]))).await.map_err(text)?;
        uids.push(made.metadata.uid.unwrap_or_default());
    }
    for (own, owners) in case.owners.iter().enumerate() {
        let uid = |at: usize| uids.get(at).cloned().unwrap_or_else(|| format!("absent-{namespace}"));
        let owners: Vec<_> =
            owners.iter().map(|(at, blocks)| owner(&name(*at), &uid(*at), *blocks)).collect();
        let patch = skep_client::Patch::Merge(json!({"metadata": {"ownerReferences": owners}}));
        match maps.patch(&name(own), &patch, &skep_client::PatchParams::default()).await {
            // Its owners were gone before it knew: cycles through it never close.
            Err(error) if error.is_not_found() => {}
            other => drop(other.map_err(text)?),
        }
    }
    let edges = |owners: &BTreeMap<usize, bool>| owners.keys().copied().collect();
    let mut model = Model { alive: case.owners.iter().map(edges).enumerate().collect() };
    model.collect();
    settle(&maps, &model.names()).await.map_err(|text| format!("after creation: {text}"))?;
    for (own, how) in &case.deletions {
        if !model.alive.contains_key(own) {
            continue;
        }
        let how = [Propagation::Background, Propagation::Foreground, Propagation::Orphan][usize::from(*how)];
        maps.delete(&name(*own), &DeleteParams::default().propagation(how)).await.map_err(text)?;
        model.delete(*own, how == Propagation::Orphan);
        settle(&maps, &model.names()).await.map_err(|text| format!("after {own} {how:?}: {text}"))?;
    }
    // Nothing that should stay goes later.
    tokio::time::sleep(Duration::from_millis(150)).await;
    settle(&maps, &model.names()).await
}

/// Holds AM-61, AM-62.
#[test]
fn exactly_the_right_objects_survive() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let world = runtime.block_on(World::start());
    let next = AtomicU32::new(0);
    let mut runner = TestRunner::new(Cases { cases: 24, max_shrink_iters: 64, ..Cases::default() });
    let outcome = runner.run(&cases(), |case| {
        let namespace = format!("case-{}", next.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(check(&world, &namespace, &case)).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_in_another_namespace_is_none_and_that_is_told() {
    let world = World::start().await;
    let made = world.maps("a").create(&map("owner", &json!([]))).await.expect("made");
    let uid = made.metadata.uid.expect("a uid");
    let maps = world.maps("b");
    maps.create(&map("stray", &json!([owner("owner", &uid, false)]))).await.expect("made");
    settle(&maps, &BTreeSet::new()).await.expect("collected");
    let events = world.client.namespaced::<Event>("b");
    for _ in 0..200 {
        let list = events.list(&ListParams::default()).await.expect("events").items;
        if let Some(event) = list.first() {
            assert_eq!(event.reason.as_deref(), Some("OwnerRefInvalidNamespace"));
            let wanted = format!(
                "ownerRef [v1/ConfigMap, namespace: b, name: owner, uid: {uid}] does not exist in namespace \"b\""
            );
            assert_eq!(event.message.as_deref(), Some(wanted.as_str()));
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nothing was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_of_another_name_leads_nowhere_and_an_unknown_kind_holds() {
    let world = World::start().await;
    let maps = world.maps("a");
    let made = maps.create(&map("owner", &json!([]))).await.expect("made");
    let uid = made.metadata.uid.expect("a uid");
    let unknown = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "x"});
    maps.create(&map("held", &json!([unknown]))).await.expect("made");
    maps.create(&map("wrong", &json!([owner("other", &uid, false)]))).await.expect("made");
    let wanted = BTreeSet::from(["owner".to_owned(), "held".to_owned()]);
    settle(&maps, &wanted).await.expect("the right ones");
}
