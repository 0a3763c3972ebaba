//! What admission has to say besides yes and no: warnings for the client, annotations for the audit log.
//!
//! Invariant: one [`Notes`] belongs to one request; its clones share what is written. Both lists are
//! bounded, whatever plug-ins and policies do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// No more warnings are kept of one request.
const WARNINGS: usize = 64;
/// No more annotations are kept of one request.
const ANNOTATIONS: usize = 256;

/// The warnings and audit annotations of one request.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
}

impl Notes {
    /// A warning for the client. One said before is not said again.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut kept = self.kept();
        if kept.warnings.len() < WARNINGS && !kept.warnings.contains(&text) {
            kept.warnings.push(text);
        }
    }

    /// An annotation of the audit event; the first value of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut kept = self.kept();
        if kept.annotations.len() < ANNOTATIONS {
            kept.annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    /// The warnings so far, in order.
    pub fn warnings(&self) -> Vec<String> {
        self.kept().warnings.clone()
    }

    /// The annotations so far.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.kept().annotations.clone()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every writer leaves the lists whole, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_and_repetition_is_dropped() {
        let notes = Notes::default();
        let other = notes.clone();
        other.warn("a");
        notes.warn("a");
        notes.warn("b");
        notes.annotate("k", "1");
        other.annotate("k", "2");
        assert_eq!(notes.warnings(), ["a", "b"]);
        assert_eq!(notes.annotations(), BTreeMap::from([("k".to_owned(), "1".to_owned())]));
        for n in 0..1000 {
            notes.warn(n.to_string());
        }
        assert_eq!(notes.warnings().len(), WARNINGS);
    }
}
