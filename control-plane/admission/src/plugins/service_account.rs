//! ServiceAccount: every pod runs as a service account and finds its token mounted.

use std::sync::Arc;

use async_trait::async_trait;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::{core, forbidden};
use crate::{Attributes, Operation, Plugin, Reader};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour, and a margin by which kubelets recognise a token this plug-in asked for.
const TOKEN_SECONDS: u32 = 3607;
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The plug-in.
pub struct ServiceAccount {
    reader: Arc<dyn Reader>,
}

impl ServiceAccount {
    /// Reads service accounts through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Create
            && gvr.group.is_empty()
            && gvr.resource == "pods"
            && subresource.is_empty()
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        if pod.annotation(MIRROR).is_some() {
            return Ok(());
        }
        if pod.text(&["spec", "serviceAccountName"]).is_empty() {
            let deprecated = pod.text(&["spec", "serviceAccount"]);
            let name = if deprecated.is_empty() { "default" } else { deprecated }.to_owned();
            pod.set(&["spec", "serviceAccountName"], name);
        }
        let name = pod.text(&["spec", "serviceAccountName"]).to_owned();
        pod.set(&["spec", "serviceAccount"], name.as_str());
        let namespace = attributes.namespace.clone();
        let found = self.reader.get(&core("serviceaccounts"), Some(&namespace), &name).await?;
        let Some(account) = found else {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            return Err(forbidden(attributes, why));
        };
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        let wanted = [&*pod, &*account]
            .into_iter()
            .zip([&["spec", "automountServiceAccountToken"][..], &["automountServiceAccountToken"]]);
        let wanted = wanted.filter_map(|(object, path)| object.at(path).and_then(Value::as_bool)).next();
        if wanted.unwrap_or(true) {
            mount_token(pod);
        }
        if pod.items(&["spec", "imagePullSecrets"]).is_empty() {
            let secrets = account.items(&["imagePullSecrets"]).to_vec();
            if !secrets.is_empty() {
                pod.set(&["spec", "imagePullSecrets"], secrets);
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(pod) = attributes.object.as_ref().filter(|pod| pod.annotation(MIRROR).is_some()) else {
            return Ok(());
        };
        // A mirror pod is made by a node for a file on it: it must not pull rights out of the cluster.
        if !pod.text(&["spec", "serviceAccountName"]).is_empty() {
            return Err(forbidden(attributes, "a mirror pod may not reference service accounts"));
        }
        let projected = |volume: &Value| {
            volume.items(&["projected", "sources"]).iter().any(|source| {
                source.at(&["serviceAccountToken"]).is_some() || source.at(&["secret"]).is_some()
            })
        };
        let volumes = pod.items(&["spec", "volumes"]);
        if volumes.iter().any(|volume| volume.at(&["secret"]).is_some() || projected(volume)) {
            return Err(forbidden(attributes, "a mirror pod may not reference secrets"));
        }
        Ok(())
    }
}

fn mount_token(pod: &mut Value) {
    let existing = pod.items(&["spec", "volumes"]).iter().map(|volume| volume.text(&["name"]));
    let existing = existing.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let volume = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", suffix()));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let mut containers = pod.items(&["spec", list]).to_vec();
        for container in &mut containers {
            let mut mounts = container.items(&["volumeMounts"]).to_vec();
            if mounts.iter().any(|mount| mount.text(&["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            used = true;
            mounts.push(json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
            container.set(&["volumeMounts"], mounts);
        }
        if !containers.is_empty() {
            pod.set(&["spec", list], containers);
        }
    }
    if used && existing.is_none() {
        let mut volumes = pod.items(&["spec", "volumes"]).to_vec();
        volumes.push(token_volume(&volume));
        pod.set(&["spec", "volumes"], volumes);
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}

fn suffix() -> String {
    let mut rng = rand::rng();
    (0..5).filter_map(|_| SUFFIX_ALPHABET.choose(&mut rng)).map(|byte| char::from(*byte)).collect()
}
