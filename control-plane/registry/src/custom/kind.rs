//! One version of a custom resource as a kind: the steps a write goes through, with the definition's
//! schema for rules.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::field::{ErrorList, Path};
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::selector::FieldSelector;
use skep_machinery::apply::Types;
use skep_machinery::codec::{self, Decoded, FieldValidation, Format};
use skep_machinery::kind::{KindInfo, SubresourceInfo};
use skep_machinery::table::Column;

use super::definition::{Definition, Version};
use super::meta::Malformed;
use super::{cel, defaults, lists, meta, printer, prune, validate};
use crate::strategy::{Below, check, meta as metadata};

/// What may be done to custom objects.
pub(crate) const VERBS: &[&str] =
    &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

const BELOW: &[&str] = &["get", "patch", "update"];

/// A version of a custom resource.
#[derive(Debug)]
pub struct CustomKind {
    definition: Arc<Definition>,
    version: usize,
    gvk: GroupVersionKind,
    gvr: GroupVersionResource,
}

impl CustomKind {
    /// A version of a definition, by its place.
    pub(crate) fn new(definition: Arc<Definition>, version: usize) -> Self {
        let name = &definition.versions[version].name;
        let gvk = GroupVersionKind::new(&definition.group, name, &definition.names.kind);
        let gvr = GroupVersionResource::new(&definition.group, name, &definition.names.plural);
        Self { gvk, gvr, definition, version }
    }

