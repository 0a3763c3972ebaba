//! Server-side apply: a client sends what it wants, the server merges it, remembers who wanted what in
//! `metadata.managedFields`, and refuses to overwrite what another manager wanted. Other writes are tracked by
//! comparing before and after.
//!
//! Invariants: an applier owns exactly what it last applied; a field that an applier leaves out disappears when nobody
//! else owns it; a manager that owns nothing has no entry.

mod managers;
mod overlay;
mod path;
mod set;
mod typed;
mod types;
mod versions;

pub use overlay::overlay;
pub use path::{PathElement, print_path};
pub use set::Set;
pub use types::Types;
pub use versions::Versions;

use crate::error::Cause;
use crate::{Error, Result, codec};
use jiff::Timestamp;
use managers::{ManagerKey, Managers, Operation, Owned};
use serde_json::Value;
use skep_api::resource::GroupVersionKind;
use std::collections::BTreeMap;
use typed::{compare, faults, field_set, merge, remove};
use types::Node;
use versions::Changes;

/// The annotation of client-side apply.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owner of what an object held before its first apply, when nothing was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager; empty becomes `unknown`.
    pub manager: &'a str,
    /// The subresource written through, empty for the object itself.
    pub subresource: &'a str,
    /// The kind, in the version of the request.
    pub gvk: &'a GroupVersionKind,
    /// The types of the kind's fields.
    pub types: Types<'a>,
    /// The kind's other versions, in which others may have written; `None` when there is but one.
    pub versions: Option<&'a dyn Versions>,
    /// Fields this endpoint does not write (`status` on the object, `spec` on its status): never owned through it.
    pub ignored: Option<&'a Set>,
    /// Now.
    pub now: Timestamp,
}

/// The outcome of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object to store.
    pub object: Value,
    /// Whether anything but bookkeeping changed.
    pub changed: bool,
}

impl Writer<'_> {
    fn key(&self, operation: Operation) -> ManagerKey {
        ManagerKey::new(self.manager, operation, &self.gvk.api_version(), self.subresource)
    }

    fn root(&self) -> Node<'_> {
        self.types.root()
    }

    fn now(&self) -> Option<String> {
        Some(codec::scalars::print_time(self.now))
    }

    /// In the form in which the kind is stored: built-in kinds lose what is empty or unknown.
    fn canonical(&self, object: Value) -> Result<Value> {
        match self.types {
            Types::Message(_) => Ok(codec::check(self.gvk, &object, codec::FieldValidation::Ignore)?.object),
            Types::OpenApi(_) | Types::Deduced => Ok(object),
        }
    }

    fn identity(&self, object: &Value) -> String {
        let meta =
            |name: &str| object.get("metadata").and_then(|meta| meta.get(name)).and_then(Value::as_str);
        format!(
            "{}/{}; {}",
            meta("namespace").unwrap_or_default(),
            meta("name").unwrap_or_default(),
            self.gvk
        )
    }
}

