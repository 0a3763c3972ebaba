//! Asking the cluster for a certificate.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_auth::certificates::{NewKey, is_self_signed, signer};
use skep_client::Client;

/// A request is waited for so long; then another one is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const FIRST_LOOK: Duration = Duration::from_millis(100);
const SLOWEST_LOOK: Duration = Duration::from_secs(5);

/// What is asked for.
pub(super) struct Asked<'a> {
    pub(super) signer: &'a str,
    pub(super) node: &'a str,
    pub(super) names: &'a [String],
    pub(super) addresses: &'a [IpAddr],
}

/// Is the certificate in the file one that a node made for itself.
pub(super) fn is_own(path: &Path) -> bool {
    std::fs::read(path).ok().is_none_or(|pem| is_self_signed(&pem))
}

/// Asks, and waits until it is signed: the certificate in PEM.
pub(super) async fn certificate(client: &Client, asked: &Asked<'_>, key: &NewKey) -> Result<String> {
    let user = format!("system:node:{}", asked.node);
    let pem = key.request(&user, "system:nodes", asked.names, asked.addresses)?;
    let purpose = if asked.signer == signer::KUBELET_SERVING { "server auth" } else { "client auth" };
    let wanted = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: asked.signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), purpose.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api = client.all::<CertificateSigningRequest>();
    let made = api.create(&wanted).await.context("asking for a certificate")?;
    let name = made.metadata.name.unwrap_or_default();
    let wait = async {
        let mut pause = FIRST_LOOK;
        loop {
            let request = api.get(&name).await.context("looking after the request for a certificate")?;
            let status = request.status.unwrap_or_default();
            if let Some(certificate) = status.certificate.filter(|bytes| !bytes.0.is_empty()) {
                return String::from_utf8(certificate.0).context("the certificate is not PEM");
            }
            for condition in status.conditions.unwrap_or_default() {
                if matches!(condition.type_.as_str(), "Denied" | "Failed") {
                    let why = condition.message.unwrap_or_default();
                    bail!("the request {name} for a certificate is {}: {why}", condition.type_);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SLOWEST_LOOK);
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("nobody has signed the request {name} for a certificate"),
    }
}
