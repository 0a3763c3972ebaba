//! The steps every write shares: attributes for admission, validation's verdict.

use serde_json::{Map, Value, json};
use skep_admission::{Attributes, Operation};
use skep_api::error::ApiError;
use skep_api::field::ErrorList;
use skep_api::resource::GroupVersionKind;
use skep_machinery::codec::FieldValidation;

use super::{Registry, Resource, Target, WriteOptions};
use crate::strategy::Kind;

/// One write on its way through the steps.
pub(super) struct Write<'a> {
    pub(super) resource: &'a Resource,
    pub(super) target: &'a Target,
    pub(super) options: &'a WriteOptions,
}

impl Write<'_> {
    /// What admission sees.
    pub(super) fn attributes(
        &self,
        operation: Operation,
        object: Option<Value>,
        old: Option<Value>,
    ) -> Attributes {
        Attributes {
            operation,
            gvk: self.kind(),
            gvr: self.resource.gvr().clone(),
            subresource: self.target.subresource.clone(),
            namespace: self.target.namespace.clone(),
            name: self.target.name.clone(),
            object,
            old_object: old,
            user: self.options.user.clone(),
            dry_run: self.options.dry_run,
            options: self.sent_options(operation),
            notes: self.options.notes.clone(),
            ..Attributes::default()
        }
    }

    /// The kind that travels: a subresource may have one of its own.
    fn kind(&self) -> GroupVersionKind {
        let below = self.resource.kind().subresource(&self.target.subresource);
        below.map_or_else(|| self.resource.gvk().clone(), |below| below.kind)
    }

    /// The options of a create or an update as the API spells them. Those of a deletion are its own.
    fn sent_options(&self, operation: Operation) -> Value {
        let kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut options = Map::new();
        options.insert("kind".to_owned(), json!(kind));
        options.insert("apiVersion".to_owned(), json!("meta.k8s.io/v1"));
        if self.options.dry_run {
            options.insert("dryRun".to_owned(), json!(["All"]));
        }
        if operation != Operation::Delete {
            if !self.options.field_manager.is_empty() {
                options.insert("fieldManager".to_owned(), json!(self.options.field_manager));
            }
            let validation = match self.options.field_validation {
                FieldValidation::Strict => Some("Strict"),
                FieldValidation::Ignore => Some("Ignore"),
                FieldValidation::Warn => None,
            };
            if let Some(validation) = validation {
                options.insert("fieldValidation".to_owned(), json!(validation));
            }
        }
        Value::Object(options)
    }

    /// 422 when something is wrong.
    pub(super) fn verdict(&self, errors: &ErrorList, name: &str) -> Result<(), ApiError> {
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.resource.gvk(), name, errors)) }
    }

    /// Is this the resource `group/name`?
    pub(super) fn is(&self, group: &str, resource: &str) -> bool {
        let gvr = self.resource.gvr();
        gvr.group == group && gvr.resource == resource
    }

    /// The kind, if this is a write to its scale: admission then sees a `Scale`.
    fn scale(&self) -> Option<&Kind> {
        let kind = self.resource.kind();
        (self.target.subresource == "scale" && kind.has_scale()).then_some(kind)
    }
}

impl Registry {
    /// Lets admission refuse a connection to a subresource. `object` is what its options say, a
    /// `PodExecOptions` for instance.
    pub async fn connect(
        &self,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        let resource = self.resource(&target.resource)?;
        let write = Write { resource: &resource, target, options };
        let object = self.mutate(&write, Operation::Connect, object, None).await?;
        self.check(&write, Operation::Connect, object, None).await.map(|_| ())
    }

    /// Lets admission change or refuse what is created below an object without being stored: a
    /// TokenRequest, a Binding, an Eviction.
    pub async fn admit_below(
        &self,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Value, ApiError> {
        let resource = self.resource(&target.resource)?;
        let write = Write { resource: &resource, target, options };
        let object = self.mutate(&write, Operation::Create, object, None).await?;
        self.check(&write, Operation::Create, object, None).await
    }

    /// Lets admission change the object.
    pub(super) async fn mutate(
        &self,
        write: &Write<'_>,
        operation: Operation,
        mut object: Value,
        old: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let gvr = write.resource.gvr();
        if !self.admission.handles(operation, gvr, &write.target.subresource) {
            return Ok(object);
        }
        let removed = || ApiError::internal("admission removed the object");
        if let Some(kind) = write.scale() {
            let (seen, before) = (kind.read_scale(&object), old.and_then(|old| kind.read_scale(old)));
            let mut attributes = write.attributes(operation, seen, before);
            self.admission.admit(&mut attributes).await?;
            kind.write_scale(&mut object, &attributes.object.ok_or_else(removed)?);
            return Ok(object);
        }
        let mut attributes = write.attributes(operation, Some(object), old.cloned());
        self.admission.admit(&mut attributes).await?;
        attributes.object.ok_or_else(removed)
    }

    /// Lets admission refuse the object. Returns it.
    pub(super) async fn check(
        &self,
        write: &Write<'_>,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let gvr = write.resource.gvr();
        if !self.admission.handles(operation, gvr, &write.target.subresource) {
            return Ok(object);
        }
        if let Some(kind) = write.scale() {
            let before = old.and_then(|old| kind.read_scale(old));
            self.admission.validate(&write.attributes(operation, kind.read_scale(&object), before)).await?;
            return Ok(object);
        }
        let attributes = write.attributes(operation, Some(object), old.cloned());
        self.admission.validate(&attributes).await?;
        attributes.object.ok_or_else(|| ApiError::internal("admission removed the object"))
    }
}
