//! What an informer knows: written by its one task, read by anybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use crate::kind::Kept;

/// `(old, new)`; one of them is `None` for a coming or a going.
pub(super) type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

struct Objects<K> {
    by_namespace: HashMap<Box<str>, HashMap<Box<str>, Arc<K>>>,
    count: usize,
    /// Index key to the objects that have it, in the order of namespace and name for stable answers.
    index: HashMap<Box<str>, Vec<Arc<K>>>,
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

impl<K: Kept> Store<K> {
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
        self.shared.read().index.get(key).cloned().unwrap_or_default()
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

impl<K: Kept> Writer<K> {
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
        names.flat_map(|(ns, m)| m.keys().map(|name| (ns.to_string(), name.to_string()))).collect()
    }

    /// Stores an object; nothing is reported when this very revision is already there.
    pub(super) fn put(&self, new: Arc<K>) -> Vec<Change<K>> {
        let identity = new.identity();
        let mut objects = self.shared.write();
        let place = match objects.by_namespace.get_mut(identity.namespace) {
            Some(place) => place,
            None => objects.by_namespace.entry(identity.namespace.into()).or_default(),
        };
        let old = match place.get_mut(identity.name) {
            Some(place) => Some(std::mem::replace(place, new.clone())),
            None => place.insert(identity.name.into(), new.clone()),
        };
        if old.is_none() {
            objects.count += 1;
        }
        self.reindex(&mut objects, old.as_ref(), Some(&new));
        drop(objects);
        let before = old.as_deref().map(Kept::identity);
        let is_other = before.is_some_and(|before| before.uid != identity.uid);
        let is_same =
            before.is_some_and(|before| before.revision.is_some() && before.revision == identity.revision);
        match old {
            None => vec![(None, Some(new))],
            Some(old) if is_other => vec![(Some(old), None), (None, Some(new))],
            Some(_) if is_same => Vec::new(),
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
        self.reindex(&mut objects, Some(&old), None);
        vec![(Some(old), None)]
    }

    fn reindex(&self, objects: &mut Objects<K>, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let Some(keys) = &self.index else { return };
        let place_of = |object: &Arc<K>, list: &Vec<Arc<K>>| {
            let identity = object.identity();
            let at = (identity.namespace, identity.name);
            list.binary_search_by(|other| {
                let other = other.identity();
                (other.namespace, other.name).cmp(&at)
            })
        };
        let before = old.map(|old| keys(old)).unwrap_or_default();
        let after = new.map(|new| keys(new)).unwrap_or_default();
        for key in before.iter().filter(|k| !after.contains(k)) {
            if let (Some(old), Some(list)) = (old, objects.index.get_mut(key.as_str())) {
                if let Ok(place) = place_of(old, list) {
                    list.remove(place);
                }
                if list.is_empty() {
                    objects.index.remove(key.as_str());
                }
            }
        }
        let Some(new) = new else { return };
        for key in after {
            let list = objects.index.entry(key.into()).or_default();
            match place_of(new, list) {
                Ok(place) => list[place] = new.clone(),
                Err(place) => list.insert(place, new.clone()),
            }
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
