//! What tokens a node may ask for: of the accounts of its pods, bound to them, and for the audiences that a
//! pod's volumes name.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::super::{core, forbidden};
use super::NodeRestriction;
use crate::{Attributes, Question};

/// Who may this verb on an audience may ask for tokens for it, whatever the pods say.
const VERB: &str = "request-serviceaccounts-token-audience";

impl NodeRestriction {
    pub(super) async fn token(&self, attributes: &Attributes, node: &str) -> Result<(), ApiError> {
        let Some(request) = &attributes.object else { return Ok(()) };
        let bound = ["spec", "boundObjectRef"];
        let reference = request.at(&bound).filter(|value| !value.is_null());
        let Some(reference) = reference.filter(|reference| reference.text(&["kind"]) == "Pod") else {
            return Err(forbidden(attributes, "node requested token not bound to a pod"));
        };
        let (name, uid) = (reference.text(&["name"]), reference.text(&["uid"]));
        if uid.is_empty() {
            return Err(forbidden(attributes, "node requested token with a pod binding without a uid"));
        }
        let Some(pod) = self.reader.get(&core("pods"), Some(&attributes.namespace), name).await? else {
            return Err(ApiError::not_found(&core("pods"), name));
        };
        if pod.uid() != uid {
            let why =
                format!("the UID in the bound object reference ({uid}) does not match the UID in record");
            return Err(forbidden(attributes, why));
        }
        if pod.text(&["spec", "nodeName"]) != node {
            return Err(forbidden(
                attributes,
                "node requested token bound to a pod scheduled on a different node",
            ));
        }
        if pod.text(&["spec", "serviceAccountName"]) != attributes.name {
            return Err(forbidden(
                attributes,
                "node requested token for a service account the pod does not use",
            ));
        }
        self.audience(attributes, request, &pod).await
    }

    async fn audience(&self, attributes: &Attributes, request: &Value, pod: &Value) -> Result<(), ApiError> {
        let audience = match request.items(&["spec", "audiences"]) {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return Err(forbidden(attributes, "node may only request 0 or 1 audiences")),
        };
        for volume in pod.items(&["spec", "volumes"]) {
            let mut projected = volume.items(&["projected", "sources"]).iter();
            let token = |source: &Value| {
                let token = source.at(&["serviceAccountToken"]);
                token.is_some_and(|token| token.text(&["audience"]) == audience)
            };
            if projected.any(token) || self.driver_wants(volume, pod, audience).await? {
                return Ok(());
            }
        }
        let question = Question {
            verb: VERB,
            resource: audience,
            namespace: &attributes.namespace,
            name: &attributes.name,
            ..Question::default()
        };
        // Without a name an audience is no resource to be asked about.
        if !audience.is_empty() && self.access.may(&attributes.user, question).await.allowed {
            return Ok(());
        }
        let user = &attributes.user.name;
        let why = format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for \
             this audience"
        );
        Err(forbidden(attributes, why))
    }

    /// Does the storage driver behind a volume want tokens for the audience.
    async fn driver_wants(&self, volume: &Value, pod: &Value, audience: &str) -> Result<bool, ApiError> {
        let claim = match (volume.at(&["persistentVolumeClaim", "claimName"]), volume.at(&["ephemeral"])) {
            (Some(claim), _) => claim.as_str().unwrap_or_default().to_owned(),
            (None, Some(_)) => format!("{}-{}", pod.name(), volume.text(&["name"])),
            (None, None) => String::new(),
        };
        let driver = if claim.is_empty() {
            volume.text(&["csi", "driver"]).to_owned()
        } else {
            let claim =
                self.reader.get(&core("persistentvolumeclaims"), Some(pod.namespace()), &claim).await?;
            let name = claim.as_ref().map_or("", |claim| claim.text(&["spec", "volumeName"]));
            if name.is_empty() {
                return Ok(false);
            }
            let volume = self.reader.get(&core("persistentvolumes"), None, name).await?;
            volume.map_or_else(String::new, |volume| volume.text(&["spec", "csi", "driver"]).to_owned())
        };
        if driver.is_empty() {
            return Ok(false);
        }
        let drivers = GroupVersionResource::new("storage.k8s.io", "v1", "csidrivers");
        let found = self.reader.get(&drivers, None, &driver).await?;
        let wanted = found.as_ref().map_or(&[][..], |driver| driver.items(&["spec", "tokenRequests"]));
        Ok(wanted.iter().any(|request| request.text(&["audience"]) == audience))
    }
}