/// Applies a configuration to the live object, or to nothing when it does not exist yet.
///
/// Conflicts are a 409 with a cause per field, unless forced.
pub fn apply_patch(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied> {
    check_config(config, writer)?;
    let mut base = live.cloned().unwrap_or_else(|| empty_object(writer.gvk));
    let mut managers = managers::decode(&base)?;
    managers::strip(&mut base);
    if managers.is_empty() {
        // Nothing was tracked so far: what is there belongs to somebody.
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        track(&empty_object(writer.gvk), &base, &mut managers, &before);
        managers::cap(&mut managers);
    }
    let outcome = try_apply(&base, config, &managers, writer, force);
    let (object, mut managers) = match outcome {
        Err(Failure::Conflicts(conflicts)) => {
            let upgraded =
                writer.manager == "kubectl" && !force && all_last_applied(&base, &conflicts, writer);
            if !upgraded {
                return Err(conflict_error(&conflicts));
            }
            try_apply(&base, config, &managers, writer, true).map_err(Failure::into_error)?
        }
        Err(Failure::Other(error)) => return Err(error),
        Ok(outcome) => outcome,
    };
    let changed = object != base;
    let key = writer.key(Operation::Apply);
    if let Some(owned) = managers.get_mut(&key) {
        owned.fields = owned.fields.difference(&managers::bookkeeping());
        if changed || owned.time.is_none() {
            owned.time = writer.now();
        }
        if owned.fields.is_empty() {
            managers.remove(&key);
        }
    }
    let mut object = object;
    if writer.manager == "kubectl" {
        refresh_last_applied(&mut object, config);
    }
    managers::encode(&mut object, &managers);
    Ok(Applied { object, changed })
}

fn check_config(config: &Value, writer: &Writer<'_>) -> Result<()> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let given = GroupVersionKind::from_api_version(text("apiVersion"), text("kind"));
    if given != *writer.gvk {
        return Err(Error::bad_request(format!("invalid object type: {given}, expected {}", writer.gvk)));
    }
    let managed = config.get("metadata").and_then(|meta| meta.get("managedFields"));
    if managed.is_some_and(|fields| !fields.is_null()) {
        return Err(Error::bad_request("metadata.managedFields must be nil"));
    }
    let faults = faults(writer.root(), config);
    if faults.is_empty() {
        return Ok(());
    }
    let faults = match faults.as_slice() {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(Error::bad_request(format!(
        "failed to create typed patch object ({}): {faults}",
        writer.identity(config)
    )))
}

fn empty_object(gvk: &GroupVersionKind) -> Value {
    serde_json::json!({"apiVersion": gvk.api_version(), "kind": gvk.kind})
}

type Conflicts = BTreeMap<ManagerKey, Set>;

enum Failure {
    Conflicts(Conflicts),
    Other(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::Conflicts(conflicts) => conflict_error(&conflicts),
            Self::Other(error) => error,
        }
    }
}

fn try_apply(
    base: &Value,
    config: &Value,
    managers: &Managers,
    writer: &Writer<'_>,
    force: bool,
) -> std::result::Result<(Value, Managers), Failure> {
    let root = writer.root();
    let key = writer.key(Operation::Apply);
    let mut managers = managers.clone();
    let mut fields = field_set(root, config);
    if let Some(ignored) = writer.ignored {
        fields = fields.recursive_difference(ignored);
    }
    let merged = writer.canonical(merge(root, base, config)).map_err(Failure::Other)?;
    let owned = Owned { api_version: writer.gvk.api_version(), time: None, fields };
    let last = managers.insert(key.clone(), owned);
    let time = last.as_ref().and_then(|last| last.time.clone());
    let pruned = match last {
        Some(last) if !last.fields.is_empty() => prune(writer, &merged, &last, &managers),
        _ => merged,
    };
    let object = writer.canonical(pruned).map_err(Failure::Other)?;
    let changes = Changes::between(writer, base, &object);
    release(&mut managers, &key, changes, force).map_err(Failure::Conflicts)?;
    if let Some(owned) = managers.get_mut(&key) {
        owned.time = time;
    }
    Ok((object, managers))
}

/// Takes away what the applier owned before, does not apply any more, and nobody else owns. It is done in the
/// version the applier wrote in before, and what others own is put back in theirs.
fn prune(writer: &Writer<'_>, merged: &Value, last: &Owned, managers: &Managers) -> Value {
    let version = last.api_version.as_str();
    // A version that nobody knows any more says nothing about what is to go.
    let Some((types, merged_here)) = writer.view(merged, version) else { return merged.clone() };
    let root = types.root();
    let last = last.fields.with_named_fields(root);
    let mut pruned = without(root, &merged_here, &last);
    let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
    for one in managers.values() {
        let all = owned.entry(&one.api_version).or_default();
        *all = all.union(&one.fields);
    }
    // First those of this version, so that nothing is missing that the others are made of.
    let mut place = version;
    let first = owned.remove_entry(version);
    for (other, fields) in first.into_iter().chain(owned) {
        let here = writer.view(merged, other).zip(writer.view_from(&pruned, place, other));
        let Some(((types, merged), (_, pruned_here))) = here else { continue };
        let root = types.root();
        let merged_set = field_set(root, &merged).with_named_fields(root);
        let kept =
            field_set(root, &pruned_here).with_named_fields(root).union(&fields.with_named_fields(root));
        pruned = without(root, &merged, &merged_set.difference(&kept));
        place = other;
    }
    let Some((_, pruned)) = writer.view_from(&pruned, place, version) else { return merged.clone() };
    // And those that vanished only because what held them did, although the applier never owned them.
    let merged_set = field_set(root, &merged_here).with_named_fields(root);
    let pruned_set = field_set(root, &pruned).with_named_fields(root);
    let pruned = without(root, &merged_here, &merged_set.difference(&pruned_set).intersection(&last));
    let back = writer.view_from(&pruned, version, &writer.gvk.api_version());
    back.map_or_else(|| merged.clone(), |(_, pruned)| pruned.into_owned())
}

fn without(root: Node<'_>, object: &Value, gone: &Set) -> Value {
    remove(root, object, gone).unwrap_or_else(|| Value::Object(serde_json::Map::new()))
}

/// Takes what changed away from everybody but the writer, each in the version of what is noted. Without force,
/// taking what somebody set is a conflict. Who wrote in a version that is no more owns nothing any more.
fn release(
    managers: &mut Managers,
    writer: &ManagerKey,
    mut changes: Changes<'_>,
    force: bool,
) -> std::result::Result<(), Conflicts> {
    managers.retain(|key, owned| key == writer || changes.in_version(&owned.api_version).is_some());
    let mut conflicts = Conflicts::new();
    for (key, owned) in managers.iter().filter(|(key, _)| *key != writer) {
        let Some(comparison) = changes.in_version(&owned.api_version) else { continue };
        let fields = owned.fields.intersection(&comparison.modified.union(&comparison.added));
        if !fields.is_empty() {
            conflicts.insert(key.clone(), fields);
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    for (key, owned) in managers.iter_mut().filter(|(key, _)| *key != writer) {
        if let Some(lost) = conflicts.get(key) {
            owned.fields = owned.fields.difference(lost);
        }
        if let Some(comparison) = changes.in_version(&owned.api_version) {
            owned.fields = owned.fields.difference(&comparison.removed);
        }
    }
    managers.retain(|_, owned| !owned.fields.is_empty());
    Ok(())
}

fn conflict_error(conflicts: &Conflicts) -> Error {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (key, fields) in conflicts {
        lines.push(format!("conflicts with {}:", key.describe()));
        for path in fields.paths() {
            let field = print_path(&path);
            lines.push(format!("- {field}"));
            causes.push(Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {}", key.describe()),
                field,
            });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    Error::Conflict { message, causes }
}

fn last_applied(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str().filter(|text| !text.is_empty())
}

/// Whether all conflicts are over fields that the user's own client-side apply set, unchanged since.
fn all_last_applied(base: &Value, conflicts: &Conflicts, writer: &Writer<'_>) -> bool {
    let Some(last) = last_applied(base).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return false;
    };
    if last.get("apiVersion").and_then(Value::as_str) != Some(&writer.gvk.api_version()) {
        return false;
    }
    let root = writer.root();
    let comparison = compare(root, &last, base);
    let allowed = field_set(root, &last)
        .difference(&comparison.modified)
        .difference(&comparison.added)
        .difference(&comparison.removed);
    conflicts.values().all(|fields| fields.difference(&allowed).is_empty())
}

/// An object that client-side apply manages too keeps its annotation true.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) =
        config.get_mut("metadata").and_then(|meta| meta.get_mut("annotations"))
    {
        annotations.remove(LAST_APPLIED);
    }
    object["metadata"]["annotations"][LAST_APPLIED] = format!("{config}\n").into();
}

/// Tracks a write that is not an apply: gives `new` its `metadata.managedFields`.
///
/// `live` is the object before, `None` on create. A `managedFields` inside `new` counts only when it asks to forget
/// everything (an empty list, or one empty entry) or is itself well-formed.
pub fn update_managers(live: Option<&Value>, mut new: Value, writer: &Writer<'_>) -> Value {
    let sent = managers::strip(&mut new);
    let nothing = empty_object(writer.gvk);
    let base = live.unwrap_or(&nothing);
    // What cannot be read is forgotten: a write must not fail over bookkeeping.
    let stored = managers::decode(base).unwrap_or_default();
    let mut managers = match sent {
        Some(sent) if writer.subresource.is_empty() => {
            if is_reset(&sent) {
                Managers::new()
            } else {
                let carrier = serde_json::json!({"metadata": {"managedFields": sent}});
                managers::decode(&carrier).ok().filter(|sent| !sent.is_empty()).unwrap_or(stored)
            }
        }
        _ => stored,
    };
    // An object that was never tracked stays so until somebody applies.
    if live.is_some() && managers.is_empty() {
        return new;
    }
    track(base, &new, &mut managers, writer);
    managers::cap(&mut managers);
    managers::encode(&mut new, &managers);
    new
}

fn is_reset(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// Gives the writer what changed, and takes it from the others.
fn track(base: &Value, new: &Value, managers: &mut Managers, writer: &Writer<'_>) {
    let comparison = compare(writer.root(), base, new).without(writer.ignored);
    let key = writer.key(Operation::Update);
    // Nobody is the writer here: its own old entry is released like the others' and then joined with the change.
    let nobody = ManagerKey::new("", Operation::Update, "", "");
    let released = release(managers, &nobody, Changes::between(writer, base, new), true);
    debug_assert!(released.is_ok(), "forced");
    let mut fields = comparison.modified.union(&comparison.added);
    if let Some(ignored) = writer.ignored {
        fields = fields.recursive_difference(ignored);
    }
    fields = fields.difference(&managers::bookkeeping());
    if fields.is_empty() {
        return;
    }
    if let Some(kept) = managers.remove(&key) {
        fields = fields.union(&kept.fields);
    }
    managers.insert(key, Owned { api_version: writer.gvk.api_version(), time: writer.now(), fields });
}

#[cfg(test)]
mod tests;
