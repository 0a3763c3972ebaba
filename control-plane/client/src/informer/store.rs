//! What an informer knows: written by its one task, read by anybody.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::kind::Stored;

/// `(old, new)`; one of them is `None` for a coming or a going.
pub(super) type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

struct Objects<K> {
    by_namespace: HashMap<String, HashMap<String, Arc<K>>>,
    count: usize,
    /// Index key to the (namespace, name) that have it, ordered for stable answers.
    index: HashMap<String, BTreeSet<(String, String)>>,
}

struct Shared<K> {
    objects: RwLock<Objects<K>>,
    generation: watch::Sender<u64>,
    revision: AtomicU64,
    synced: watch::Sender<bool>,
}

impl<K> Shared<K> {
    // A panic of the writer leaves plain maps behind, good enough to read.
    fn read(&self) -> RwLockReadGuard<'_, Objects<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects<K>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A readable view of the objects of an informer.
pub struct Store<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> std::fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("len", &self.shared.read().count).finish_non_exhaustive()
    }
}

impl<K: Stored> Store<K> {
    /// One object; the namespace of cluster-scoped objects is `""`.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.shared.read().by_namespace.get(namespace)?.get(name).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read().by_namespace.values().flat_map(|m| m.values().cloned()).collect()
    }

    /// The objects of a namespace, in no order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.shared.read();
        objects.by_namespace.get(namespace).map(|m| m.values().cloned().collect()).unwrap_or_default()
    }

    /// The objects under a key of the index; none without an index.
    pub fn indexed(&self, key: &str) -> Vec<Arc<K>> {
        let objects = self.shared.read();
        let Some(names) = objects.index.get(key) else { return Vec::new() };
        names.iter().filter_map(|(ns, name)| objects.by_namespace.get(ns)?.get(name).cloned()).collect()
    }

    /// How many objects.
    pub fn len(&self) -> usize {
        self.shared.read().count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        // The sender lives in `shared`, which we hold: it cannot be closed.
        let mut synced = self.shared.synced.subscribe();
        let _closed = synced.wait_for(|synced| *synced).await;
    }

    /// The revision of the cluster the store has reached: every change of its objects up to there is in.
    pub fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// A counter that grows with every change (a burst may show as one step).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }
}

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// The writing side.
pub(super) struct Writer<K> {
    shared: Arc<Shared<K>>,
    index: Option<IndexFn<K>>,
}

impl<K: Stored> Writer<K> {
    pub(super) fn new() -> Self {
        let objects = Objects { by_namespace: HashMap::new(), count: 0, index: HashMap::new() };
        let shared = Shared {
            objects: RwLock::new(objects),
            generation: watch::Sender::new(0),
            revision: AtomicU64::new(0),
            synced: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared), index: None }
    }

    pub(super) fn store(&self) -> Store<K> {
        Store { shared: self.shared.clone() }
    }

    pub(super) fn set_index(&mut self, keys: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.index = Some(Box::new(keys));
    }

    pub(super) fn keys(&self) -> Vec<(String, String)> {
        let objects = self.shared.read();
        let names = objects.by_namespace.iter();
        names.flat_map(|(ns, m)| m.keys().map(|name| (ns.clone(), name.clone()))).collect()
    }

    /// Stores an object; nothing is reported when this very revision is already there.
    pub(super) fn put(&self, new: Arc<K>) -> Vec<Change<K>> {
        let meta = new.meta();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let mut objects = self.shared.write();
        let place = objects.by_namespace.entry(namespace.clone()).or_default();
        let old = place.insert(name.clone(), new.clone());
        if old.is_none() {
            objects.count += 1;
        }
        self.reindex(&mut objects, (&namespace, &name), old.as_deref(), Some(&*new));
        drop(objects);
        match old {
            None => vec![(None, Some(new))],
            Some(old) if old.meta().uid != new.meta().uid => vec![(Some(old), None), (None, Some(new))],
            Some(old)
                if old.meta().resource_version.is_some()
                    && old.meta().resource_version == new.meta().resource_version =>
            {
                Vec::new()
            }
            Some(old) => vec![(Some(old), Some(new))],
        }
    }

    pub(super) fn remove(&self, namespace: &str, name: &str) -> Vec<Change<K>> {
        let mut objects = self.shared.write();
        let Some(place) = objects.by_namespace.get_mut(namespace) else { return Vec::new() };
        let Some(old) = place.remove(name) else { return Vec::new() };
        if place.is_empty() {
            objects.by_namespace.remove(namespace);
        }
        objects.count -= 1;
        self.reindex(&mut objects, (namespace, name), Some(&*old), None);
        vec![(Some(old), None)]
    }

    fn reindex(&self, objects: &mut Objects<K>, at: (&str, &str), old: Option<&K>, new: Option<&K>) {
        let Some(keys) = &self.index else { return };
        let at = (at.0.to_owned(), at.1.to_owned());
        let before = old.map(keys).unwrap_or_default();
        let after = new.map(keys).unwrap_or_default();
        for key in before.iter().filter(|k| !after.contains(k)) {
            if let Some(names) = objects.index.get_mut(key) {
                names.remove(&at);
                if names.is_empty() {
                    objects.index.remove(key);
                }
            }
        }
        for key in after {
            objects.index.entry(key).or_default().insert(at.clone());
        }
    }

    pub(super) fn set_synced(&self) {
        self.shared.synced.send_replace(true);
    }

    pub(super) fn set_revision(&self, revision: &str) {
        if let Ok(revision) = revision.parse() {
            self.shared.revision.store(revision, Ordering::Release);
        }
    }

    pub(super) fn bump(&self) {
        self.shared.generation.send_modify(|g| *g += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::PartialObject;

    fn object(name: &str, uid: &str, revision: &str) -> Arc<PartialObject> {
        let mut object = PartialObject::default();
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some("ns".into());
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(revision.into());
        Arc::new(object)
    }

    #[test]
    fn replacement_of_another_uid_is_two_changes() {
        let writer = Writer::new();
        assert_eq!(writer.put(object("a", "1", "1")).len(), 1);
        assert!(writer.put(object("a", "1", "1")).is_empty());
        assert_eq!(writer.put(object("a", "1", "2")).len(), 1);
        let changes = writer.put(object("a", "2", "3"));
        assert!(matches!(&changes[..], [(Some(_), None), (None, Some(_))]));
        assert_eq!(writer.store().len(), 1);
    }

    #[test]
    fn index_follows() {
        let mut writer = Writer::new();
        writer.set_index(|o: &PartialObject| o.metadata.uid.iter().cloned().collect());
        writer.put(object("a", "1", "1"));
        writer.put(object("b", "1", "2"));
        assert_eq!(writer.store().indexed("1").len(), 2);
        writer.put(object("a", "2", "3"));
        assert_eq!(writer.store().indexed("1").len(), 1);
        writer.remove("ns", "b");
        assert!(writer.store().indexed("1").is_empty());
        assert_eq!(writer.store().indexed("2").len(), 1);
    }
}
