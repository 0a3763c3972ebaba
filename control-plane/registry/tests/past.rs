//! What happened before this server started, and what fell out of its window: read from the store, for as
//! long as the store remembers.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use skep_api::error::Reason;
use skep_api::selector::LabelSelector;
use skep_registry::cache::{EventType, Filter, ListOptions, VersionMatch, WatchItem, WatchOptions};
use skep_registry::custom::Stream;
use skep_registry::{DeleteOptions, Registry};
use skep_storage::Storage;

use crate::support::{World, core, options};

/// Revision, name, what happened.
pub(crate) type Happened = (u64, String, EventType);

fn exactly(revision: u64) -> ListOptions {
    ListOptions {
        resource_version: Some(revision),
        version_match: VersionMatch::Exact,
        ..ListOptions::default()
    }
}

async fn names_at(registry: &Registry, revision: u64) -> Vec<String> {
    let list = registry.list(&core("configmaps", "n", ""), &exactly(revision)).await.expect("a list");
    assert_eq!(list.revision, revision);
    list.items.iter().map(|object| object.name.clone()).collect()
}

async fn watch_from(registry: &Registry, revision: u64, filter: Filter) -> Stream {
    let options = WatchOptions { filter, resource_version: Some(revision), ..WatchOptions::default() };
    registry.watch(&core("configmaps", "n", ""), &options).await.expect("a watch")
}

async fn events(watch: &mut Stream, count: usize) -> Vec<Happened> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let item = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("in time");
        match item.expect("goes on") {
            WatchItem::Event(event) => seen.push((event.revision(), event.object.name.clone(), event.kind)),
            WatchItem::Bookmark { .. } => {}
            WatchItem::Failed(error) => panic!("{error}"),
        }
    }
    let more = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(more.is_err(), "more than the history: {more:?}");
    seen
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Create or update a name with a label.
    Put(u8, u8),
    Delete(u8),
    /// Something else in the store changes.
    Elsewhere,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..4, 0u8..2).prop_map(|(name, label)| Step::Put(name, label)),
        3 => (0u8..4).prop_map(Step::Delete),
        1 => Just(Step::Elsewhere),
    ]
}

/// Each state of the collection with the revision it began at, and each change.
#[derive(Default)]
struct Model {
    states: Vec<(u64, Vec<String>)>,
    changes: Vec<(Happened, u8)>,
    labels: std::collections::BTreeMap<String, u8>,
}

async fn write(world: &World, steps: &[Step]) -> Model {
    let mut model = Model::default();
    let all = core("configmaps", "n", "");
    model.states.push((world.storage.current_revision().await.expect("a revision"), Vec::new()));
    for step in steps {
        match *step {
            Step::Put(name, label) => {
                let name = format!("c{name}");
                let object = json!({"metadata": {"name": name, "labels": {"l": label.to_string()}}});
                let known = model.labels.get(&name).copied();
                if known == Some(label) {
                    continue;
                }
                let written = match known {
                    Some(_) => world.registry.update(&all.named("n", &name), object, &options()).await,
                    None => world.registry.create(&all, object, &options()).await,
                };
                let written = written.expect("written").object;
                let revision =
                    written["metadata"]["resourceVersion"].as_str().expect("one").parse().expect("one");
                let kind = if known.is_some() { EventType::Modified } else { EventType::Added };
                model.labels.insert(name.clone(), label);
                model.changes.push(((revision, name, kind), label));
            }
            Step::Delete(name) => {
                let name = format!("c{name}");
                let Some(label) = model.labels.remove(&name) else { continue };
                let target = all.named("n", &name);
                world.registry.delete(&target, &DeleteOptions::default(), &options()).await.expect("deleted");
                let revision = world.storage.current_revision().await.expect("a revision");
                model.changes.push(((revision, name, EventType::Deleted), label));
            }
            Step::Elsewhere => {
                let _ =
                    world.create(&core("secrets", "n", ""), json!({"metadata": {"generateName": "s"}})).await;
                continue;
            }
        }
        let revision = model.changes.last().map_or(0, |((revision, ..), _)| *revision);
        model.states.push((revision, model.labels.keys().cloned().collect()));
    }
    model
}

