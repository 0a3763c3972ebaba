//! What a pod needs from its namespace: pure.

use serde_json::Value;
use skep_api::object::ObjectExt;

/// What may be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referred {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A PersistentVolumeClaim.
    Claim,
    /// A ServiceAccount.
    ServiceAccount,
    /// A ResourceClaim.
    ResourceClaim,
}

/// Does the pod need the object of this name in its namespace.
pub fn refers(pod: &Value, what: Referred, name: &str) -> bool {
    match what {
        Referred::ServiceAccount => pod.text(&["spec", "serviceAccountName"]) == name,
        Referred::Claim => volumes(pod).iter().any(|volume| {
            volume.text(&["persistentVolumeClaim", "claimName"]) == name
                || volume.at(&["ephemeral"]).is_some()
                    && format!("{}-{}", pod.name(), volume.text(&["name"])) == name
        }),
        Referred::ResourceClaim => pod
            .items(&["status", "resourceClaimStatuses"])
            .iter()
            .chain(pod.items(&["spec", "resourceClaims"]))
            .any(|claim| claim.text(&["resourceClaimName"]) == name),
        Referred::Secret => {
            pod.items(&["spec", "imagePullSecrets"]).iter().any(|secret| secret.text(&["name"]) == name)
                || containers(pod).any(|container| environment(container, "secretKeyRef", "secretRef", name))
                || volumes(pod).iter().any(|volume| secret_volume(volume, name))
        }
        Referred::ConfigMap => {
            containers(pod).any(|container| environment(container, "configMapKeyRef", "configMapRef", name))
                || volumes(pod).iter().any(|volume| {
                    volume.text(&["configMap", "name"]) == name
                        || volume
                            .items(&["projected", "sources"])
                            .iter()
                            .any(|source| source.text(&["configMap", "name"]) == name)
                })
        }
    }
}

fn volumes(pod: &Value) -> &[Value] {
    pod.items(&["spec", "volumes"])
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| pod.items(&["spec", list]))
}

fn environment(container: &Value, one: &str, all: &str, name: &str) -> bool {
    container.items(&["env"]).iter().any(|variable| variable.text(&["valueFrom", one, "name"]) == name)
        || container.items(&["envFrom"]).iter().any(|source| source.text(&[all, "name"]) == name)
}

/// Volume kinds name their secret in one of a few places.
fn secret_volume(volume: &Value, name: &str) -> bool {
    let projected = volume.items(&["projected", "sources"]);
    let Some(fields) = volume.as_object() else { return false };
    projected.iter().any(|source| source.text(&["secret", "name"]) == name)
        || fields.values().any(|source| {
            source.text(&["secretName"]) == name
                || ["secretRef", "nodePublishSecretRef"]
                    .iter()
                    .any(|field| source.text(&[field, "name"]) == name)
        })
}
