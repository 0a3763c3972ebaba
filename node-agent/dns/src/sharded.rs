//! A map whose copies share what they have in common: copying is cheap, and a change copies one shard.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

const SHARDS: usize = 256;

/// A copy-on-write hash map.
#[derive(Clone, Debug)]
pub(crate) struct Sharded<K, V> {
    hasher: RandomState,
    shards: Vec<Arc<HashMap<K, V>>>,
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Arc::default()).collect() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.shards[self.shard(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shard(&key);
        Arc::make_mut(&mut self.shards[shard]).insert(key, value)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let shard = self.shard(key);
        // Do not copy a shard for nothing.
        self.shards[shard].contains_key(key).then(|| Arc::make_mut(&mut self.shards[shard]).remove(key))?
    }

    /// Changes a value in place, starting from the default; a value that `keep` then refuses is removed.
    pub(crate) fn update(&mut self, key: &K, change: impl FnOnce(&mut V), keep: impl FnOnce(&V) -> bool)
    where
        V: Default,
    {
        let shard = self.shard(key);
        let map = Arc::make_mut(&mut self.shards[shard]);
        let value = map.entry(key.clone()).or_default();
        change(value);
        if !keep(value) {
            map.remove(key);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    fn shard(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).expect("less than SHARDS")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_not_changed_with_the_original() {
        let mut map = Sharded::default();
        for n in 0..1000 {
            map.insert(n, n);
        }
        let copy = map.clone();
        map.insert(7, 70);
        map.remove(&8);
        map.update(&9, |v: &mut i32| *v += 1, |_| true);
        map.update(&10, |_| {}, |_| false);
        assert_eq!([map.get(&7), map.get(&8), map.get(&9), map.get(&10)], [Some(&70), None, Some(&10), None]);
        assert_eq!(
            [copy.get(&7), copy.get(&8), copy.get(&9), copy.get(&10)].map(Option::unwrap),
            [&7, &8, &9, &10]
        );
        assert_eq!((map.len(), copy.len()), (998, 1000));
        let shared = map.shards.iter().zip(&copy.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= SHARDS - 4, "{shared}");
    }
}
