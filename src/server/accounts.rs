//! Service-account tokens: who signs them, and which keys they are verified with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use skep_auth::pki::Pki;
use skep_auth::tokens::{Signer, SignerOptions};

use super::read;

/// Who issues tokens unless told otherwise.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How service-account tokens are made and verified.
#[derive(Args, Clone, Debug)]
pub(crate) struct Accounts {
    /// Who issues tokens, as URLs: the first signs, those of all are believed.
    #[arg(long = "service-account-issuer", value_name = "URL", default_value = ISSUER)]
    issuers: Vec<String>,
    /// The key that signs tokens (PEM, PKCS#8, EC or RSA); by default one of the cluster's own.
    #[arg(long = "service-account-signing-key-file", value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Further keys (PEM) that tokens are verified with, for as long as keys are exchanged.
    #[arg(long = "service-account-key-file", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// The audiences of the API server; the first issuer by default.
    #[arg(long, value_delimiter = ',', value_name = "AUDIENCE")]
    api_audiences: Vec<String>,
    /// The longest life of a token, in seconds; 0 is no limit.
    #[arg(long = "service-account-max-token-expiration", value_name = "SECONDS", default_value_t = 0)]
    max_expiration: u64,
    /// Where the keys are told to those who verify tokens themselves; below the first issuer by default.
    #[arg(long = "service-account-jwks-uri", value_name = "URL")]
    jwks_uri: Option<String>,
}

impl Accounts {
    /// The signer.
    pub(super) fn signer(&self, pki: &Pki) -> Result<Arc<Signer>> {
        let own = pki.service_account_key_pem();
        let key_pem = self.signing_key.as_deref().map_or_else(|| Ok(own.to_owned()), read)?;
        let mut verifying_pems = vec![own.to_owned()];
        for path in &self.keys {
            verifying_pems.push(read(path)?);
        }
        let options = SignerOptions {
            key_pem,
            issuers: self.issuers.clone(),
            audiences: self.api_audiences.clone(),
            verifying_pems,
            max_expiration: (self.max_expiration > 0).then(|| Duration::from_secs(self.max_expiration)),
            jwks_uri: self.jwks_uri.clone(),
        };
        Signer::with(options).context("the keys of service accounts")
    }
}
