//! Admin access to devices that others use is for namespaces that an administrator has marked (KEP-5018).
//!
//! A claim's spec never changes, so it is asked once; in the status it is asked when devices are given.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_admission::{Attributes, Operation, Plugin, Reader};
use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

const GROUP: &str = "resource.k8s.io";
/// The mark on a namespace.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The plug-in.
pub(super) struct AdminAccess {
    reader: Arc<dyn Reader>,
}

impl AdminAccess {
    pub(super) fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }
}

/// The first request of a claim that wants it. Upstream tells it at this path for templates too.
fn wanted(object: &Value, spec: &[&str]) -> Option<Path> {
    let path: Vec<&str> = spec.iter().copied().chain(["devices", "requests"]).collect();
    let requests = object.items(&path);
    let index = requests.iter().position(|request| request.flag(&["exactly", "adminAccess"]))?;
    Some(Path::new("spec").child("devices").child("requests").index(index).child("adminAccess"))
}

/// The first device that was given so.
fn given(object: &Value) -> Option<Path> {
    let results = object.items(&["status", "allocation", "devices", "results"]);
    let index = results.iter().position(|result| result.flag(&["adminAccess"]))?;
    let path = Path::new("status").child("allocation").child("devices").child("results");
    Some(path.index(index).child("adminAccess"))
}

#[async_trait]
impl Plugin for AdminAccess {
    fn name(&self) -> &'static str {
        "DeviceAdminAccess"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        gvr.group == GROUP
            && matches!(
                (operation, gvr.resource.as_str(), subresource),
                (Operation::Create, "resourceclaims" | "resourceclaimtemplates", "")
                    | (Operation::Update, "resourceclaims", "status")
            )
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(object) = &attributes.object else { return Ok(()) };
        let path = match (attributes.gvr.resource.as_str(), attributes.subresource.as_str()) {
            (_, "status") if attributes.old_object.as_ref().is_some_and(|old| given(old).is_some()) => None,
            (_, "status") => given(object),
            ("resourceclaimtemplates", _) => wanted(object, &["spec", "spec"]),
            _ => wanted(object, &["spec"]),
        };
        let Some(path) = path else { return Ok(()) };
        let namespaces = GroupVersionResource::new("", "v1", "namespaces");
        let namespace = self.reader.get(&namespaces, None, &attributes.namespace).await?;
        if namespace.is_some_and(|namespace| namespace.label(LABEL) == Some("true")) {
            return Ok(());
        }
        let why =
            format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let errors = ErrorList::from(vec![Error::forbidden(&path, why)]);
        Err(ApiError::invalid(&attributes.gvk, object.name(), &errors))
    }
}
