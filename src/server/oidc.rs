//! OpenID Connect by options: one issuer, as `--oidc-…` describe it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use skep_auth::authentication::oidc::{ALGORITHMS, Issuer, Source};
use skep_webhook::Trust;

use super::read;

/// An issuer of id tokens.
#[derive(Args, Clone, Debug)]
pub(crate) struct OidcOptions {
    /// The issuer of id tokens, an https URL.
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// The client that tokens must be for.
    #[arg(long, value_name = "ID")]
    oidc_client_id: Option<String>,
    /// The authorities the issuer's server is believed by; the system's by default.
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// The claim with the user's name.
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// What is put before names: the issuer's URL and `#` by default (nothing for `email`); `-` is nothing.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    oidc_username_prefix: String,
    /// The claim with the user's groups.
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// What is put before groups.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    oidc_groups_prefix: String,
    /// A claim that must have this value, as `CLAIM=VALUE`.
    #[arg(long, value_delimiter = ',', value_name = "CLAIM=VALUE")]
    oidc_required_claim: Vec<String>,
    /// Signatures that are accepted.
    #[arg(long, value_delimiter = ',', value_name = "ALGORITHM", default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
}

impl OidcOptions {
    /// The issuer, if there is one.
    pub(super) fn issuer(&self) -> Result<Option<Issuer>> {
        let (Some(url), Some(client)) = (&self.oidc_issuer_url, &self.oidc_client_id) else {
            return Ok(None);
        };
        if !url.starts_with("https://") {
            bail!("--oidc-issuer-url must begin with https://");
        }
        let prefix = match self.oidc_username_prefix.as_str() {
            "-" => String::new(),
            "" if self.oidc_username_claim == "email" => String::new(),
            "" => format!("{url}#"),
            prefix => prefix.to_owned(),
        };
        let mut required = BTreeMap::new();
        for pair in &self.oidc_required_claim {
            let (claim, value) = pair.split_once('=').context("--oidc-required-claim is CLAIM=VALUE")?;
            required.insert(claim.to_owned(), value.to_owned());
        }
        let mut algorithms = Vec::new();
        for name in &self.oidc_signing_algs {
            let found = ALGORITHMS.into_iter().find(|algorithm| format!("{algorithm:?}") == *name);
            algorithms.push(found.with_context(|| format!("--oidc-signing-algs: {name} is not supported"))?);
        }
        let groups = self.oidc_groups_claim.as_ref();
        let username = Source::claim(&self.oidc_username_claim, prefix);
        Ok(Some(Issuer {
            trust: match &self.oidc_ca_file {
                Some(path) => Trust::Bundle(read(path)?.into_bytes().into()),
                None => Trust::System,
            },
            groups: groups.map(|name| Source::claim(name, &self.oidc_groups_prefix)),
            required,
            algorithms,
            ..Issuer::new(url, vec![client.clone()], username)
        }))
    }
}
