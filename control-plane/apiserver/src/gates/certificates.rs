//! Certificate requests: who asks is written down by the server, and verdicts and signatures are for
//! those who are allowed them for the signer.

use async_trait::async_trait;
use serde_json::{Value, json};
use skep_admission::{Attributes, Operation, Plugin};
use skep_api::error::ApiError;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_auth::authorization::node::node_of;
use skep_auth::authorization::{self, MASTERS};
use skep_auth::certificates::{Request, signer};

use super::Gates;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

fn is_request(gvr: &GroupVersionResource) -> bool {
    gvr.group == GROUP && gvr.resource == RESOURCE
}

fn forbidden(attributes: &Attributes, why: &str) -> ApiError {
    ApiError::forbidden(&attributes.gvr, &attributes.name, why)
}

/// New requests.
pub(super) struct Requests;

#[async_trait]
impl Plugin for Requests {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Create && is_request(gvr) && subresource.is_empty()
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let user = attributes.user.clone();
        let Some(object) = &mut attributes.object else { return Ok(()) };
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        spec.insert("username".to_owned(), user.name.into());
        let mut put = |key: &str, value: Value, empty: bool| {
            if empty {
                spec.remove(key);
            } else {
                spec.insert(key.to_owned(), value);
            }
        };
        put("uid", json!(user.uid), user.uid.is_empty());
        put("groups", json!(user.groups), user.groups.is_empty());
        put("extra", json!(user.extra), user.extra.is_empty());
        object.set(&["status"], json!({}));
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(object) = &attributes.object else { return Ok(()) };
        let text = object.text(&["spec", "request"]);
        let request = Request::from_base64(text).map_err(|why| {
            let path = Path::new("spec").child("request");
            let error = Error::invalid(&path, text, why.to_string());
            ApiError::invalid(&attributes.gvk, &attributes.name, &ErrorList::from(vec![error]))
        })?;
        let of_nodes = [signer::KUBELET_CLIENT, signer::KUBELET_SERVING];
        if let Some(node) = node_of(&attributes.user)
            && of_nodes.contains(&object.text(&["spec", "signerName"]))
            && request.common_name() != attributes.user.name
        {
            let why = format!("can only create a node CSR with CN=system:node:{node}");
            return Err(forbidden(attributes, &why));
        }
        let masters = request.organizations().iter().any(|organization| organization == MASTERS);
        if masters && object.text(&["spec", "signerName"]) == signer::API_CLIENT {
            let why = format!("use of {} signer with {MASTERS} group is not allowed", signer::API_CLIENT);
            return Err(forbidden(attributes, &why));
        }
        Ok(())
    }
}

/// Approvals and signatures.
pub(super) struct Verdicts {
    gates: Gates,
}

impl Verdicts {
    pub(super) fn new(gates: Gates) -> Self {
        Self { gates }
    }

    async fn may(&self, attributes: &Attributes, verb: &str, signer: &str) -> Result<bool, ApiError> {
        let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
        for name in [signer, &format!("{domain}/*")] {
            let asked = authorization::Attributes {
                version: "*",
                name,
                ..authorization::Attributes::for_resource(&attributes.user, verb, GROUP, "signers")
            };
            if self.gates.may(&asked).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl Plugin for Verdicts {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Update && is_request(gvr) && matches!(subresource, "approval" | "status")
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let (Some(new), Some(old)) = (&attributes.object, &attributes.old_object) else { return Ok(()) };
        let signer = old.text(&["spec", "signerName"]);
        let (verb, changed) = if attributes.subresource == "approval" {
            ("approve", true)
        } else {
            let differs = |field: &str| new.at(&["status", field]) != old.at(&["status", field]);
            ("sign", differs("certificate") || differs("conditions"))
        };
        if !changed || self.may(attributes, verb, signer).await? {
            return Ok(());
        }
        Err(forbidden(
            attributes,
            &format!("user not permitted to {verb} requests with signerName {signer:?}"),
        ))
    }
}
