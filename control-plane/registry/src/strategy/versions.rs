//! The versions of a kind, for the fields that managers have noted in them.
//!
//! Built-in kinds of several versions convert by their rows; a custom resource without conversion is the same in
//! all its versions. Where a webhook converts, what it has made so far is looked up.

use std::sync::Arc;

use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionKind;
use skep_machinery::apply::{Types, Versions};

use super::{Kind, KindRow, Storage};
use crate::custom::{Conversion, Definition};
use crate::kinds;
use crate::store::Conversions;

/// Rows that share what is stored.
#[derive(Debug)]
struct Rows(&'static KindRow);

/// The versions of a custom resource that differ by nothing but their schemas.
#[derive(Debug)]
struct Alike(Arc<Definition>);

/// The versions of a custom resource between which a webhook converts.
#[derive(Debug)]
struct Asked<'c> {
    alike: Alike,
    conversions: &'c Conversions,
}

impl Kind {
    /// Its other versions, when there are some. What a webhook must convert is found in `conversions`, or missed there.
    pub(crate) fn versions<'v>(&'v self, conversions: &'v Conversions) -> Option<Box<dyn Versions + 'v>> {
        match self {
            Self::BuiltIn(row) => {
                let alike = kinds::TABLE.iter().filter(|other| stored_at(other) == stored_at(row));
                (alike.count() > 1).then(|| Box::new(Rows(row)) as Box<dyn Versions>)
            }
            Self::Custom(custom) => {
                let definition = custom.definition();
                if definition.versions.len() < 2 {
                    return None;
                }
                let alike = Alike(Arc::clone(definition));
                Some(match definition.conversion {
                    Conversion::None => Box::new(alike),
                    Conversion::Webhook { .. } => Box::new(Asked { alike, conversions }),
                })
            }
        }
    }
}

/// Where the objects of a row are.
fn stored_at(row: &KindRow) -> Option<(&'static str, &'static str)> {
    match row.storage {
        Storage::Own => Some((row.group, row.plural)),
        Storage::Alias { group, plural, .. } => Some((group, plural)),
        Storage::Virtual => None,
    }
}

impl Rows {
    fn row(&self, api_version: &str) -> Option<&'static KindRow> {
        let gvk = GroupVersionKind::from_api_version(api_version, self.0.kind);
        kinds::by_kind(&gvk.group, &gvk.version, &gvk.kind).filter(|row| stored_at(row) == stored_at(self.0))
    }
}

impl Versions for Rows {
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let (from, to) = (self.row(object.text(&["apiVersion"]))?, self.row(api_version)?);
        let stored = match from.storage {
            Storage::Alias { to, .. } => to(object.clone()),
            Storage::Own | Storage::Virtual => object.clone(),
        };
        Some(match to.storage {
            Storage::Alias { from, .. } => from(stored),
            Storage::Own | Storage::Virtual => stored,
        })
    }

    fn types(&self, api_version: &str) -> Option<Types<'_>> {
        self.row(api_version).map(|row| Types::of(&row.gvk()))
    }
}

impl Versions for Alike {
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        self.0.version_of(api_version)?;
        let mut object = object.clone();
        object.set(&["apiVersion"], api_version);
        Some(object)
    }

    fn types(&self, api_version: &str) -> Option<Types<'_>> {
        self.0.version_of(api_version).map(|version| match &version.schema {
            Value::Null => Types::Deduced,
            schema => Types::OpenApi(schema),
        })
    }
}

impl Versions for Asked<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        // A version that is no more is not missed: what was noted in it counts for nothing.
        self.alike.0.version_of(api_version)?;
        self.conversions.find(object, api_version)
    }

    fn types(&self, api_version: &str) -> Option<Types<'_>> {
        self.alike.types(api_version)
    }
}
