//! Writes a pod's status to the API: always the newest, retried until it is written or the pod is gone.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};
use skep_agent_core::view;
use skep_client::{Client, Error, Patch, PatchParams};
use tokio::{sync::watch, time};

/// Fields that vanish from the status must be said so in a merge patch.
const MAY_VANISH: [&str; 6] =
    ["message", "reason", "podIP", "podIPs", "initContainerStatuses", "ephemeralContainerStatuses"];

/// Writes what the worker publishes until the worker is gone.
pub(super) async fn run(
    client: Client,
    pod: std::sync::Arc<Pod>,
    mut newest: watch::Receiver<Option<PodStatus>>,
) {
    let mut pause = Duration::from_millis(50);
    loop {
        let status = newest.borrow_and_update().clone();
        if let Some(status) = status {
            match write(&client, &pod, &status).await {
                Ok(()) => pause = Duration::from_millis(50),
                Err(error) if error.is_not_found() => return,
                Err(error) => {
                    tracing::debug!(pod = pod.metadata.name, %error, "cannot write the pod's status yet");
                    time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                    continue;
                }
            }
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}

/// Writes a status once.
pub(super) async fn write(client: &Client, pod: &Pod, status: &PodStatus) -> Result<(), Error> {
    let (namespace, name, uid) = view::identity(pod);
    let mut status = serde_json::to_value(status).unwrap_or(Value::Null);
    if let Some(map) = status.as_object_mut() {
        for key in MAY_VANISH {
            map.entry(key).or_insert(Value::Null);
        }
    }
    // The uid makes it a conflict to write upon a new pod of the same name.
    let patch = Patch::Merge(json!({ "metadata": { "uid": uid }, "status": status }));
    let result =
        client.namespaced::<Pod>(namespace).patch_status(name, &patch, &PatchParams::default()).await;
    match result {
        Err(error) if error.is_conflict() => {
            // Another pod has the name now: ours is gone.
            let present = client.namespaced::<Pod>(namespace).get_opt(name).await?;
            if present.is_none_or(|p| p.metadata.uid.as_deref() != Some(uid)) { Ok(()) } else { Err(error) }
        }
        other => other.map(drop),
    }
}
