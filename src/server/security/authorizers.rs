//! Authorizers, made of modes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use skep_apiserver::identity::ClusterLookup;
use skep_auth::authorization::abac::Abac;
use skep_auth::authorization::node::Node;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::authorization::webhook::Webhook;
use skep_auth::authorization::{AlwaysAllow, AlwaysDeny, Authorizer, Union};
use skep_auth::configuration::{Mode, WebhookMode};
use skep_webhook::Client;

use super::read;

/// What authorizers are made with.
pub(super) struct Makers {
    pub(super) lookup: ClusterLookup,
    pub(super) rbac: Arc<Rbac>,
    pub(super) client: Client,
    /// The file of the mode ABAC.
    pub(super) policy: Option<PathBuf>,
}

impl Makers {
    /// Those who decide, in this order.
    pub(super) fn union(&self, modes: Vec<Mode>) -> Result<Union> {
        let mut authorizers: Vec<Box<dyn Authorizer>> = Vec::new();
        for mode in modes {
            authorizers.push(match mode {
                Mode::Node => Box::new(Node::new(self.lookup.clone())),
                Mode::Rbac => Box::new(Arc::clone(&self.rbac)),
                Mode::Abac => {
                    let path = self.policy.as_deref();
                    let path = path.context("mode ABAC needs --authorization-policy-file")?;
                    Box::new(Abac::parse(&read(path)?).with_context(|| path.display().to_string())?)
                }
                Mode::Webhook(WebhookMode { kubeconfig, options }) => {
                    let endpoint = skep_webhook::read_kubeconfig(&kubeconfig)?;
                    Box::new(Webhook::new(self.client.clone(), endpoint, options))
                }
                Mode::AlwaysAllow => Box::new(AlwaysAllow),
                Mode::AlwaysDeny => Box::new(AlwaysDeny),
            });
        }
        Ok(Union::new(authorizers))
    }
}