    /// The definition.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.definition.versions[self.version]
    }

    /// Its kind.
    pub fn gvk(&self) -> &GroupVersionKind {
        &self.gvk
    }

    /// Its resource.
    pub fn gvr(&self) -> &GroupVersionResource {
        &self.gvr
    }

    /// What discovery and OpenAPI are told.
    pub fn info(&self) -> KindInfo {
        let names = &self.definition.names;
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let below = ["status", "scale"].into_iter().filter_map(|name| self.subresource(name));
        KindInfo {
            gvk: self.gvk.clone(),
            plural: names.plural.clone(),
            singular: names.singular.clone(),
            short_names: names.short_names.clone(),
            categories: names.categories.clone(),
            namespaced: self.definition.namespaced,
            verbs: texts(VERBS),
            subresources: below
                .map(|below| SubresourceInfo {
                    name: below.name.to_owned(),
                    gvk: below.kind,
                    verbs: texts(below.verbs),
                })
                .collect(),
            schema: Some(self.version().schema.clone()),
        }
    }

    /// A subresource.
    pub fn subresource(&self, name: &str) -> Option<Below> {
        let version = self.version();
        match name {
            "status" if version.status => {
                Some(Below { name: "status", kind: self.gvk.clone(), verbs: BELOW })
            }
            "scale" if version.scale.is_some() => {
                let kind = GroupVersionKind::new("autoscaling", "v1", "Scale");
                Some(Below { name: "scale", kind, verbs: BELOW })
            }
            _ => None,
        }
    }

    /// Reads an object out of a body.
    pub(crate) fn decode(
        &self,
        content_type: &str,
        bytes: &[u8],
        validation: FieldValidation,
    ) -> Result<Decoded, ApiError> {
        let format = Format::of_content_type(content_type)?;
        if format == Format::Protobuf {
            return Err(ApiError::unsupported_media_type(&["application/json", "application/yaml"]));
        }
        let lenient = if validation == FieldValidation::Strict { FieldValidation::Warn } else { validation };
        let decoded = codec::decode_as(format, bytes, Some(&self.gvk), lenient)?;
        self.tidy(decoded, validation)
    }

    /// Checks a patched object as if it had been read.
    pub(crate) fn recheck(&self, object: &Value, validation: FieldValidation) -> Result<Decoded, ApiError> {
        let lenient = if validation == FieldValidation::Strict { FieldValidation::Warn } else { validation };
        let decoded = codec::check(&self.gvk, object, lenient)?;
        self.tidy(decoded, validation)
    }

    /// Coerces and prunes what was read; what went is told of or refused.
    fn tidy(&self, mut decoded: Decoded, validation: FieldValidation) -> Result<Decoded, ApiError> {
        let schema = &self.version().parsed;
        let refuse = |reason: String| {
            ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {reason}",
                self.gvk.version,
                kind = self.gvk.kind
            ))
        };
        let mut unknown = meta::coerce(&mut decoded.object, schema, Malformed::Refuse)
            .map_err(|error| refuse(error.to_string()))?;
        unknown.extend(prune::prune(&mut decoded.object, schema));
        if validation == FieldValidation::Ignore {
            return Ok(decoded);
        }
        decoded.warnings.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
        if validation == FieldValidation::Strict && !decoded.warnings.is_empty() {
            return Err(refuse(format!("strict decoding error: {}", decoded.warnings.join(", "))));
        }
        Ok(decoded)
    }

    /// The types of its fields.
    pub(crate) fn types(&self) -> Types<'_> {
        match &self.version().schema {
            Value::Null => Types::Deduced,
            schema => Types::OpenApi(schema),
        }
    }

    /// Prunes and fills in defaults: also after admission, which may have brought anything.
    pub(crate) fn default(&self, object: &mut Value) {
        let schema = &self.version().parsed;
        prune::prune(object, schema);
        defaults::apply(object, schema);
    }

    /// A new object: no status where it has one of its own, generation 1.
    pub(crate) fn prepare_create(&self, object: &mut Value) {
        if self.version().status {
            object.unset(&["status"]);
        }
        object.set_generation(1);
    }

    /// A changed object: the status stays, the generation counts everything but metadata.
    pub(crate) fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.version().status {
            match old.get("status") {
                Some(status) => new.set(&["status"], status.clone()),
                None => _ = new.unset(&["status"]),
            }
        }
        let without_metadata = |object: &Value| {
            let mut object = object.clone();
            object.unset(&["metadata"]);
            object
        };
        let changed = without_metadata(new) != without_metadata(old);
        new.set_generation(old.generation() + i64::from(changed));
    }

    /// A changed status: everything but that and the managed fields is as it was.
    pub(crate) fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let managers = new.at(&["metadata", "managedFields"]).cloned();
        let version = new.resource_version().to_owned();
        let status = new.get("status").cloned();
        *new = old.clone();
        new.set_resource_version(&version);
        match managers {
            Some(managers) => new.set(&["metadata", "managedFields"], managers),
            None => _ = new.unset(&["metadata", "managedFields"]),
        }
        match status {
            Some(status) => new.set(&["status"], status),
            None => _ = new.unset(&["status"]),
        }
    }

    /// Every error of a new object.
    pub(crate) fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = check::check(object, |root| {
            let namespaced = self.definition.namespaced;
            metadata::validate(&root.child("metadata"), namespaced, names::dns1123_subdomain);
        });
        errors.extend(self.validate_body(object));
        errors
    }

    /// Every error of a new object, metadata aside.
    pub(crate) fn validate_body(&self, object: &Value) -> ErrorList {
        let schema = &self.version().parsed;
        let mut errors = validate::validate(object, None, schema, &Path::root());
        if let Some(scale) = &self.version().scale {
            scale.validate_spec(object, &mut errors);
            scale.validate_status(object, &mut errors);
        }
        errors.extend(meta::validate(object, schema));
        errors.extend(lists::validate(object, schema));
        self.run_rules(object, None, &mut errors);
        errors
    }

    /// The validation rules, unless the object is so wrong that they would stumble.
    fn run_rules(&self, new: &Value, old: Option<&Value>, errors: &mut ErrorList) {
        let Some(rules) = &self.version().rules else { return };
        if cel::has_blocking(errors) {
            errors.push(cel::unchecked());
        } else {
            errors.extend(rules.check(new, old));
        }
    }

    /// Every error of a changed object. What was wrong before and has not changed is not one.
    pub(crate) fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let schema = &self.version().parsed;
        let mut errors = check::check(new, |root| metadata::validate_update(&root.child("metadata"), old));
        errors.extend(validate::validate(new, Some(old), schema, &Path::root()));
        if let Some(scale) = &self.version().scale {
            scale.validate_spec(new, &mut errors);
            scale.validate_status(new, &mut errors);
        }
        errors.extend(meta::validate(new, schema));
        self.ratchet_lists(new, old, &mut errors);
        self.run_rules(new, Some(old), &mut errors);
        errors
    }

    /// Every error of a changed status.
    pub(crate) fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check::check(new, |root| metadata::validate_update(&root.child("metadata"), old));
        if let (Some(status), Some(schema)) =
            (new.get("status"), self.version().parsed.properties.get("status"))
        {
            errors.extend(validate::validate(status, old.get("status"), schema, &Path::new("status")));
        }
        if let Some(scale) = &self.version().scale {
            scale.validate_status(new, &mut errors);
        }
        self.ratchet_lists(new, old, &mut errors);
        self.run_rules(new, Some(old), &mut errors);
        errors
    }

    /// Duplicates, unless there were some before.
    fn ratchet_lists(&self, new: &Value, old: &Value, errors: &mut ErrorList) {
        let schema = &self.version().parsed;
        let found = lists::validate(new, schema);
        if !found.is_empty() && lists::validate(old, schema).is_empty() {
            errors.extend(found);
        }
    }

    /// Warnings to a client that writes this object: finalizers that may collide.
    pub(crate) fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let before: Vec<String> = old
            .map(|old| old.finalizers().iter().map(|name| (*name).to_owned()).collect())
            .unwrap_or_default();
        let mut warnings = Vec::new();
        for finalizer in new.finalizers() {
            if before.iter().any(|known| *known == *finalizer) || finalizer.contains('/') {
                continue;
            }
            if !["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer) {
                let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
                warnings.push(format!(
                    "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name{path} to avoid \
                     accidental conflicts with other finalizer writers"
                ));
            }
        }
        warnings
    }

    /// What every request to a deprecated version is told.
    pub fn deprecation(&self) -> Option<String> {
        let warning = self.version().deprecation.as_ref()?;
        Some(if warning.is_empty() {
            format!("{} {} is deprecated", self.gvk.api_version(), self.gvk.kind)
        } else {
            warning.clone()
        })
    }

    /// The scale of an object.
    pub(crate) fn read_scale(&self, object: &Value) -> Option<Value> {
        self.version().scale.as_ref().map(|scale| scale.read(object))
    }

    /// Writes a scale into an object.
    pub(crate) fn write_scale(&self, object: &mut Value, scale: &Value) {
        if let Some(paths) = &self.version().scale {
            paths.write(object, scale);
        }
    }

    /// Refuses a selector over fields this version does not offer.
    pub(crate) fn check_field_selector(&self, selector: &FieldSelector) -> Result<(), ApiError> {
        for requirement in selector.requirements() {
            let field = requirement.field.as_str();
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && self.definition.namespaced)
                || self.version().selectable.iter().any(|(name, _)| name == field);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
        }
        Ok(())
    }

    /// The columns of its table.
    pub(crate) fn columns(&self) -> Vec<Column> {
        printer::declare(&self.version().columns)
    }

    /// The cells of an object.
    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        printer::cells(&self.version().columns, object, now)
    }
}
