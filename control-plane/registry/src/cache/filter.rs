//! Which objects a list or a watch wants.

use skep_api::object::ObjectExt;
use skep_api::selector::{FieldSelector, LabelSelector};

use super::object::Object;
use super::window::{Event, EventType};

/// A namespace and selectors. The default wants everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Filter {
    /// Does the object pass?
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace)
            && self.labels.matches(object.value.labels())
            && self.fields.matches(&object.fields)
    }

    /// Are there no selectors? The namespace does not count.
    pub(crate) fn has_no_selector(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// How the event looks through this filter. An object that begins to match is added, one that
    /// ceases to match is deleted, whatever happened to it in the store.
    pub fn see(&self, event: &Event) -> Option<EventType> {
        let now = event.kind != EventType::Deleted && self.matches(&event.object);
        let before = event.previous.as_ref().is_some_and(|previous| self.matches(previous));
        match (before, now) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }
}
