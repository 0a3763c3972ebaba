//! The watch cache against a model: whatever happens, a client that lists and watches ends up with what
//! a list shows, sees each change once, and in order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use skep_api::error::Reason;
use skep_api::selector::LabelSelector;
use skep_registry::cache::{EventType, Filter, ListOptions, VersionMatch, WatchItem, WatchOptions};
use skep_registry::custom::Stream;
use skep_registry::{DeleteOptions, Registry};

use crate::support::{World, core, options};

#[derive(Clone, Debug)]
enum Step {
    /// Create or update `name`, with this label.
    Put(u8, u8),
    Delete(u8),
    /// Let the client read so many items.
    Read(u8),
    /// Close the client's watch and open it again where it was.
    Reopen,
    /// Begin a new client by list and watch.
    Relist,
    /// Forget history in the store.
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..4, 0u8..3).prop_map(|(name, label)| Step::Put(name, label)),
        3 => (0u8..4).prop_map(Step::Delete),
        3 => (1u8..4).prop_map(Step::Read),
        1 => Just(Step::Reopen),
        1 => Just(Step::Relist),
        1 => Just(Step::Compact),
    ]
}

/// A client as client libraries are: a map, a revision, a watch.
struct Client {
    filter: Filter,
    state: BTreeMap<String, u64>,
    revision: u64,
    watch: Stream,
}

impl Client {
    async fn new(registry: &Registry, filter: Filter) -> Self {
        let target = core("configmaps", "", "");
        let list = ListOptions { filter: filter.clone(), ..ListOptions::default() };
        let list = registry.list(&target, &list).await.expect("a list");
        let state = list.items.iter().map(|object| (object.name.clone(), object.revision)).collect();
        let watch = open(registry, &filter, list.revision).await.expect("a watch");
        Self { filter, state, revision: list.revision, watch }
    }

    fn take(&mut self, item: WatchItem) {
        let seen = match item {
            WatchItem::Bookmark { revision, .. } => {
                assert!(revision >= self.revision, "a bookmark goes back");
                self.revision = revision;
                return;
            }
            WatchItem::Event(seen) => seen,
            WatchItem::Failed(error) => panic!("the watch failed: {error}"),
        };
        let (name, revision) = (seen.object.name.clone(), seen.object.revision);
        assert!(revision > self.revision, "{revision} comes again after {}", self.revision);
        self.revision = revision;
        match seen.kind {
            EventType::Added => assert_eq!(self.state.insert(name, revision), None),
            EventType::Modified => assert!(self.state.insert(name, revision).is_some()),
            EventType::Deleted => assert!(self.state.remove(&name).is_some()),
        }
    }

    /// Reads up to so many items; begins anew when the watch has ended.
    async fn read(&mut self, registry: &Registry, most: usize) {
        for _ in 0..most {
            match tokio::time::timeout(Duration::from_millis(2), self.watch.next()).await {
                Ok(Some(item)) => self.take(item),
                Ok(None) => return self.reopen(registry).await,
                Err(_) => return,
            }
        }
    }

    async fn reopen(&mut self, registry: &Registry) {
        match open(registry, &self.filter, self.revision).await {
            Ok(watch) => self.watch = watch,
            Err(reason) => {
                assert_eq!(reason, Reason::Expired);
                *self = Self::new(registry, self.filter.clone()).await;
            }
        }
    }

    /// Reads until the state is that of a list.
    async fn catch_up(&mut self, registry: &Registry) {
        let list = ListOptions { filter: self.filter.clone(), ..ListOptions::default() };
        let list = registry.list(&core("configmaps", "", ""), &list).await.expect("a list");
        let wanted: BTreeMap<String, u64> =
            list.items.iter().map(|object| (object.name.clone(), object.revision)).collect();
        for _ in 0..200 {
            if self.state == wanted {
                return;
            }
            self.read(registry, 10).await;
        }
        assert_eq!(self.state, wanted);
    }
}

async fn open(registry: &Registry, filter: &Filter, revision: u64) -> Result<Stream, Reason> {
    let options = WatchOptions {
        filter: filter.clone(),
        resource_version: Some(revision),
        bookmarks: true,
        initial_events: None,
        ..WatchOptions::default()
    };
    registry.watch(&core("configmaps", "", ""), &options).await.map_err(|error| error.reason)
}

