//! The downward API: what a pod may know of itself, by `fieldRef` and `resourceFieldRef`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use skep_api::quantity::Quantity;

/// A reference that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The path names no field that pods may know.
    #[error("field label not supported: {0}")]
    Unsupported(String),
    /// The resource is not one that can be asked for.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// No such container in the pod.
    #[error("container {0} not found")]
    Container(String),
    /// The divisor is no quantity, or zero.
    #[error("invalid divisor: {0}")]
    Divisor(String),
}

/// What the node adds to the answers: a container without a limit may use all that the node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Allocatable CPU in thousandths.
    pub milli_cpu: i64,
    /// Allocatable memory in bytes.
    pub memory: i64,
    /// Allocatable ephemeral storage in bytes.
    pub ephemeral_storage: i64,
}

/// Labels or annotations as the downward API prints them: `key="value"`, a line each.
#[must_use]
pub fn print_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{key}={value:?}");
    }
    text
}

/// The value of a `fieldRef` path.
///
/// # Errors
/// [`FieldError::Unsupported`].
pub fn field_ref(pod: &Pod, path: &str) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(FieldError::Unsupported(path.to_owned())),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => Some(print_map(meta.labels.as_ref())),
        "metadata.annotations" => Some(print_map(meta.annotations.as_ref())),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.hostIP" => status.and_then(|status| status.host_ip.clone()),
        "status.hostIPs" => {
            status.map(|status| joined(status.host_ips.iter().flatten().map(|ip| ip.ip.as_str())))
        }
        "status.podIP" => status.and_then(|status| status.pod_ip.clone()),
        "status.podIPs" => {
            status.map(|status| joined(status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str())))
        }
        _ => return Err(FieldError::Unsupported(path.to_owned())),
    };
    Ok(value.unwrap_or_default())
}

fn joined<'a>(ips: impl Iterator<Item = &'a str>) -> String {
    ips.collect::<Vec<_>>().join(",")
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    Some((map, key.strip_suffix("']")?))
}

/// The value of a `resourceFieldRef`, asked from `container` where the reference names none.
///
/// # Errors
/// When container, resource or divisor are not valid.
pub fn resource_ref(
    pod: &Pod,
    container: Option<&str>,
    reference: &ResourceFieldSelector,
    node: &NodeFacts,
) -> Result<String, FieldError> {
    let wanted =
        reference.container_name.as_deref().filter(|name| !name.is_empty()).or(container).unwrap_or_default();
    let container = find(pod, wanted).ok_or_else(|| FieldError::Container(wanted.to_owned()))?;
    let unsupported = || FieldError::Resource(reference.resource.clone());
    let (kind, resource) = reference.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let list = match kind {
        "limits" => resources.and_then(|own| own.limits.as_ref()),
        "requests" => resources.and_then(|own| own.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let given = list.and_then(|list| list.get(resource)).and_then(|text| text.0.parse::<Quantity>().ok());
    let amount = match (given, kind, resource) {
        (Some(given), _, _) => given,
        (None, "limits", "cpu") => Quantity::from_milli(node.milli_cpu),
        (None, "limits", "memory") => Quantity::from_bytes(node.memory),
        (None, "limits", "ephemeral-storage") => Quantity::from_bytes(node.ephemeral_storage),
        (None, _, "cpu" | "memory" | "ephemeral-storage") => Quantity::from_int(0),
        (None, _, huge) if huge.starts_with("hugepages-") => Quantity::from_int(0),
        (None, _, _) => return Err(unsupported()),
    };
    let divisor = match reference
        .divisor
        .as_ref()
        .map(|text| text.0.as_str())
        .filter(|text| !text.is_empty() && *text != "0")
    {
        Some(text) => text.parse::<Quantity>().map_err(|_| FieldError::Divisor(text.to_owned()))?,
        None => Quantity::from_int(1),
    };
    // CPU is divided in thousandths, everything else in whole units; both round up.
    let (amount, divisor) = match resource {
        "cpu" => (amount.milli_value(), divisor.milli_value()),
        _ => (amount.value(), divisor.value()),
    };
    if divisor <= 0 {
        return Err(FieldError::Divisor(divisor.to_string()));
    }
    Ok(((amount + divisor - 1) / divisor).to_string())
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|container| container.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x \"y\""}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn fields() {
        let cases = [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"x \\\"y\\\"\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations", Ok("")),
            ("spec.nodeName", Ok("node")),
            ("status.podIPs", Ok("10.0.0.1,fd00::1")),
            ("spec.containers", Err(FieldError::Unsupported("spec.containers".to_owned()))),
            ("spec['x']", Err(FieldError::Unsupported("spec['x']".to_owned()))),
        ];
        for (path, want) in cases {
            assert_eq!(field_ref(&pod(), path), want.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources() {
        let node = NodeFacts { milli_cpu: 2000, memory: 1 << 30, ephemeral_storage: 0 };
        let cases = [
            ("limits.cpu", None, Ok("2")),
            ("limits.cpu", Some("1m"), Ok("1500")),
            ("limits.memory", Some("1Mi"), Ok("64")),
            ("requests.cpu", None, Ok("0")),
            ("limits.ephemeral-storage", None, Ok("0")),
            ("limits.dogs", None, Err(FieldError::Resource("limits.dogs".to_owned()))),
            ("limits.cpu", Some("x"), Err(FieldError::Divisor("x".to_owned()))),
        ];
        for (resource, divisor, want) in cases {
            let reference =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor.unwrap_or("0")}));
            let got = resource_ref(&pod(), Some("c"), &reference.expect("a reference"), &node);
            assert_eq!(got, want.map(str::to_owned), "{resource} {divisor:?}");
        }
    }
}
