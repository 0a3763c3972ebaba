//! Numbers for identities: each has one while an address claims it, and none is given twice soon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_ebpf_abi::policy::peer;

use crate::model::Identity;

#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    claims: usize,
}

/// The identities in use.
#[derive(Debug)]
pub(crate) struct Identities {
    ids: BTreeMap<Arc<Identity>, u32>,
    known: BTreeMap<u32, Known>,
    next: u32,
    appeared: BTreeSet<u32>,
    vanished: BTreeSet<u32>,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            ids: BTreeMap::new(),
            known: BTreeMap::new(),
            next: peer::FIRST_POD,
            appeared: BTreeSet::new(),
            vanished: BTreeSet::new(),
        }
    }
}

impl Identities {
    /// Never gives out a number up to this one as a fresh one: somebody may still have it.
    pub(crate) fn keep_clear_of(&mut self, id: u32) {
        if peer::is_pod(id) {
            self.next = self.next.max(id + 1);
        }
    }

    /// The number of an identity, with one more claim to it. `before` is what it seems to have had in an earlier
    /// life: it gets that again if nobody else has it.
    pub(crate) fn claim(&mut self, identity: &Identity, before: Option<u32>) -> u32 {
        if let Some(id) = self.ids.get(identity).copied() {
            if let Some(known) = self.known.get_mut(&id) {
                known.claims += 1;
            }
            return id;
        }
        let id = before.filter(|id| peer::is_pod(*id) && !self.known.contains_key(id)).unwrap_or(self.next);
        self.keep_clear_of(id);
        let identity = Arc::new(identity.clone());
        self.ids.insert(Arc::clone(&identity), id);
        self.known.insert(id, Known { identity, claims: 1 });
        self.vanished.remove(&id);
        self.appeared.insert(id);
        id
    }

    /// Gives a claim back.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(known) = self.known.get_mut(&id) else { return };
        known.claims -= 1;
        if known.claims == 0 {
            self.ids.remove(&known.identity);
            self.known.remove(&id);
            self.appeared.remove(&id);
            self.vanished.insert(id);
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Identity> {
        self.known.get(&id).map(|known| known.identity.as_ref())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Identity)> {
        self.known.iter().map(|(id, known)| (*id, known.identity.as_ref()))
    }

    /// What came and what went since this was asked last.
    pub(crate) fn take_changes(&mut self) -> BTreeSet<u32> {
        let mut changed = std::mem::take(&mut self.appeared);
        changed.append(&mut self.vanished);
        changed
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(namespace: &str) -> Identity {
        Identity { namespace: namespace.into(), ..Identity::default() }
    }

    #[test]
    fn equal_pods_share_a_number_until_the_last_is_gone() {
        let mut identities = Identities::default();
        let a = identities.claim(&named("a"), None);
        assert_eq!(identities.claim(&named("a"), None), a);
        let b = identities.claim(&named("b"), None);
        assert_ne!(a, b);
        assert_eq!(identities.take_changes(), [a, b].into());
        identities.release(a);
        assert!(identities.take_changes().is_empty());
        identities.release(a);
        assert_eq!(identities.take_changes(), [a].into());
        assert_ne!(identities.claim(&named("c"), None), a, "not given again at once");
    }

    #[test]
    fn a_number_of_an_earlier_life_is_kept_where_that_is_possible() {
        let mut identities = Identities::default();
        identities.keep_clear_of(40);
        assert_eq!(identities.claim(&named("a"), Some(33)), 33);
        let other = identities.claim(&named("b"), Some(33));
        assert_eq!(other, 41, "somebody else has it");
        assert_eq!(identities.claim(&named("c"), Some(peer::NODE)), 42);
    }
}
