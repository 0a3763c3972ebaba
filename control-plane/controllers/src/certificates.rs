//! Certificate requests: approving those of nodes, signing the approved ones, and clearing away the old.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use skep_auth::certificates::{Authority, Request, life, signer};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

mod approve;
mod clean;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

/// The controller. Keys are requests.
pub(crate) struct Certificates {
    client: Client,
    authority: Option<Arc<Authority>>,
    requests: Store<CertificateSigningRequest>,
    nodes: Store<Node>,
    queue: WorkQueue<Key>,
}

fn has(csr: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = csr.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind)
}

fn certificate(csr: &CertificateSigningRequest) -> Option<&[u8]> {
    csr.status
        .as_ref()?
        .certificate
        .as_ref()
        .map(|bytes| bytes.0.as_slice())
        .filter(|bytes| !bytes.is_empty())
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    let now = Time(Timestamp::now());
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

fn with_condition(
    csr: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> CertificateSigningRequest {
    let mut csr = csr.clone();
    let status = csr.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    status.conditions.get_or_insert_with(Vec::new).push(condition);
    csr
}

impl Certificates {
    pub(crate) fn new(client: &Client, authority: Option<Arc<Authority>>, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.certificate_requests, &queue);
        // A node that has told its addresses may have its serving certificate now.
        let requests = sources.certificate_requests.store();
        let waiting = requests.clone();
        enqueue_for(&mut sources.nodes, &queue, move |node| {
            let user = format!("system:node:{}", node.metadata.name.as_deref().unwrap_or_default());
            let of_node = waiting.list().into_iter().filter(|csr| {
                csr.spec.username.as_deref() == Some(user.as_str())
                    && !has(csr, APPROVED)
                    && !has(csr, DENIED)
            });
            of_node.map(|csr| Key::of(&csr.metadata)).collect()
        });
        Self { client: client.clone(), authority, requests, nodes: sources.nodes.store(), queue }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("certificates", &self.queue, 2, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(csr) = self.requests.get("", &key.name) else { return Ok(Next::Wait) };
        if let Some(why) = clean::due(&csr, Timestamp::now()) {
            tracing::info!(request = key.name, why, "a certificate request is removed");
            let api = self.client.all::<CertificateSigningRequest>();
            return match api.delete(&key.name, &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(Next::Wait),
            };
        }
        // What is old is removed, changed or not.
        let later = Next::After(clean::LOOK);
        if has(&csr, DENIED) || has(&csr, FAILED) || certificate(&csr).is_some() {
            return Ok(later);
        }
        if has(&csr, APPROVED) {
            self.sign(&csr).await?;
        } else {
            self.approve(&csr).await?;
        }
        Ok(later)
    }

    /// Approves what a node may have, when it may.
    async fn approve(&self, csr: &CertificateSigningRequest) -> Result<(), Error> {
        let Ok(request) = Request::from_pem(&csr.spec.request.0) else { return Ok(()) };
        let node = request.common_name().strip_prefix("system:node:").unwrap_or_default();
        let node = self.nodes.get("", node);
        let Some(verdict) = approve::recognize(csr, &request, node.as_deref()) else { return Ok(()) };
        if let Some(subresource) = verdict.asks
            && !self.allowed(csr, subresource).await?
        {
            tracing::debug!(request = ?csr.metadata.name, subresource, "its author may not have it approved");
            return Ok(());
        }
        let approved = with_condition(csr, condition(APPROVED, "AutoApproved", verdict.message));
        let name = csr.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.all::<CertificateSigningRequest>();
        api.replace_subresource(name, "approval", &approved).await.map(drop)
    }

    /// May the author of a request have such certificates?
    async fn allowed(&self, csr: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: csr.spec.username.clone(),
                uid: csr.spec.uid.clone(),
                groups: csr.spec.groups.clone(),
                extra: csr.spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    verb: Some("create".to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.client.all::<SubjectAccessReview>().create(&review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Signs an approved request of one of our signers, or says why not.
    async fn sign(&self, csr: &CertificateSigningRequest) -> Result<(), Error> {
        let Some(authority) = &self.authority else { return Ok(()) };
        let usages = csr.spec.usages.clone().unwrap_or_default();
        let request = Request::from_pem(&csr.spec.request.0).map_err(|error| error.to_string());
        let verdict = match &request {
            Ok(request) => signer::check(&csr.spec.signer_name, request, &usages),
            Err(why) => Some(Err(why.clone())),
        };
        let name = csr.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.all::<CertificateSigningRequest>();
        let signed = match (verdict, &request) {
            // Somebody else's signer.
            (None, _) => return Ok(()),
            (Some(Ok(())), Ok(request)) => {
                let seconds = csr.spec.expiration_seconds.map(i64::from);
                authority.sign(request, &usages, life(seconds)).map_err(|error| error.to_string())
            }
            (Some(Err(why)), _) => Err(why),
            (Some(Ok(())), Err(why)) => Err(why.clone()),
        };
        let next = match signed {
            Ok(pem) => {
                let mut csr = csr.clone();
                let status = csr.status.get_or_insert_with(CertificateSigningRequestStatus::default);
                status.certificate = Some(ByteString(pem.into_bytes()));
                csr
            }
            Err(why) => with_condition(csr, condition(FAILED, "SignerValidationFailure", &why)),
        };
        api.replace_status(name, &next).await.map(drop)
    }
}
