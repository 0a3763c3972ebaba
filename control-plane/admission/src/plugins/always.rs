//! AlwaysAdmit and AlwaysDeny: the two simplest answers. Off by default.

use async_trait::async_trait;
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Attributes, Operation, Plugin};

/// Says yes to everything.
pub struct AlwaysAdmit;

#[async_trait]
impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _: Operation, _: &GroupVersionResource, _: &str) -> bool {
        false
    }
}

/// Says no to everything.
pub struct AlwaysDeny;

#[async_trait]
impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _: Operation, _: &GroupVersionResource, _: &str) -> bool {
        true
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        Err(forbidden(attributes, "admission control is denying all modifications"))
    }
}
