//! NamespaceLifecycle: nothing is made in a namespace that is missing or being deleted, and the
//! namespaces a cluster stands on can't be deleted.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::{core, forbidden};
use crate::{Attributes, Operation, Plugin, Reader};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plug-in.
pub struct NamespaceLifecycle {
    reader: Arc<dyn Reader>,
}

impl NamespaceLifecycle {
    /// Reads namespaces through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, _: &str) -> bool {
        match operation {
            Operation::Delete => gvr.group.is_empty() && gvr.resource == "namespaces",
            Operation::Create | Operation::Update => true,
            Operation::Connect => false,
        }
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        if attributes.gvr.group.is_empty() && attributes.gvr.resource == "namespaces" {
            let delete = attributes.operation == Operation::Delete && attributes.subresource.is_empty();
            return if delete && IMMORTAL.contains(&attributes.name.as_str()) {
                Err(forbidden(attributes, "this namespace may not be deleted"))
            } else {
                Ok(())
            };
        }
        // Asking what one may do is allowed anywhere: the answer tells nothing about the namespace.
        let review = attributes.is("authorization.k8s.io", "localsubjectaccessreviews");
        if attributes.namespace.is_empty() || review {
            return Ok(());
        }
        let gvr = core("namespaces");
        let Some(namespace) = self.reader.get(&gvr, None, &attributes.namespace).await? else {
            return Err(ApiError::not_found(&gvr, &attributes.namespace));
        };
        let ending =
            namespace.deletion_timestamp().is_some() || namespace.text(&["status", "phase"]) == "Terminating";
        if attributes.operation != Operation::Create || !ending {
            return Ok(());
        }
        let name = &attributes.namespace;
        let mut error = forbidden(
            attributes,
            format!("unable to create new content in namespace {name} because it is being terminated"),
        );
        let cause = StatusCause {
            reason: Some("NamespaceTerminating".into()),
            message: Some(format!("namespace {name} is being terminated")),
            field: Some("metadata.namespace".into()),
        };
        let details = error.details.take().map_or_else(StatusDetails::default, |details| *details);
        Err(error.with_details(StatusDetails { causes: Some(vec![cause]), ..details }))
    }
}
