//! Who may ask the API server, and for what: the options, and the chains made of them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use skep_apiserver::identity::ClusterLookup;
use skep_auth::authentication::bootstrap::BootstrapTokens;
use skep_auth::authentication::{
    Authenticator, BasicFile, Bearer, Chain, ClientCertificate, FrontProxy, FrontProxyHeaders, TokenFile,
    TokenVerifier,
};
use skep_auth::authorization::abac::Abac;
use skep_auth::authorization::node::Node;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::authorization::{AlwaysAllow, AlwaysDeny, Authorizer, Union};
use skep_auth::pki::{FRONT_PROXY_CLIENT, Pki, TlsOptions};

use super::read;

/// How requests are authenticated and authorized.
#[derive(Args, Clone, Debug)]
pub(crate) struct Security {
    /// Static tokens: `token,user,uid[,"group,…"]` lines.
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Passwords: `password,user,uid[,"group,…"]` lines.
    #[arg(long, value_name = "FILE")]
    basic_auth_file: Option<PathBuf>,
    /// Further authorities of client certificates, beside the cluster's own.
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// The authorities of proxies that say in headers who asks; the cluster's own front-proxy authority by
    /// default.
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// The names such proxies may have; none lets every name pass.
    #[arg(long, value_delimiter = ',', value_name = "NAME", default_value = FRONT_PROXY_CLIENT)]
    requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name.
    #[arg(long, value_delimiter = ',', value_name = "HEADER", default_value = "X-Remote-User")]
    requestheader_username_headers: Vec<String>,
    /// Headers with the user's uid.
    #[arg(long, value_delimiter = ',', value_name = "HEADER", default_value = "X-Remote-Uid")]
    requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups.
    #[arg(long, value_delimiter = ',', value_name = "HEADER", default_value = "X-Remote-Group")]
    requestheader_group_headers: Vec<String>,
    /// What headers of extra keys begin with.
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", default_value = "X-Remote-Extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Refuse requests without credentials also where roles would let `system:anonymous` in.
    #[arg(long)]
    no_anonymous: bool,
    /// Who decides, in this order: Node, RBAC, ABAC, AlwaysAllow, AlwaysDeny.
    #[arg(long, value_delimiter = ',', value_name = "MODE", default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// A policy file for attribute-based authorization; it adds the mode ABAC.
    #[arg(long, value_name = "FILE")]
    authorization_policy_file: Option<PathBuf>,
    /// The oldest TLS that is spoken: VersionTLS12 or VersionTLS13.
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12")]
    tls_min_version: String,
    /// Cipher suites of TLS 1.2 to allow; all that are safe by default.
    #[arg(long, value_delimiter = ',', value_name = "SUITE")]
    tls_cipher_suites: Vec<String>,
}

impl Security {
    /// What TLS may be.
    pub(super) fn tls(&self) -> TlsOptions {
        TlsOptions {
            min_version: self.tls_min_version.clone(),
            cipher_suites: self.tls_cipher_suites.clone(),
        }
    }

    /// The authorities of client certificates.
    pub(super) fn client_ca(&self, pki: &Pki) -> Result<String> {
        let mut pem = pki.ca_pem().to_owned();
        if let Some(path) = &self.client_ca_file {
            pem.push_str(&read(path)?);
        }
        Ok(pem)
    }

    /// The authorities of front proxies.
    pub(super) fn front_proxy_ca(&self, pki: &Pki) -> Result<String> {
        self.requestheader_client_ca_file
            .as_deref()
            .map_or_else(|| Ok(pki.front_proxy_ca_pem().to_owned()), read)
    }

    /// The names of front proxies.
    pub(super) fn front_proxy_names(&self) -> Vec<String> {
        self.requestheader_allowed_names.iter().filter(|name| !name.is_empty()).cloned().collect()
    }

    /// The headers of front proxies.
    pub(super) fn front_proxy_headers(&self) -> FrontProxyHeaders {
        FrontProxyHeaders {
            username: self.requestheader_username_headers.clone(),
            uid: self.requestheader_uid_headers.clone(),
            group: self.requestheader_group_headers.clone(),
            extra_prefix: self.requestheader_extra_headers_prefix.clone(),
        }
    }

    /// The kinds of bearer tokens, beside those of service accounts.
    pub(super) fn verifiers(&self, lookup: &ClusterLookup) -> Result<Vec<Arc<dyn TokenVerifier>>> {
        let mut verifiers: Vec<Arc<dyn TokenVerifier>> = Vec::new();
        if let Some(path) = &self.token_auth_file {
            let file = TokenFile::parse(&read(path)?).with_context(|| path.display().to_string())?;
            verifiers.push(Arc::new(file));
        }
        verifiers.push(Arc::new(BootstrapTokens::new(lookup.clone())));
        Ok(verifiers)
    }

    /// Who is asking.
    pub(super) fn authentication(&self, pki: &Pki, bearer: &Arc<Bearer>) -> Result<Chain> {
        let proxy = FrontProxy::new(
            &self.front_proxy_ca(pki)?,
            self.front_proxy_names(),
            self.front_proxy_headers(),
        )?;
        let clients = ClientCertificate::new(&self.client_ca(pki)?)?;
        let mut authenticators: Vec<Box<dyn Authenticator>> =
            vec![Box::new(proxy), Box::new(clients), Box::new(Arc::clone(bearer))];
        if let Some(path) = &self.basic_auth_file {
            let file = BasicFile::parse(&read(path)?).with_context(|| path.display().to_string())?;
            authenticators.push(Box::new(file));
        }
        Ok(Chain::new(authenticators, !self.no_anonymous))
    }

    /// May they.
    pub(super) fn authorization(&self, lookup: &ClusterLookup, rbac: &Arc<Rbac>) -> Result<Union> {
        let mut modes = self.authorization_mode.clone();
        if self.authorization_policy_file.is_some() && !modes.iter().any(|mode| mode == "ABAC") {
            modes.push("ABAC".to_owned());
        }
        let mut authorizers: Vec<Box<dyn Authorizer>> = Vec::new();
        for (index, mode) in modes.iter().enumerate() {
            if modes[..index].contains(mode) {
                bail!("--authorization-mode names {mode} twice");
            }
            authorizers.push(match mode.as_str() {
                "Node" => Box::new(Node::new(lookup.clone())),
                "RBAC" => Box::new(Arc::clone(rbac)),
                "ABAC" => {
                    let path = self.authorization_policy_file.as_deref();
                    let path = path.context("mode ABAC needs --authorization-policy-file")?;
                    Box::new(Abac::parse(&read(path)?).with_context(|| path.display().to_string())?)
                }
                "AlwaysAllow" => Box::new(AlwaysAllow),
                "AlwaysDeny" => Box::new(AlwaysDeny),
                other => bail!("--authorization-mode: {other} is no mode"),
            });
        }
        Ok(Union::new(authorizers))
    }
}
