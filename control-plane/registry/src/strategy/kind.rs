//! A served kind, whatever it comes from: a row of the table of kinds, or a version of a custom resource.
//!
//! The generic store and the API server speak to this only. What the two have in common is the order of
//! the steps; what differs is where the rules come from.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::field::ErrorList;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::selector::FieldSelector;
use skep_machinery::apply::Types;
use skep_machinery::codec::{self, Decoded, FieldValidation};
use skep_machinery::kind::{KindInfo, SubresourceInfo};
use skep_machinery::table::Column;

use super::{KindRow, ScalePaths};
use crate::custom::CustomKind;

/// A served kind.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A row of the table.
    BuiltIn(&'static KindRow),
    /// A version of a custom resource.
    Custom(Arc<CustomKind>),
}

/// What travels through a subresource, and what may be done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// The path segment.
    pub name: &'static str,
    /// What travels.
    pub kind: GroupVersionKind,
    /// What may be done.
    pub verbs: &'static [&'static str],
}

impl Kind {
    /// The row, of a built-in kind.
    pub fn built_in(&self) -> Option<&'static KindRow> {
        match self {
            Self::BuiltIn(row) => Some(row),
            Self::Custom(_) => None,
        }
    }

    /// The custom kind, of one.
    pub fn custom(&self) -> Option<&Arc<CustomKind>> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Custom(custom) => Some(custom),
        }
    }

    /// Its group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        match self {
            Self::BuiltIn(row) => row.gvk(),
            Self::Custom(custom) => custom.gvk().clone(),
        }
    }

    /// Its group, version and resource.
    pub fn gvr(&self) -> GroupVersionResource {
        match self {
            Self::BuiltIn(row) => row.gvr(),
            Self::Custom(custom) => custom.gvr().clone(),
        }
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> GroupVersionKind {
        let gvk = self.gvk();
        let kind = match self {
            Self::BuiltIn(_) => format!("{}List", gvk.kind),
            Self::Custom(custom) => custom.definition().names.list_kind.clone(),
        };
        GroupVersionKind { kind, ..gvk }
    }

    /// Do objects live in namespaces?
    pub fn namespaced(&self) -> bool {
        match self {
            Self::BuiltIn(row) => row.namespaced,
            Self::Custom(custom) => custom.definition().namespaced,
        }
    }

    /// What discovery and OpenAPI are told.
    pub fn info(&self) -> KindInfo {
        match self {
            Self::BuiltIn(row) => built_in_info(row),
            Self::Custom(custom) => custom.info(),
        }
    }

    /// A subresource.
    pub fn subresource(&self, name: &str) -> Option<Below> {
        match self {
            Self::BuiltIn(row) => row.subresource(name).map(|below| {
                let (group, version, kind) = below.kind;
                Below {
                    name: below.name,
                    kind: GroupVersionKind::new(group, version, kind),
                    verbs: below.verbs,
                }
            }),
            Self::Custom(custom) => custom.subresource(name),
        }
    }

    /// What every request to a version that is going is told.
    pub fn deprecation(&self) -> Option<String> {
        match self {
            Self::BuiltIn(row) => row.deprecation(),
            Self::Custom(custom) => custom.deprecation(),
        }
    }

    /// Is the status written on its own?
    pub fn has_status(&self) -> bool {
        match self {
            Self::BuiltIn(row) => row.has_status(),
            Self::Custom(custom) => custom.version().status,
        }
    }

    /// Does the server answer without storing?
    pub fn is_virtual(&self) -> bool {
        self.built_in().is_some_and(KindRow::is_virtual)
    }

    /// Is the verb served?
    pub fn serves(&self, verb: &str) -> bool {
        match self {
            Self::BuiltIn(row) => row.serves(verb),
            Self::Custom(_) => crate::custom::VERBS.contains(&verb),
        }
    }

    /// Has it a protobuf form?
    pub fn has_protobuf(&self) -> bool {
        self.built_in().is_some()
    }

    /// Reads an object of this kind out of a body.
    pub fn decode(
        &self,
        content_type: &str,
        bytes: &[u8],
        validation: FieldValidation,
    ) -> Result<Decoded, ApiError> {
        match self {
            Self::BuiltIn(row) => {
                codec::decode(content_type, bytes, Some(&row.gvk()), validation).map_err(ApiError::from)
            }
            Self::Custom(custom) => custom.decode(content_type, bytes, validation),
        }
    }

    /// Checks a patched object as if it had been read.
    pub fn recheck(&self, object: &Value, validation: FieldValidation) -> Result<Decoded, ApiError> {
        match self {
            Self::BuiltIn(row) => codec::check(&row.gvk(), object, validation).map_err(ApiError::from),
            Self::Custom(custom) => custom.recheck(object, validation),
        }
    }

    /// The types of its fields, for server-side apply.
    pub fn types(&self) -> Types<'_> {
        match self {
            Self::BuiltIn(row) => Types::of(&row.gvk()),
            Self::Custom(custom) => custom.types(),
        }
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        match self {
            Self::BuiltIn(row) => row.default(object),
            Self::Custom(custom) => custom.default(object),
        }
    }

    /// What the system decides about a new object.
    pub fn prepare_create(&self, object: &mut Value) {
        match self {
            Self::BuiltIn(row) => row.prepare_create(object),
            Self::Custom(custom) => custom.prepare_create(object),
        }
    }

    /// What the system decides about a changed object.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        match self {
            Self::BuiltIn(row) => row.prepare_update(new, old),
            Self::Custom(custom) => custom.prepare_update(new, old),
        }
    }

    /// What the system decides about a changed status.
    pub fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        match self {
            Self::BuiltIn(row) => row.prepare_status_update(new, old),
            Self::Custom(custom) => custom.prepare_status_update(new, old),
        }
    }

    /// What another subresource may change, put into what is stored.
    pub fn prepare_subresource(&self, name: &str, new: &mut Value, old: &Value) {
        match self {
            Self::BuiltIn(row) => row.prepare_subresource(name, new, old),
            Self::Custom(_) => *new = old.clone(),
        }
    }

    /// Notes in an object that its deletion begins.
    pub fn begin_delete(&self, object: &mut Value) {
        if let Self::BuiltIn(row) = self {
            row.strategy.begin_delete(object);
        }
    }

    /// Every error of a new object.
    pub fn validate_create(&self, object: &Value) -> ErrorList {
        match self {
            Self::BuiltIn(row) => row.validate_create(object),
            Self::Custom(custom) => custom.validate_create(object),
        }
    }

    /// Every error of a changed object.
    pub fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        match self {
            Self::BuiltIn(row) => row.validate_update(new, old),
            Self::Custom(custom) => custom.validate_update(new, old),
        }
    }

    /// Every error of a changed status.
    pub fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        match self {
            Self::BuiltIn(row) => row.validate_status_update(new, old),
            Self::Custom(custom) => custom.validate_status_update(new, old),
        }
    }

    /// Every error of what another subresource changed.
    pub fn validate_subresource(&self, name: &str, new: &Value, old: &Value) -> ErrorList {
        match self {
            Self::BuiltIn(row) => row.validate_subresource(name, new, old),
            Self::Custom(_) => ErrorList::new(),
        }
    }

    /// What is wrong with an object, metadata aside.
    pub fn validate_body(&self, object: &Value) -> ErrorList {
        match self {
            Self::BuiltIn(row) => row.strategy.validate(object),
            Self::Custom(custom) => custom.validate_body(object),
        }
    }

    /// Warnings to a client that writes this object.
    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        match self {
            Self::BuiltIn(row) => row.strategy.warnings(new, old),
            Self::Custom(custom) => custom.warnings(new, old),
        }
    }

    /// Warnings to a client that writes this status.
    pub fn status_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        match self {
            Self::BuiltIn(row) => row.strategy.status_warnings(new),
            Self::Custom(custom) => custom.warnings(new, Some(old)),
        }
    }

    /// The grace period of a deletion.
    pub fn graceful_delete(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        self.built_in().and_then(|row| row.strategy.graceful_delete(object, requested))
    }

    /// May a PUT create?
    pub fn create_on_update(&self) -> bool {
        self.built_in().is_some_and(|row| row.strategy.create_on_update())
    }

    /// May an update come without a resource version?
    pub fn unconditional_update(&self) -> bool {
        self.built_in().is_some_and(|row| row.strategy.unconditional_update())
    }

    /// The scale of an object.
    pub fn read_scale(&self, object: &Value) -> Option<Value> {
        match self {
            Self::BuiltIn(row) => row.strategy.scale().map(|paths| paths.read(object)),
            Self::Custom(custom) => custom.read_scale(object),
        }
    }

    /// Writes a scale into an object.
    pub fn write_scale(&self, object: &mut Value, scale: &Value) {
        match self {
            Self::BuiltIn(row) => {
                if let Some(paths) = row.strategy.scale() {
                    paths.write(object, scale);
                }
            }
            Self::Custom(custom) => custom.write_scale(object, scale),
        }
    }

    /// What is wrong with a scale.
    pub fn validate_scale(&self, scale: &Value) -> ErrorList {
        ScalePaths::validate(scale)
    }

    /// Is it scalable?
    pub fn has_scale(&self) -> bool {
        match self {
            Self::BuiltIn(row) => row.strategy.scale().is_some(),
            Self::Custom(custom) => custom.version().scale.is_some(),
        }
    }

    /// Refuses a selector over fields this kind does not offer.
    pub fn check_field_selector(&self, selector: &FieldSelector) -> Result<(), ApiError> {
        match self {
            Self::BuiltIn(row) => row.check_field_selector(selector),
            Self::Custom(custom) => custom.check_field_selector(selector),
        }
    }

    /// The columns of its table.
    pub fn columns(&self) -> Vec<Column> {
        match self {
            Self::BuiltIn(row) => row
                .strategy
                .columns()
                .iter()
                .map(|column| Column {
                    name: column.name.into(),
                    ty: column.kind.into(),
                    format: column.format.into(),
                    description: column.description.into(),
                    priority: column.priority,
                })
                .collect(),
            Self::Custom(custom) => custom.columns(),
        }
    }

    /// One cell for each of the columns.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::BuiltIn(row) => row.strategy.row(object, now),
            Self::Custom(custom) => custom.cells(object, now),
        }
    }
}

fn built_in_info(row: &KindRow) -> KindInfo {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    KindInfo {
        gvk: row.gvk(),
        plural: row.plural.to_owned(),
        singular: row.singular(),
        short_names: texts(row.short_names),
        categories: texts(row.categories),
        namespaced: row.namespaced,
        verbs: texts(row.verbs),
        subresources: row
            .subresources
            .iter()
            .map(|subresource| {
                let (group, version, kind) = subresource.kind;
                SubresourceInfo {
                    name: subresource.name.to_owned(),
                    gvk: GroupVersionKind::new(group, version, kind),
                    verbs: texts(subresource.verbs),
                }
            })
            .collect(),
        schema: None,
    }
}
