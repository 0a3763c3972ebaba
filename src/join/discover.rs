//! Recognizing the cluster: what it says of itself is believed when it is signed with our token, and
//! when its authority is the one we were told of.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use skep_auth::bootstrap_token::{SIGNATURE_PREFIX, Token};
use skep_auth::certificates::public_key_hash;
use skep_client::kubeconfig::Kubeconfig;
use skep_client::{Client, ClientConfig};

/// How the hash of an authority is written.
pub(crate) fn ca_hash(ca_pem: &str) -> Result<String> {
    let hash = public_key_hash(ca_pem.as_bytes()).context("the authority's certificate can't be read")?;
    Ok(format!("sha256:{hash}"))
}

/// The authority (PEM) of the cluster at `server`.
pub(super) async fn authority(server: &str, token: &Token, hash: Option<&str>) -> Result<String> {
    // Nothing is believed that this brings but what is checked below.
    let stranger = Client::new(ClientConfig {
        insecure_skip_tls_verify: true,
        user_agent: "skep-agent".to_owned(),
        ..ClientConfig::new(server)
    })?;
    let info = stranger.namespaced::<ConfigMap>("kube-public").get("cluster-info").await;
    let info = info.with_context(|| format!("asking {server} which cluster it is"))?;
    let data = info.data.unwrap_or_default();
    let kubeconfig = data.get("kubeconfig").context("the cluster says nothing of itself")?;
    let signature = data
        .get(&format!("{SIGNATURE_PREFIX}{}", token.id))
        .with_context(|| format!("the cluster does not know the token {}: it may have ended", token.id))?;
    if !token.verify(kubeconfig, signature) {
        bail!("what {server} says of itself is not signed with our token: it is not the cluster to join");
    }
    let cluster = Kubeconfig::parse(kubeconfig)?;
    let ca_pem = cluster.authority()?.context("the cluster names no authority")?;
    if let Some(wanted) = hash {
        let found = ca_hash(&ca_pem)?;
        if found != wanted.trim().to_ascii_lowercase() {
            bail!("the cluster's authority has the hash {found}, not {wanted}");
        }
    }
    Ok(ca_pem)
}
