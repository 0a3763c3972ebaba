//! Pods whose sockets the service programs leave alone: what they dial is translated packet by packet, so that the
//! address they dialled is on the wire. A service mesh's proxy beside the application needs to see it.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use super::SharedTools;
use crate::Error;

/// `off`: leave the pod's sockets alone; `on`: do not, whatever else speaks for it.
const ANNOTATION: &str = "skep.dev/socket-lb";
/// Put on a pod by those that put a proxy beside its containers.
const MESHES: [&str; 2] = ["sidecar.istio.io/status", "linkerd.io/proxy-version"];

/// Whether a pod's sockets are to be left alone.
pub(super) fn opts_out(pod: &Pod) -> bool {
    let Some(annotations) = &pod.metadata.annotations else { return false };
    match annotations.get(ANNOTATION).map(String::as_str) {
        Some("off") => true,
        Some("on") => false,
        _ => MESHES.iter().any(|mesh| annotations.contains_key(*mesh)),
    }
}

/// Leaves the sockets of a pod's network namespace alone.
pub(super) async fn leave_alone(tools: &SharedTools, netns: PathBuf) -> Result<(), Error> {
    set(tools, netns, true).await
}

/// To be called before a pod's network namespace goes.
pub(super) async fn forget(tools: &SharedTools, uid: &str) -> Result<(), Error> {
    set(tools, tools.node.netns_dir().join(uid), false).await
}

async fn set(tools: &SharedTools, netns: PathBuf, skip: bool) -> Result<(), Error> {
    let Some(plane) = tools.data_plane.clone() else { return Ok(()) };
    let work = move || plane.skip_sockets(&netns, skip);
    Ok(tokio::task::spawn_blocking(work).await.map_err(|e| Error::Config(e.to_string()))??)
}

/// Forgets pods that went while no agent ran.
pub(super) async fn prune(tools: &SharedTools) -> Result<(), Error> {
    let Some(plane) = tools.data_plane.clone() else { return Ok(()) };
    let folder = tools.node.netns_dir();
    let work = move || {
        let namespaces: Vec<PathBuf> = match std::fs::read_dir(&folder) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            // The first pod makes it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::Config(format!("listing {}: {error}", folder.display()))),
        };
        Ok(plane.keep_skipped(&namespaces)?)
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Config(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_opt_out_by_annotation_or_because_a_mesh_is_in_them() {
        let out = |annotations: serde_json::Value| {
            let pod = json!({"metadata": {"name": "p", "annotations": annotations}});
            opts_out(&serde_json::from_value(pod).expect("a pod"))
        };
        assert!(!out(json!({})));
        assert!(!out(json!({"other": "off"})));
        assert!(out(json!({"skep.dev/socket-lb": "off"})));
        assert!(out(json!({"sidecar.istio.io/status": "{}"})));
        assert!(out(json!({"linkerd.io/proxy-version": "x"})));
        assert!(!out(json!({"linkerd.io/proxy-version": "x", "skep.dev/socket-lb": "on"})));
    }
}
