//! The built-in plug-ins, one file each.

use std::sync::Arc;

use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use crate::{Attributes, Chain, Plugin, Reader};

pub mod default_toleration_seconds;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod priority;
pub mod resource_quota;
pub mod service_account;

/// The plug-ins a cluster runs by default, in the order that lets later ones see what earlier ones set;
/// quota comes last, so that nothing is counted that is then refused.
pub fn standard(reader: &Arc<dyn Reader>) -> Chain {
    let plugins: Vec<Box<dyn Plugin>> = vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle::new(Arc::clone(reader))),
        Box::new(limit_ranger::LimitRanger::new(Arc::clone(reader))),
        Box::new(service_account::ServiceAccount::new(Arc::clone(reader))),
        Box::new(node_restriction::NodeRestriction::new(Arc::clone(reader))),
        Box::new(priority::Priority::new(Arc::clone(reader))),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(resource_quota::ResourceQuota::new(Arc::clone(reader))),
    ];
    Chain::new(plugins)
}

fn core(resource: &str) -> GroupVersionResource {
    GroupVersionResource::new("", "v1", resource)
}

fn forbidden(attributes: &Attributes, why: impl std::fmt::Display) -> ApiError {
    // A generated name is not known yet.
    let object = attributes.object.as_ref();
    let name = match attributes.name.as_str() {
        "" => object.map_or("", |object| object.name()),
        name => name,
    };
    let name = if name.is_empty() { object.map_or("", |object| object.generate_name()) } else { name };
    ApiError::forbidden(&attributes.gvr, name, why)
}

/// Several complaints as one, the way the API joins them.
fn join(complaints: &[String]) -> String {
    match complaints {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
