//! The open watches of one resource and how an event finds those that want it.
//!
//! A watch with an equality requirement on a field (`spec.nodeName=a`) is filed under that value, so
//! an event is tried only against the watches of its own old and new values and the unfiled rest.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use skep_storage::Revision;

use super::filter::Filter;
use super::mailbox::{Mailbox, Slot};
use super::object::Object;
use super::window::{Event, EventType};

/// One event as a watcher sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What happened, in the eyes of the watcher's filter.
    pub kind: EventType,
    /// The object.
    pub object: Arc<Object>,
    /// The event, when the filter does not change what happened: its encoded frame can be shared.
    pub event: Option<Arc<Event>>,
}

impl Seen {
    /// The event through a filter.
    pub(crate) fn through(filter: &Filter, event: &Arc<Event>) -> Option<Self> {
        let kind = filter.see(event)?;
        if kind == event.kind {
            return Some(Self { kind, object: event.object.clone(), event: Some(event.clone()) });
        }
        let object = match (&event.previous, kind) {
            // It left the selector: the watcher is shown what it knew, at the time it left.
            (Some(previous), EventType::Deleted) => Arc::new(previous.at(event.revision)),
            _ => event.object.clone(),
        };
        Some(Self { kind, object, event: None })
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        self.object.revision
    }

    /// An object that is there at the beginning.
    pub(crate) fn initial(object: Arc<Object>) -> Self {
        Self { kind: EventType::Added, object, event: None }
    }
}

#[derive(Debug)]
struct Watcher {
    filter: Filter,
    slot: Slot,
    filed: Option<(String, String)>,
}

/// The watchers of one resource.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    next: u64,
    all: HashMap<u64, Watcher>,
    unfiled: HashSet<u64>,
    /// Field, then value, then the watchers.
    filed: HashMap<String, HashMap<String, HashSet<u64>>>,
}

impl Watchers {
    /// Adds a watcher.
    pub(crate) fn add(&mut self, filter: Filter) -> (u64, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let id = self.next;
        self.next += 1;
        let filed = filter.fields.requirements().iter().find_map(|requirement| {
            // An absent field counts as empty, so the empty value can't be looked up.
            let exact = filter.fields.exact(&requirement.field).filter(|value| !value.is_empty())?;
            Some((requirement.field.clone(), exact.to_owned()))
        });
        match &filed {
            Some((field, value)) => {
                let values = self.filed.entry(field.clone()).or_default();
                values.entry(value.clone()).or_default().insert(id)
            }
            None => self.unfiled.insert(id),
        };
        self.all.insert(id, Watcher { filter, slot: Slot(mailbox.clone()), filed });
        (id, mailbox)
    }

    /// Removes a watcher.
    pub(crate) fn remove(&mut self, id: u64) {
        let Some(watcher) = self.all.remove(&id) else { return };
        let Some((field, value)) = watcher.filed else {
            self.unfiled.remove(&id);
            return;
        };
        let Some(values) = self.filed.get_mut(&field) else { return };
        if let Some(ids) = values.get_mut(&value) {
            ids.remove(&id);
            if ids.is_empty() {
                values.remove(&value);
            }
        }
        if values.is_empty() {
            self.filed.remove(&field);
        }
    }

    /// Ends every watch.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.unfiled.clear();
        self.filed.clear();
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many every event is tried against.
    pub(crate) fn unfiled(&self) -> usize {
        self.unfiled.len()
    }

    /// Hands the event to those that want it. A watcher whose mailbox is full is dropped: its stream
    /// ends, and the client begins again from what it saw last.
    pub(crate) fn send(&mut self, event: &Arc<Event>) {
        let mut gone = Vec::new();
        let mut offer = |id: u64, watcher: &Watcher| {
            let seen = Seen::through(&watcher.filter, event);
            if seen.is_some_and(|seen| !watcher.slot.0.put(seen)) {
                gone.push(id);
            }
        };
        for id in &self.unfiled {
            if let Some(watcher) = self.all.get(id) {
                offer(*id, watcher);
            }
        }
        if !self.filed.is_empty() {
            let mut tried = HashSet::new();
            let versions = [Some(&event.object), event.previous.as_ref()];
            for (field, value) in versions.into_iter().flatten().flat_map(|object| &object.fields) {
                let ids = self.filed.get(&**field).and_then(|values| values.get(value));
                for id in ids.into_iter().flatten() {
                    if let Some(watcher) = self.all.get(id).filter(|_| tried.insert(*id)) {
                        offer(*id, watcher);
                    }
                }
            }
        }
        for id in gone {
            self.remove(id);
        }
    }
}
