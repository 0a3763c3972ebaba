//! What a node may do with pods: mirrors of its static ones, and what happens to its own.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;

use super::super::{core, forbidden};
use super::{NodeRestriction, own_pod};
use crate::{Attributes, Operation};

const MIRROR: &str = "kubernetes.io/config.mirror";

impl NodeRestriction {
    pub(super) async fn pod(&self, attributes: &Attributes, node: &str) -> Result<(), ApiError> {
        match (attributes.operation, attributes.subresource.as_str()) {
            (Operation::Create, "") => {
                let Some(pod) = &attributes.object else { return Ok(()) };
                if pod.annotation(MIRROR).is_none() {
                    let why = format!(
                        "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                    );
                    return Err(forbidden(attributes, why));
                }
                own_pod(attributes, pod, node)?;
                self.owner(attributes, pod, node).await?;
                match referred(pod) {
                    None => Ok(()),
                    Some(what) => {
                        let why = format!("node {node:?} can not create pods that reference {what}");
                        Err(forbidden(attributes, why))
                    }
                }
            }
            (Operation::Update, "status") => {
                match &attributes.old_object {
                    Some(pod) => own_pod(attributes, pod, node)?,
                    None => self.stored_pod(attributes, &attributes.name, node).await?,
                }
                status(attributes, node)
            }
            (Operation::Delete, "") => match &attributes.old_object {
                Some(pod) => own_pod(attributes, pod, node),
                None => self.stored_pod(attributes, &attributes.name, node).await,
            },
            (Operation::Create, "eviction") => self.stored_pod(attributes, &attributes.name, node).await,
            _ => Err(forbidden(attributes, format!("node {node:?} may not change a pod this way"))),
        }
    }

    async fn stored_pod(&self, attributes: &Attributes, name: &str, node: &str) -> Result<(), ApiError> {
        match self.reader.get(&core("pods"), Some(&attributes.namespace), name).await? {
            Some(pod) => own_pod(attributes, &pod, node),
            None => Err(ApiError::not_found(&core("pods"), name)),
        }
    }

    /// A mirror pod may be owned by its node and by nothing else.
    async fn owner(&self, attributes: &Attributes, pod: &Value, node: &str) -> Result<(), ApiError> {
        let refuse = |why: String| Err(forbidden(attributes, why));
        let owner = match pod.items(&["metadata", "ownerReferences"]) {
            [] => return Ok(()),
            [owner] => owner,
            _ => {
                return refuse(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        let is_node = owner.text(&["apiVersion"]) == "v1" && owner.text(&["kind"]) == "Node";
        if !is_node || owner.text(&["name"]) != node {
            return refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        if !owner.flag(&["controller"]) {
            return refuse(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner.flag(&["blockOwnerDeletion"]) {
            return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let found = self.reader.get(&core("nodes"), None, node).await?;
        let found = found.ok_or_else(|| ApiError::not_found(&core("nodes"), node))?;
        let (expected, got) = (found.uid(), owner.text(&["uid"]));
        if expected != got {
            return refuse(format!("node {node} UID mismatch: expected {expected} got {got}"));
        }
        Ok(())
    }
}

/// Through the status goes nothing that others decide by.
fn status(attributes: &Attributes, node: &str) -> Result<(), ApiError> {
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old_object) else { return Ok(()) };
    if new.labels() != old.labels() {
        return Err(forbidden(attributes, format!("node {node:?} cannot update labels through pod status")));
    }
    let claims = |pod: &Value| pod.items(&["status", "resourceClaimStatuses"]).to_vec();
    if claims(new) != claims(old) {
        return Err(forbidden(attributes, format!("node {node:?} cannot update resource claim statuses")));
    }
    Ok(())
}

/// The first kind of objects of the API that a pod needs.
fn referred(pod: &Value) -> Option<&'static str> {
    if !pod.text(&["spec", "serviceAccountName"]).is_empty() {
        return Some("a service account");
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    let variables = |field: &str, all: &str| {
        containers.iter().flat_map(|list| pod.items(&["spec", list])).any(|container| {
            container.items(&["env"]).iter().any(|one| one.at(&["valueFrom", field]).is_some())
                || container.items(&["envFrom"]).iter().any(|one| one.at(&[all]).is_some())
        })
    };
    let volumes = pod.items(&["spec", "volumes"]);
    let volume = |field: &str| {
        volumes.iter().any(|volume| {
            let projected = volume.items(&["projected", "sources"]).iter();
            volume.at(&[field]).is_some() || projected.into_iter().any(|source| source.at(&[field]).is_some())
        })
    };
    // Volumes of many kinds name a secret somewhere.
    let secrets = || {
        volumes.iter().filter_map(Value::as_object).flat_map(|volume| volume.values()).any(|source| {
            !source.text(&["secretName"]).is_empty()
                || ["secretRef", "nodePublishSecretRef"].iter().any(|field| source.at(&[field]).is_some())
        })
    };
    let pulls = !pod.items(&["spec", "imagePullSecrets"]).is_empty();
    if pulls || variables("secretKeyRef", "secretRef") || volume("secret") || secrets() {
        return Some("secrets");
    }
    if variables("configMapKeyRef", "configMapRef") || volume("configMap") {
        return Some("configmaps");
    }
    if volume("persistentVolumeClaim") || volume("ephemeral") {
        return Some("persistentvolumeclaims");
    }
    if volume("serviceAccountToken") {
        return Some("a service account");
    }
    let claims = !pod.items(&["spec", "resourceClaims"]).is_empty();
    claims.then_some("resourceclaims")
}