async fn check(steps: Vec<Step>) {
    let world = World::new(usize::MAX).await;
    let model = write(&world, &steps).await;
    let fresh = world.another().await;
    for (revision, names) in &model.states {
        assert_eq!(names_at(&world.registry, *revision).await, *names);
        assert_eq!(names_at(&fresh, *revision).await, *names, "a server that started later");
        let after: Vec<Happened> = model
            .changes
            .iter()
            .map(|(happened, _)| happened.clone())
            .filter(|(at, ..)| at > revision)
            .collect();
        for registry in [&world.registry, &fresh] {
            let mut watch = watch_from(registry, *revision, Filter::default()).await;
            assert_eq!(events(&mut watch, after.len()).await, after);
        }
    }
    // Selectors work on the past as on the present.
    let labels = LabelSelector::parse("l=1").expect("a selector");
    let filter = Filter { labels, ..Filter::default() };
    let first = model.states.first().map_or(0, |(revision, _)| *revision);
    let mut old = watch_from(&world.registry, first, filter.clone()).await;
    let mut new = watch_from(&fresh, first, filter).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut expected = Vec::new();
    for ((revision, name, kind), label) in &model.changes {
        let (was, is) = (seen.contains(name), *label == 1 && *kind != EventType::Deleted);
        let kind = match (was, is) {
            (false, true) => EventType::Added,
            (true, true) => EventType::Modified,
            (true, false) => EventType::Deleted,
            (false, false) => continue,
        };
        if is {
            seen.insert(name.clone())
        } else {
            seen.remove(name)
        };
        expected.push((*revision, name.clone(), kind));
    }
    assert_eq!(events(&mut old, expected.len()).await, expected);
    assert_eq!(events(&mut new, expected.len()).await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]

    /// Whatever happened, each server tells the same history from each revision on.
    ///
    /// Holds AM-95, AM-96, AM-99.
    #[test]
    fn every_revision_tells_the_history_after_it(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(check(steps));
    }
}

/// Holds AM-92.
#[tokio::test]
async fn pages_go_on_at_another_server() {
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    for index in 0..10 {
        world.create(&collection, json!({"metadata": {"name": format!("c{index}")}})).await;
    }
    let first = ListOptions { limit: 4, ..ListOptions::default() };
    let page = world.registry.list(&collection, &first).await.expect("a page");
    let gone = core("configmaps", "n", "c7");
    world.registry.delete(&gone, &DeleteOptions::default(), &options()).await.expect("deleted");
    let fresh = world.another().await;
    let next =
        |token: String| ListOptions { limit: 4, continue_token: Some(token), ..ListOptions::default() };
    let second = fresh.list(&collection, &next(page.continue_token)).await.expect("a page");
    assert_eq!((second.items.len(), second.remaining, second.revision), (4, Some(2), page.revision));
    assert_eq!(second.items[3].name, "c7");
    let last = fresh.list(&collection, &next(second.continue_token)).await.expect("a page");
    assert_eq!((last.items.len(), last.remaining, last.continue_token.as_str()), (2, None, ""));
}

/// Holds AM-93.
#[tokio::test]
async fn what_the_store_has_forgotten_is_gone() {
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    for index in 0..6 {
        world.create(&collection, json!({"metadata": {"name": format!("c{index}")}})).await;
    }
    let first = ListOptions { limit: 2, ..ListOptions::default() };
    let page = world.registry.list(&collection, &first).await.expect("a page");
    let gone = core("configmaps", "n", "c5");
    world.registry.delete(&gone, &DeleteOptions::default(), &options()).await.expect("deleted");
    let now = world.storage.current_revision().await.expect("a revision");
    world.storage.compact(now).await.expect("compacted");
    let fresh = world.another().await;
    let error = fresh.list(&collection, &exactly(page.revision)).await.expect_err("forgotten");
    assert_eq!((error.code, error.reason), (410, Reason::Expired));
    let old = WatchOptions { resource_version: Some(page.revision), ..WatchOptions::default() };
    let error = fresh.watch(&collection, &old).await.map(drop).expect_err("forgotten");
    assert_eq!((error.code, error.reason), (410, Reason::Expired));
    let token = ListOptions { limit: 2, continue_token: Some(page.continue_token), ..ListOptions::default() };
    let error = fresh.list(&collection, &token).await.expect_err("forgotten");
    assert_eq!(error.code, 410);
    // The token that comes with it goes on, at the newest.
    let token = ListOptions { continue_token: Some(error.continue_token), ..ListOptions::default() };
    let rest = fresh.list(&collection, &token).await.expect("the rest");
    let names: Vec<&str> = rest.items.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["c2", "c3", "c4"]);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_dropped_and_the_others_go_on() {
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    let now = world.storage.current_revision().await.expect("a revision");
    let mut stuck = watch_from(&world.registry, now, Filter::default()).await;
    let mut alive = watch_from(&world.registry, now, Filter::default()).await;
    let resource = world.registry.resource(&collection.resource).expect("a resource").clone();
    assert_eq!(resource.watchers(), 2);
    // More than a mailbox holds.
    let text = "x".repeat(1 << 20);
    for index in 0..36 {
        let object = json!({"metadata": {"name": format!("c{index}")}, "data": {"text": text}});
        world.create(&collection, object).await;
        assert!(matches!(alive.next().await, Some(WatchItem::Event(_))));
    }
    assert_eq!(resource.watchers(), 1);
    assert!(stuck.next().await.is_none(), "its box was emptied");
}
