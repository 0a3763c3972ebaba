//! Kinds of several versions: what is noted in one is compared in that one, whatever version is written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use super::typed::{Comparison, compare};
use super::{Types, Writer};

/// The versions of a kind.
pub trait Versions: Debug + Sync {
    /// The object, which is in any version of the kind, in another (`group/version`); `None`: not known any more.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;

    /// The types of a version's fields.
    fn types(&self, api_version: &str) -> Option<Types<'_>>;
}

impl<'w> Writer<'w> {
    /// An object of the writer's version as another version sees it, with the types of that.
    pub(super) fn view<'o>(&self, object: &'o Value, version: &str) -> Option<(Types<'w>, Cow<'o, Value>)> {
        self.view_from(object, &self.gvk.api_version(), version)
    }

    /// The same for an object of any version.
    pub(super) fn view_from<'o>(
        &self,
        object: &'o Value,
        from: &str,
        to: &str,
    ) -> Option<(Types<'w>, Cow<'o, Value>)> {
        let Some(versions) = self.versions else { return Some((self.types, Cow::Borrowed(object))) };
        let types = if to == self.gvk.api_version() { self.types } else { versions.types(to)? };
        let object =
            if from == to { Cow::Borrowed(object) } else { Cow::Owned(versions.convert(object, to)?) };
        Some((types, object))
    }
}

/// What a write changes, as each version sees it; made when it is asked for.
pub(super) struct Changes<'w> {
    writer: Writer<'w>,
    old: &'w Value,
    new: &'w Value,
    seen: BTreeMap<String, Option<Comparison>>,
}

impl<'w> Changes<'w> {
    pub(super) fn between(writer: &Writer<'w>, old: &'w Value, new: &'w Value) -> Self {
        Self { writer: *writer, old, new, seen: BTreeMap::new() }
    }

    /// As a version sees it; `None`: nobody knows that version any more.
    pub(super) fn in_version(&mut self, version: &str) -> Option<&Comparison> {
        if !self.seen.contains_key(version) {
            let old = self.writer.view(self.old, version);
            let compared = old.zip(self.writer.view(self.new, version)).map(|((types, old), (_, new))| {
                compare(types.root(), &old, &new).without(self.writer.ignored)
            });
            self.seen.insert(version.to_owned(), compared);
        }
        self.seen.get(version)?.as_ref()
    }
}
