//! Defaults of pods and pod templates.
//!
//! Some defaults belong to pods alone ([`pod`]): a template leaves them open until a pod is made from it.

use serde_json::{Value, json};
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use crate::strategy::{default_text, default_to, items_mut};

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults of a Pod.
pub(in crate::kinds) fn pod(pod: &mut Value) {
    let Some(pod_spec) = pod.get_mut("spec").filter(|s| s.is_object()) else { return };
    spec(pod_spec);
    default_to(pod_spec, &["enableServiceLinks"], true);
    let host_network = pod_spec.flag(&["hostNetwork"]);
    for list in CONTAINER_LISTS {
        for container in items_mut(pod_spec, &[list]) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
}

/// Defaults of the spec of a pod or of a template.
pub(in crate::kinds) fn spec(spec: &mut Value) {
    default_text(spec, &["dnsPolicy"], "ClusterFirst");
    default_text(spec, &["restartPolicy"], "Always");
    default_text(spec, &["schedulerName"], "default-scheduler");
    default_to(spec, &["securityContext"], json!({}));
    default_to(spec, &["terminationGracePeriodSeconds"], 30);
    // `serviceAccount` is the old name of `serviceAccountName`; both are shown.
    let account = spec.text(&["serviceAccountName"]).to_owned();
    let account = if account.is_empty() { spec.text(&["serviceAccount"]).to_owned() } else { account };
    if !account.is_empty() {
        spec.set(&["serviceAccountName"], account.as_str());
        spec.set(&["serviceAccount"], account);
    }
    for path in [&["overhead"][..], &["resources", "limits"], &["resources", "requests"]] {
        quantities(spec, path);
    }
    for list in CONTAINER_LISTS {
        items_mut(spec, &[list]).for_each(container);
    }
    for volume in items_mut(spec, &["volumes"]) {
        self::volume(volume);
    }
}

/// On the host's network a port is the host's port.
fn host_ports(container: &mut Value) {
    for port in items_mut(container, &["ports"]) {
        if port.int(&["hostPort"]).unwrap_or(0) == 0 {
            let number = port.int(&["containerPort"]).unwrap_or(0);
            port.set(&["hostPort"], number);
        }
    }
}

fn container(container: &mut Value) {
    default_text(container, &["terminationMessagePath"], "/dev/termination-log");
    default_text(container, &["terminationMessagePolicy"], "File");
    let policy = if is_latest(container.text(&["image"])) { "Always" } else { "IfNotPresent" };
    default_text(container, &["imagePullPolicy"], policy);
    default_to(container, &["resources"], json!({}));
    for list in ["limits", "requests"] {
        quantities(container, &["resources", list]);
    }
    for port in items_mut(container, &["ports"]) {
        default_text(port, &["protocol"], "TCP");
    }
    for variable in items_mut(container, &["env"]) {
        if variable.at(&["valueFrom", "fieldRef"]).is_some() {
            default_text(variable, &["valueFrom", "fieldRef", "apiVersion"], "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                if probe.int(&[field]).unwrap_or(0) == 0 {
                    probe.set(&[field], value);
                }
            }
            http_get(probe);
            if probe.at(&["grpc"]).is_some() {
                default_to(probe, &["grpc", "service"], "");
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            http_get(hook);
        }
    }
}

fn http_get(handler: &mut Value) {
    if handler.at(&["httpGet"]).is_some() {
        default_text(handler, &["httpGet", "path"], "/");
        default_text(handler, &["httpGet", "scheme"], "HTTP");
    }
}

/// Whether an image names the tag `latest`, or no tag and no digest at all.
fn is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    // A colon before a slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none(),
    }
}

fn volume(volume: &mut Value) {
    let sources =
        volume.as_object().map_or(0, |v| v.iter().filter(|(k, s)| *k != "name" && !s.is_null()).count());
    if sources == 0 {
        volume.set(&["emptyDir"], json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if volume.at(&[source]).is_some() {
            default_to(volume, &[source, "defaultMode"], 0o644);
        }
    }
    if volume.at(&["hostPath"]).is_some() {
        default_to(volume, &["hostPath", "type"], "");
    }
    if volume.at(&["iscsi"]).is_some() {
        default_text(volume, &["iscsi", "iscsiInterface"], "default");
    }
    if volume.at(&["image"]).is_some() {
        let policy = if is_latest(volume.text(&["image", "reference"])) { "Always" } else { "IfNotPresent" };
        default_text(volume, &["image", "pullPolicy"], policy);
    }
    if let Some(Value::String(limit)) = volume.at(&["emptyDir", "sizeLimit"]).cloned() {
        volume.set(&["emptyDir", "sizeLimit"], canonical(&limit));
    }
    for item in items_mut(volume, &["downwardAPI", "items"]) {
        field_ref(item);
    }
    for source in items_mut(volume, &["projected", "sources"]) {
        if source.at(&["serviceAccountToken"]).is_some() {
            default_to(source, &["serviceAccountToken", "expirationSeconds"], 3600);
        }
        for item in items_mut(source, &["downwardAPI", "items"]) {
            field_ref(item);
        }
    }
    if volume.at(&["ephemeral", "volumeClaimTemplate", "spec"]).is_some() {
        default_text(volume, &["ephemeral", "volumeClaimTemplate", "spec", "volumeMode"], "Filesystem");
    }
}

fn field_ref(item: &mut Value) {
    if item.at(&["fieldRef"]).is_some() {
        default_text(item, &["fieldRef", "apiVersion"], "v1");
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container.map(&["resources", "limits"]).cloned() else { return };
    for (name, amount) in limits {
        default_to(container, &["resources", "requests", &name], amount);
    }
}

/// Puts the quantities of a map into canonical form; what is none is left for validation.
pub(in crate::kinds) fn quantities(object: &mut Value, path: &[&str]) {
    let Some(map) = object.map(path).cloned() else { return };
    for (name, amount) in map {
        let text = match &amount {
            Value::String(text) => canonical(text),
            Value::Number(number) => canonical(&number.to_string()),
            _ => continue,
        };
        let mut full = path.to_vec();
        full.push(&name);
        object.set(&full, text);
    }
}

/// A quantity in canonical form, or the text as it is.
pub(in crate::kinds) fn canonical(text: &str) -> String {
    text.parse::<Quantity>().map_or_else(|_| text.to_owned(), |quantity| quantity.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("host:5000/nginx", true),
            ("host:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn a_pod_is_filled_in_once() {
        let mut object = json!({"spec": {
            "hostNetwork": true,
            "serviceAccountName": "x",
            "containers": [{
                "name": "a", "image": "i:1",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
                "livenessProbe": {"httpGet": {"port": 80}},
            }],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
        }});
        pod(&mut object);
        let want = json!({"spec": {
            "containers": [{
                "image": "i:1", "imagePullPolicy": "IfNotPresent",
                "livenessProbe": {"failureThreshold": 3, "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                    "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
                "name": "a",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "hostNetwork": true,
            "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
            "serviceAccount": "x", "serviceAccountName": "x", "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "e", "emptyDir": {}},
                {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "p", "projected": {"defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}],
        }});
        assert_eq!(object, want);
        pod(&mut object);
        assert_eq!(object, want);
    }
}
