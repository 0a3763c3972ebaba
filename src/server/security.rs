//! Who may ask the API server, and for what: the options, and the chains made of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use http::HeaderValue;
use skep_apiserver::identity::ClusterLookup;
use skep_auth::authentication::bootstrap::BootstrapTokens;
use skep_auth::authentication::oidc::Issuers;
use skep_auth::authentication::{
    Authenticator, BasicFile, Bearer, Chain, ClientCertificate, FrontProxy, FrontProxyHeaders, TokenFile,
    TokenVerifier, WebhookTokens,
};
use skep_auth::authorization::Authorizer;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::authorization::webhook::WebhookOptions;
use skep_auth::configuration::{Mode, WebhookMode};
use skep_auth::pki::{FRONT_PROXY_CLIENT, Pki, TlsOptions};
use skep_webhook::Client;

use super::{OidcOptions, read};

use authorizers::Makers;
pub(super) use files::{ByFile, Followed};

mod authorizers;
mod files;

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
    /// Who decides, in this order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny.
    #[arg(long, value_delimiter = ',', value_name = "MODE", default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// A policy file for attribute-based authorization; it adds the mode ABAC.
    #[arg(long, value_name = "FILE")]
    authorization_policy_file: Option<PathBuf>,
    /// An AuthenticationConfiguration: issuers of JWTs, and which paths are for anybody.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["oidc_issuer_url", "no_anonymous"])]
    authentication_config: Option<PathBuf>,
    #[command(flatten)]
    oidc: OidcOptions,
    /// Ask the webhook that this kubeconfig file describes about bearer tokens.
    #[arg(long, value_name = "FILE")]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// The version of TokenReview it speaks.
    #[arg(long, value_name = "VERSION", default_value = "v1")]
    authentication_token_webhook_version: String,
    /// Its answers are believed for so long.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// An AuthorizationConfiguration: who decides, in which order. In place of --authorization-mode.
    #[arg(long, value_name = "FILE", conflicts_with = "authorization_webhook_config_file")]
    authorization_config: Option<PathBuf>,
    /// Ask the webhook that this kubeconfig file describes, for the mode Webhook.
    #[arg(long, value_name = "FILE")]
    authorization_webhook_config_file: Option<PathBuf>,
    /// The version of SubjectAccessReview it speaks.
    #[arg(long, value_name = "VERSION", default_value = "v1")]
    authorization_webhook_version: String,
    /// Its yes is believed for so long.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// Its no is believed for so long.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
    /// What `Strict-Transport-Security` says, for instance `max-age=31536000,includeSubDomains`.
    #[arg(long, value_delimiter = ',', value_name = "DIRECTIVE")]
    strict_transport_security_directives: Vec<String>,
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
    pub(super) fn verifiers(
        &self,
        lookup: &ClusterLookup,
        client: &Client,
        file: Option<&ByFile>,
    ) -> Result<Vec<Arc<dyn TokenVerifier>>> {
        let mut verifiers: Vec<Arc<dyn TokenVerifier>> = Vec::new();
        if let Some(path) = &self.token_auth_file {
            let file = TokenFile::parse(&read(path)?).with_context(|| path.display().to_string())?;
            verifiers.push(Arc::new(file));
        }
        verifiers.push(Arc::new(BootstrapTokens::new(lookup.clone())));
        if let Some(issuer) = self.oidc.issuer()? {
            verifiers.push(Issuers::new(vec![issuer], client));
        }
        verifiers.extend(file.map(ByFile::verifier));
        // Last: it is asked about every token that nobody else knows.
        if let Some(path) = &self.authentication_token_webhook_config_file {
            let endpoint = skep_webhook::read_kubeconfig(path)?;
            let version = &self.authentication_token_webhook_version;
            if !matches!(version.as_str(), "v1" | "v1beta1") {
                bail!("--authentication-token-webhook-version: {version} is neither v1 nor v1beta1");
            }
            let life = self.authentication_token_webhook_cache_ttl;
            verifiers.push(Arc::new(WebhookTokens::new(client.clone(), endpoint, version, life)));
        }
        Ok(verifiers)
    }

    /// What the AuthenticationConfiguration says, if there is one. `own` are the issuers of service-account
    /// tokens.
    pub(super) fn authentication_file(&self, client: &Client, own: &[String]) -> Result<Option<ByFile>> {
        self.authentication_config.as_deref().map(|path| ByFile::open(path, client, own)).transpose()
    }

    /// What `Strict-Transport-Security` says.
    pub(super) fn hsts(&self) -> Result<Option<HeaderValue>> {
        let directives = &self.strict_transport_security_directives;
        if directives.is_empty() {
            return Ok(None);
        }
        if !directives.iter().any(|directive| directive.starts_with("max-age=")) {
            bail!("--strict-transport-security-directives needs max-age=SECONDS");
        }
        let text = directives.join("; ");
        Ok(Some(HeaderValue::from_str(&text).context("--strict-transport-security-directives")?))
    }

    /// Who is asking.
    pub(super) fn authentication(
        &self,
        pki: &Pki,
        bearer: &Arc<Bearer>,
        file: Option<&ByFile>,
    ) -> Result<Chain> {
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
        let anonymous = file.map_or_else(|| (!self.no_anonymous).into(), ByFile::anonymous);
        Ok(Chain::new(authenticators, anonymous))
    }

    /// May they; by a file, that is followed.
    pub(super) fn authorization(
        &self,
        lookup: &ClusterLookup,
        rbac: &Arc<Rbac>,
        client: &Client,
    ) -> Result<(Arc<dyn Authorizer>, Option<Followed>)> {
        let makers = Makers {
            lookup: lookup.clone(),
            rbac: Arc::clone(rbac),
            client: client.clone(),
            policy: self.authorization_policy_file.clone(),
        };
        match &self.authorization_config {
            None => Ok((Arc::new(makers.union(self.modes()?)?), None)),
            Some(path) => {
                let (authorizer, followed) = files::authorization(path, makers)?;
                Ok((authorizer, Some(followed)))
            }
        }
    }

    /// Who decides, by the options.
    fn modes(&self) -> Result<Vec<Mode>> {
        let mut modes = self.authorization_mode.clone();
        if self.authorization_policy_file.is_some() && !modes.iter().any(|mode| mode == "ABAC") {
            modes.push("ABAC".to_owned());
        }
        let mut out = Vec::new();
        for (index, mode) in modes.iter().enumerate() {
            if modes[..index].contains(mode) {
                bail!("--authorization-mode names {mode} twice");
            }
            out.push(match mode.as_str() {
                "Node" => Mode::Node,
                "RBAC" => Mode::Rbac,
                "ABAC" => Mode::Abac,
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                "Webhook" => {
                    let path = self.authorization_webhook_config_file.clone();
                    let options = WebhookOptions {
                        version: self.authorization_webhook_version.clone(),
                        allowed_life: self.authorization_webhook_cache_authorized_ttl,
                        refused_life: self.authorization_webhook_cache_unauthorized_ttl,
                        ..WebhookOptions::default()
                    };
                    let kubeconfig =
                        path.context("mode Webhook needs --authorization-webhook-config-file")?;
                    Mode::Webhook(WebhookMode { kubeconfig, options })
                }
                other => bail!("--authorization-mode: {other} is no mode"),
            });
        }
        Ok(out)
    }
}

/// Reads `90s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    skep_api::duration::parse(text).ok_or_else(|| "a duration is written like 90s or 2m".to_owned())
}
