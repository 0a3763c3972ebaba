//! Create.

use serde_json::Value;
use skep_admission::Operation;
use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};

use super::admit::Write;
use super::commit::{self, Committed};
use super::fields::own;
use super::{Registry, Resource, Target, WriteOptions, Written, meta};
use crate::alloc;
use crate::cache::set_resource_version;

/// How often a generated name is tried.
const NAMES: usize = 8;

/// How often an address drawn for a service is tried.
const DRAWS: usize = 8;

impl Registry {
    /// Creates an object. The target's name may be empty: the object's own name counts.
    pub async fn create(
        &self,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let named = !meta::text(&object, "name").is_empty();
        let tries = if named { 1 } else { NAMES };
        let mut outcome = Err(ApiError::internal("no name was tried"));
        for _ in 0..tries {
            outcome = self.create_once(target, object.clone(), options, false).await;
            if !outcome.as_ref().is_err_and(ApiError::is_already_exists) {
                break;
            }
        }
        outcome
    }

    /// One try. `applied`: the managed fields are those of an apply, already in the object.
    pub(super) async fn create_once(
        &self,
        target: &Target,
        mut object: Value,
        options: &WriteOptions,
        applied: bool,
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?;
        if resource.kind().custom().is_some_and(|custom| custom.definition().terminating) {
            return Err(terminating(&resource));
        }
        let kind = resource.kind();
        if meta::sent_revision(&object)? != 0 {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        check_place(&object, target)?;
        meta::begin_create(&mut object, &target.namespace)?;
        kind.default(&mut object);
        // A generated name comes after mutation, which may still change what it begins with.
        let sent = Target { name: meta::text(&object, "name").to_owned(), ..target.clone() };
        let write = Write { resource: &resource, target: &sent, options };
        object = self.mutate(&write, Operation::Create, object, None).await?;
        check_place(&object, target)?;
        meta::fill_on_create(&mut object, &target.namespace)?;
        kind.prepare_create(&mut object);
        kind.default(&mut object);
        let name = meta::text(&object, "name").to_owned();
        let target = Target { name: name.clone(), ..target.clone() };
        let write = Write { resource: &resource, target: &target, options };
        if name.is_empty() {
            let path = Path::new("metadata").child("name");
            let mut errors =
                ErrorList::from(vec![Error::required(&path, "name or generateName is required")]);
            errors.extend(kind.validate_body(&object));
            return Err(ApiError::invalid(resource.gvk(), "", &errors));
        }

        for _ in 0..DRAWS {
            let mut object = object.clone();
            let allocated = if write.is("", "services") {
                let owner = format!("{}/{name}", target.namespace);
                let plan = alloc::plan(&self.pools, owner, &mut object, None);
                Some(plan.map_err(|errors| ApiError::invalid(resource.gvk(), &name, &errors))?)
            } else {
                None
            };
            write.verdict(&kind.validate_create(&object), &name)?;
            object = self.check(&write, Operation::Create, object, None).await?;
            if !applied {
                object = own(&write, None, object).await;
            }
            let warnings = kind.warnings(&object, None);
            if options.dry_run {
                self.consistent().await?;
                if resource.cache().get(&target.namespace, &name).is_some() {
                    return Err(ApiError::already_exists(resource.gvr(), &name));
                }
                return Ok(Written { object, created: true, warnings });
            }
            let key = resource.key(&target.namespace, &name);
            let put = commit::Write::Put(resource.encode(&object).await?);
            match commit::commit(&*self.storage, &key, 0, put, allocated).await? {
                Committed::Yes(revision) => {
                    set_resource_version(&mut object, revision);
                    return Ok(Written { object, created: true, warnings });
                }
                Committed::Stale => return Err(ApiError::already_exists(resource.gvr(), &name)),
                Committed::Taken => {}
            }
        }
        Err(ApiError::internal("no free service address could be reserved, try again"))
    }
}

/// 405: the definition is going, and with it all objects.
fn terminating(resource: &Resource) -> ApiError {
    let message = "create not allowed while custom resource definition is terminating".to_owned();
    ApiError { message, ..ApiError::method_not_supported(resource.gvr(), "create") }
}

/// The object must lie where the request says.
pub(super) fn check_place(object: &Value, target: &Target) -> Result<(), ApiError> {
    let namespace = meta::text(object, "namespace");
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(if target.namespace.is_empty() {
            ApiError::bad_request("namespace is not allowed on this type")
        } else {
            ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        });
    }
    let name = meta::text(object, "name");
    if !target.name.is_empty() && !name.is_empty() && name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    Ok(())
}
