//! The steps every write shares: attributes for admission, managed fields, validation's verdict.

use serde_json::Value;
use skep_admission::{Attributes, Operation};
use skep_api::error::ApiError;
use skep_api::field::ErrorList;
use skep_api::user::UserInfo;

use super::{Registry, Resource, Target, WriteOptions};

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
            gvk: self.resource.gvk().clone(),
            gvr: self.resource.gvr().clone(),
            subresource: self.target.subresource.clone(),
            namespace: self.target.namespace.clone(),
            name: self.target.name.clone(),
            object,
            old_object: old,
            user: self.options.user.clone(),
            dry_run: self.options.dry_run,
            notes: self.options.notes.clone(),
        }
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
}

impl Registry {
    /// Lets admission refuse a connection to a subresource.
    pub async fn connect(&self, target: &Target, user: &UserInfo) -> Result<(), ApiError> {
        let resource = self.resource(&target.resource)?.clone();
        let options = WriteOptions { user: user.clone(), ..WriteOptions::default() };
        let write = Write { resource: &resource, target, options: &options };
        let mut attributes = write.attributes(Operation::Connect, None, None);
        self.admission.admit(&mut attributes).await?;
        self.admission.validate(&attributes).await
    }

    /// Lets admission change the object.
    pub(super) async fn mutate(
        &self,
        write: &Write<'_>,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let mut attributes = write.attributes(operation, Some(object), old.cloned());
        self.admission.admit(&mut attributes).await?;
        attributes.object.ok_or_else(|| ApiError::internal("admission removed the object"))
    }

    /// Lets admission refuse the object. Returns it.
    pub(super) async fn check(
        &self,
        write: &Write<'_>,
        operation: Operation,
        object: Value,
        old: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let attributes = write.attributes(operation, Some(object), old.cloned());
        self.admission.validate(&attributes).await?;
        attributes.object.ok_or_else(|| ApiError::internal("admission removed the object"))
    }
}
