//! The controls of the restricted level: what hardening asks of a pod.

use serde_json::Value;
use skep_api::object::ObjectExt;

use super::{Pod, Values, Violation, baseline, containers, plural, quoted};

/// No way to more privileges; Windows has none of it.
pub(super) fn privilege_escalation(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    let path = ["securityContext", "allowPrivilegeEscalation"];
    let bad = pod.containers_where(|container| container.at(&path) != Some(&Value::Bool(false)));
    if bad.is_empty() {
        return None;
    }
    let text = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    Violation::new("allowPrivilegeEscalation != false", text)
}

/// All capabilities dropped, but for binding low ports.
pub(super) fn capabilities(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    let list = |container: &Value, field: &str| -> Vec<String> {
        let items = container.items(&["securityContext", "capabilities", field]).iter();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let keeping = pod.containers_where(|container| !list(container, "drop").iter().any(|name| name == "ALL"));
    let mut forbidden = Values::new();
    let adding = pod.containers_where(|container| {
        let added = list(container, "add");
        let more = added.into_iter().filter(|name| name != "NET_BIND_SERVICE").collect::<Vec<_>>();
        forbidden.extend(more.iter().cloned());
        !more.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, containers(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(&forbidden)
        ));
    }
    if details.is_empty() { None } else { Violation::new("unrestricted capabilities", details.join("; ")) }
}

/// `/proc` stays masked, also for a pod with users of its own.
pub(super) fn proc_mount(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    baseline::proc_mount(pod, 0)
}

/// The kinds of volumes that hold nothing but what the API gives.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The kinds that are told by name.
const OTHER_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

/// Volumes of those kinds only.
pub(super) fn volumes(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let has = |volume: &Value, kind: &str| volume.at(&[kind]).is_some_and(|source| !source.is_null());
    let mut kinds = Values::new();
    let mut bad = Vec::new();
    for volume in pod.list("volumes") {
        if VOLUMES.iter().any(|kind| has(volume, kind)) {
            continue;
        }
        bad.push(volume.text(&["name"]));
        let kind = OTHER_VOLUMES.iter().find(|kind| has(volume, kind));
        kinds.insert((*kind.unwrap_or(&"unknown")).to_owned());
    }
    if bad.is_empty() {
        return None;
    }
    Violation::new(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", bad.len()),
            quoted(&bad),
            plural("uses", "use", bad.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted(&kinds)
        ),
    )
}

/// Not as root; since 1.35 a pod with users of its own may.
pub(super) fn run_as_non_root(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let setters = pod.setters(&["runAsNonRoot"], |value| *value == Value::Bool(false));
    if !setters.is_empty() {
        let text = format!("{} must not set securityContext.runAsNonRoot=false", setters.text());
        return Violation::new(REASON, text);
    }
    if pod.spec(&["securityContext", "runAsNonRoot"]) == Some(&Value::Bool(true)) {
        return None;
    }
    let silent =
        pod.containers_where(|container| container.at(&["securityContext", "runAsNonRoot"]).is_none());
    if silent.is_empty() {
        return None;
    }
    Violation::new(
        REASON,
        format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)),
    )
}

/// Not as user 0; since 1.35 a pod with users of its own may.
pub(super) fn run_as_user(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.has_own_users() {
        return None;
    }
    let setters = pod.setters(&["runAsUser"], |value| value.as_i64() == Some(0));
    if setters.is_empty() {
        return None;
    }
    Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", setters.text()))
}

/// A seccomp profile must be set; Windows has none.
pub(super) fn seccomp(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 25 && pod.is_windows() {
        return None;
    }
    // What the baseline forbids is told as the baseline tells it.
    if let Some(violation) = baseline::seccomp(pod, minor) {
        return Some(violation);
    }
    if pod.spec(&["securityContext", "seccompProfile"]).is_some() {
        return None;
    }
    let silent =
        pod.containers_where(|container| container.at(&["securityContext", "seccompProfile"]).is_none());
    if silent.is_empty() {
        return None;
    }
    Violation::new(
        "seccompProfile",
        format!(
            r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
            containers(&silent)
        ),
    )
}
