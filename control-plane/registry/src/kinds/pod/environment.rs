//! Rules of environment variables and of the references they and files may have to the pod's own fields.

use skep_api::field::Error;
use skep_api::names;
use skep_api::quantity::Quantity;

use super::mounts::relative;
use super::volumes::Volumes;
use crate::strategy::check::At;

const FIELD_PATHS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// `env` and `envFrom` of a container.
pub(super) fn validate(container: &At<'_>, volumes: &Volumes<'_>) {
    for variable in container.child("env").items() {
        variable.child("name").require_named(names::env_var);
        let source = variable.child("valueFrom");
        if source.is_set() {
            self::source(&variable, &source, volumes);
        }
    }
    let list = container.child("envFrom");
    for source in list.items() {
        source.child("prefix").named(names::env_var);
        let references = ["configMapRef", "secretRef"].map(|name| source.child(name));
        let given: Vec<&At<'_>> = references.iter().filter(|r| r.is_set()).collect();
        for reference in &given {
            reference
                .child("name")
                .require_named(|name| names::dns1123_subdomain(&names::mask_trailing_dash(name)));
        }
        let detail = match given.len() {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        // The path is the list's, as upstream has it.
        list.error(Error::invalid(list.path(), "", detail));
    }
}

fn source(variable: &At<'_>, source: &At<'_>, volumes: &Volumes<'_>) {
    let given = SOURCES.iter().filter(|name| source.child(name).is_set()).count();
    field_ref(&source.child("fieldRef"), FIELD_PATHS);
    resource_ref(&source.child("resourceFieldRef"), false);
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.child(name);
        if reference.is_set() {
            let named = reference.child("name");
            named.invalid_text(names::dns1123_subdomain(named.text()));
            reference.child("key").require_named(names::config_map_key);
        }
    }
    file_ref(&source.child("fileKeyRef"), volumes);
    let complain = |detail: &str| source.error(Error::invalid(source.path(), "", detail));
    if given == 0 {
        complain(
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !variable.child("value").is_empty() {
        complain("may not be specified when `value` is not empty");
    } else if given > 1 {
        complain("may not have more than one field specified at a time");
    }
}

/// A variable from a file of an `emptyDir`.
fn file_ref(reference: &At<'_>, volumes: &Volumes<'_>) {
    if !reference.is_set() {
        return;
    }
    reference.child("key").require_named(names::env_var);
    let volume = reference.child("volumeName");
    if volume.require() {
        match volumes.get(volume.text()) {
            None => volume.not_found(),
            Some(source) if source.get("emptyDir").is_none() => {
                volume.invalid("referenced volume must be of type emptyDir");
            }
            Some(_) => {}
        }
    }
    let path = reference.child("path");
    if path.require() {
        relative(&path);
    }
}

/// A reference to a field of the pod, one of those a container may see.
pub(super) fn field_ref(reference: &At<'_>, supported: &[&str]) {
    if !reference.is_set() {
        return;
    }
    let path = reference.child("fieldPath");
    if !reference.child("apiVersion").require() || !path.require() {
        return;
    }
    let complain = |value: &str, detail: String| {
        reference.error(Error::invalid(reference.path(), value, detail));
    };
    let subscript = path.text().strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            names::qualified_name(&key).into_iter().for_each(|detail| complain(&key, detail));
        }
        Some(("metadata.labels", key)) => {
            names::qualified_name(key).into_iter().for_each(|detail| complain(key, detail));
        }
        Some((field, _)) => complain(field, "does not support subscript".to_owned()),
        None => path.one_of(supported),
    }
}

/// A reference to a limit or request of a container; a file names the container.
pub(super) fn resource_ref(reference: &At<'_>, file: bool) {
    if !reference.is_set() {
        return;
    }
    let resource = reference.child("resource");
    let name = resource.text();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    let named = !file || reference.child("containerName").require();
    if named && resource.require() && !huge {
        resource.one_of(RESOURCES);
    }
    let divisor = reference.child("divisor");
    let Some(amount) = divisor.quantity().filter(|amount| !amount.is_zero()) else { return };
    divided(&divisor, name, &amount);
}

fn divided(divisor: &At<'_>, resource: &str, amount: &Quantity) {
    let text = amount.to_string();
    let bytes = BYTES.contains(&text.as_str());
    let list = BYTES.join(", ");
    let detail = match resource {
        "limits.cpu" | "requests.cpu" if !["1", "1m"].contains(&text.as_str()) => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "limits.memory" | "requests.memory" if !bytes => {
            format!("only divisor's values {list} are supported with the memory resource")
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" if !bytes => {
            format!("only divisor's values {list} are supported with the local ephemeral storage resource")
        }
        name if name.contains(".hugepages-") && !bytes => {
            format!("only divisor's values {list} are supported with the hugepages resource")
        }
        _ => return,
    };
    divisor.error(Error::invalid(divisor.path(), resource, detail));
}
