//! Quality of service: the class of a pod by its requests and limits.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, Pod};
use skep_api::quantity::Quantity;

use crate::view;

/// The class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// All containers have equal requests and limits of CPU and memory.
    Guaranteed,
    /// Some container asks for something.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        })
    }
}

/// A positive amount of `resource` in the container's limits or requests.
pub(crate) fn amount(container: &Container, limits: bool, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let list = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
    let quantity: Quantity = list?.get(resource)?.0.parse().ok()?;
    (quantity.sign() > 0).then_some(quantity)
}

/// The class of a pod.
#[must_use]
pub fn class(pod: &Pod) -> Qos {
    let containers = || view::init_containers(pod).iter().chain(&view::spec(pod).containers);
    let mut guaranteed = true;
    let mut any = false;
    for container in containers() {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (amount(container, false, resource), amount(container, true, resource));
            any |= request.is_some() || limit.is_some();
            // A missing request is taken from the limit.
            guaranteed &= match (&request, &limit) {
                (Some(request), Some(limit)) => request == limit,
                (None, Some(_)) => true,
                (_, None) => false,
            };
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "called with literals")]
    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(
            serde_json::json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }),
        )
        .unwrap()
    }

    #[test]
    fn classes() {
        use serde_json::json;
        assert_eq!(class(&pod(json!({}))), Qos::BestEffort);
        assert_eq!(class(&pod(json!({ "requests": { "cpu": "0" } }))), Qos::BestEffort);
        assert_eq!(class(&pod(json!({ "requests": { "cpu": "1" } }))), Qos::Burstable);
        assert_eq!(class(&pod(json!({ "limits": { "cpu": "1", "memory": "1Gi" } }))), Qos::Guaranteed);
        let equal = json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1000m", "memory": "1024Mi" } });
        assert_eq!(class(&pod(equal)), Qos::Guaranteed);
    }
}