async fn run(break_after: usize, steps: Vec<Step>) {
    let world = World::new(break_after).await;
    let registry = &world.registry;
    let everything = Filter::default();
    let labelled = Filter { labels: LabelSelector::parse("l=1").expect("a selector"), ..Filter::default() };
    let mut clients =
        vec![Client::new(registry, everything).await, Client::new(registry, labelled.clone()).await];
    for step in steps {
        match step {
            Step::Put(name, label) => {
                let target = core("configmaps", "n", "");
                let name = format!("c{name}");
                let object = json!({"metadata": {"name": name, "labels": {"l": label.to_string()}}});
                match registry.create(&target, object.clone(), &options()).await {
                    Err(error) if error.is_already_exists() => {
                        let target = target.named("n", &name);
                        registry.update(&target, object, &options()).await.expect("updated");
                    }
                    other => _ = other.expect("created"),
                }
            }
            Step::Delete(name) => {
                let target = core("configmaps", "n", &format!("c{name}"));
                match registry.delete(&target, &DeleteOptions::default(), &options()).await {
                    Err(error) if !error.is_not_found() => panic!("{error}"),
                    _ => {}
                }
            }
            Step::Read(most) => {
                for client in &mut clients {
                    client.read(registry, usize::from(most)).await;
                }
            }
            Step::Reopen => {
                for client in &mut clients {
                    client.reopen(registry).await;
                }
            }
            Step::Relist => clients[1] = Client::new(registry, labelled.clone()).await,
            Step::Compact => {
                use skep_storage::Storage;
                let now = world.storage.current_revision().await.expect("a revision");
                match world.storage.compact(now).await {
                    Ok(()) | Err(skep_storage::Error::Compacted { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    for client in &mut clients {
        client.catch_up(registry).await;
    }
    assert!(world.storage.broken.load(Ordering::Relaxed) > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn clients_see_every_change_once(break_after in 1usize..40, steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(break_after, steps));
    }
}

#[tokio::test]
async fn pages_show_one_revision_while_the_world_moves_on() {
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    for index in 0..10 {
        world.create(&collection, json!({"metadata": {"name": format!("c{index}")}})).await;
    }
    let first = ListOptions { limit: 4, ..ListOptions::default() };
    let page = world.registry.list(&collection, &first).await.expect("a page");
    assert_eq!((page.items.len(), page.remaining), (4, Some(6)));
    let gone = core("configmaps", "n", "c5");
    world.registry.delete(&gone, &DeleteOptions::default(), &options()).await.expect("deleted");
    world.create(&collection, json!({"metadata": {"name": "c55"}})).await;
    let mut names: Vec<String> = page.items.iter().map(|object| object.name.clone()).collect();
    let mut token = page.continue_token;
    while !token.is_empty() {
        let next = ListOptions { limit: 4, continue_token: Some(token), ..ListOptions::default() };
        let next = world.registry.list(&collection, &next).await.expect("a page");
        assert_eq!(next.revision, page.revision);
        names.extend(next.items.iter().map(|object| object.name.clone()));
        token = next.continue_token;
    }
    assert_eq!(names, (0..10).map(|index| format!("c{index}")).collect::<Vec<_>>());
    let exact = ListOptions {
        resource_version: Some(page.revision),
        version_match: VersionMatch::Exact,
        ..ListOptions::default()
    };
    let exact = world.registry.list(&collection, &exact).await.expect("a list");
    assert_eq!((exact.items.len(), exact.revision), (10, page.revision));
}

#[tokio::test]
async fn a_watch_with_initial_events_marks_their_end() {
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    let created = world.create(&collection, json!({"metadata": {"name": "a"}})).await;
    let options = WatchOptions {
        bookmarks: true,
        initial_events: Some(true),
        filter: Filter { namespace: Some("n".to_owned()), ..Filter::default() },
        ..WatchOptions::default()
    };
    let mut watch = world.registry.watch(&collection, &options).await.expect("a watch");
    let Some(WatchItem::Event(first)) = watch.next().await else { panic!("no event") };
    assert_eq!(first.object.value["metadata"]["uid"], created["metadata"]["uid"]);
    let Some(WatchItem::Bookmark { initial_end: true, revision }) = watch.next().await else {
        panic!("no bookmark")
    };
    assert_eq!(revision, first.object.revision);
}

#[tokio::test]
async fn the_future_is_refused_and_the_forgotten_is_gone() {
    use skep_storage::Storage;
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    world.create(&collection, json!({"metadata": {"name": "a"}})).await;
    let another = world.another().await;
    let old = WatchOptions { resource_version: Some(1), ..WatchOptions::default() };
    world.create(&collection, json!({"metadata": {"name": "b"}})).await;
    assert!(another.watch(&collection, &old).await.is_ok(), "the store remembers");
    let now = world.storage.current_revision().await.expect("a revision");
    world.storage.compact(now).await.expect("compacted");
    let error = another.watch(&collection, &old).await.map(drop).expect_err("forgotten");
    assert_eq!(error.reason, Reason::Expired);
    let future = WatchOptions { resource_version: Some(now + 100), ..WatchOptions::default() };
    let error = another.watch(&collection, &future).await.map(drop).expect_err("not yet");
    assert_eq!(error.code, 504);
}

#[tokio::test]
async fn reads_stay_consistent_when_others_write_elsewhere_in_the_store() {
    use skep_storage::{Op, Storage, TxnRequest};
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    world.create(&collection, json!({"metadata": {"name": "a"}})).await;
    let elsewhere = TxnRequest {
        success: vec![Op::Put { key: "/elsewhere".to_owned(), value: "x".into(), lease: 0 }],
        ..TxnRequest::default()
    };
    let revision = world.storage.txn(elsewhere).await.expect("written").revision;
    let list = world.registry.list(&collection, &ListOptions::default()).await.expect("a list");
    assert_eq!(list.items.len(), 1);
    assert!(list.revision >= revision);
}
