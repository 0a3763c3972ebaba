//! `AuthorizationConfiguration`: who decides, in which order.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Any, Error, check, duration, no_cel};
use crate::authorization::webhook::WebhookOptions;

/// One that decides.
#[derive(Clone, Debug)]
pub enum Mode {
    /// By the roles and bindings.
    Rbac,
    /// By the pods of a node.
    Node,
    /// By a policy file.
    Abac,
    /// Yes.
    AlwaysAllow,
    /// No.
    AlwaysDeny,
    /// Somebody else.
    Webhook(WebhookMode),
}

/// Somebody else who decides.
#[derive(Clone, Debug)]
pub struct WebhookMode {
    /// The kubeconfig file that leads there.
    pub kubeconfig: PathBuf,
    /// How it is asked.
    pub options: WebhookOptions,
}

/// What the file says.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// In this order.
    pub modes: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<WebhookEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookEntry {
    #[serde(rename = "authorizedTTL")]
    authorized: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized: Option<String>,
    cache_authorized_requests: Option<bool>,
    cache_unauthorized_requests: Option<bool>,
    timeout: String,
    subject_access_review_version: String,
    #[serde(default, rename = "matchConditionSubjectAccessReviewVersion")]
    _match_version: Any,
    failure_policy: String,
    connection_info: Connection,
    #[serde(default)]
    match_conditions: Any,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

impl Authorization {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = serde_yaml::from_str(text)?;
        check(&file.kind, &file.api_version, "AuthorizationConfiguration")?;
        if file.authorizers.is_empty() {
            return Err(Error::Content(
                "authorizers: Required value: at least one authorization mode must be defined".into(),
            ));
        }
        let mut names: Vec<String> = Vec::new();
        let mut kinds: Vec<String> = Vec::new();
        let mut modes = Vec::new();
        for (index, entry) in file.authorizers.into_iter().enumerate() {
            let at = format!("authorizers[{index}]");
            if entry.name.is_empty() || names.contains(&entry.name) {
                return Err(Error::Content(format!("{at}.name: {:?} is empty or twice there", entry.name)));
            }
            if entry.kind != "Webhook" && kinds.contains(&entry.kind) {
                return Err(Error::Content(format!("{at}.type: Duplicate value: {:?}", entry.kind)));
            }
            names.push(entry.name.clone());
            kinds.push(entry.kind.clone());
            modes.push(match (entry.kind.as_str(), entry.webhook) {
                ("RBAC", None) => Mode::Rbac,
                ("Node", None) => Mode::Node,
                ("ABAC", None) => Mode::Abac,
                ("AlwaysAllow", None) => Mode::AlwaysAllow,
                ("AlwaysDeny", None) => Mode::AlwaysDeny,
                ("Webhook", Some(webhook)) => Mode::Webhook(webhook.read(&at, entry.name)?),
                (kind, _) => {
                    return Err(Error::Content(format!(
                        "{at}: {kind:?} is no mode, or webhook does not fit it"
                    )));
                }
            });
        }
        Ok(Self { modes })
    }
}

impl WebhookEntry {
    fn read(self, at: &str, name: String) -> Result<WebhookMode, Error> {
        let wrong = |field: &str, value: &str| {
            Err(Error::Content(format!("{at}.webhook.{field}: Unsupported value: {value:?}")))
        };
        if !self.match_conditions.is_empty() {
            return Err(no_cel(&format!("{at}.webhook.matchConditions")));
        }
        let version = self.subject_access_review_version;
        if !matches!(version.as_str(), "v1" | "v1beta1") {
            return wrong("subjectAccessReviewVersion", &version);
        }
        let deny_on_failure = match self.failure_policy.as_str() {
            "Deny" => true,
            "NoOpinion" => false,
            other => return wrong("failurePolicy", other),
        };
        let kubeconfig = match (self.connection_info.kind.as_str(), self.connection_info.kube_config_file) {
            ("KubeConfigFile", Some(path)) => path,
            (other, _) => return wrong("connectionInfo", other),
        };
        let defaults = WebhookOptions::default();
        let life = |field: &str, text: &Option<String>, cached: Option<bool>, default| match text {
            _ if cached == Some(false) => Ok(std::time::Duration::ZERO),
            Some(text) => duration(&format!("{at}.webhook.{field}"), text),
            None => Ok(default),
        };
        let options = WebhookOptions {
            name,
            version,
            allowed_life: life(
                "authorizedTTL",
                &self.authorized,
                self.cache_authorized_requests,
                defaults.allowed_life,
            )?,
            refused_life: life(
                "unauthorizedTTL",
                &self.unauthorized,
                self.cache_unauthorized_requests,
                defaults.refused_life,
            )?,
            deadline: duration(&format!("{at}.webhook.timeout"), &self.timeout)?,
            deny_on_failure,
        };
        Ok(WebhookMode { kubeconfig, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_file() {
        let header = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
        let webhook = "type: Webhook, name: w, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, \
                       failurePolicy: Deny, authorizedTTL: 1m, cacheUnauthorizedRequests: false, connectionInfo: \
                       {type: KubeConfigFile, kubeConfigFile: /x}";
        let text = format!(
            "{header}authorizers: [{{type: Node, name: n}}, {{{webhook}}}}}, {{type: RBAC, name: r}}]"
        );
        let file = Authorization::parse(&text).expect("a configuration");
        let [Mode::Node, Mode::Webhook(mode), Mode::Rbac] = file.modes.as_slice() else {
            panic!("{:?}", file.modes)
        };
        assert!(mode.options.deny_on_failure);
        assert_eq!(mode.options.allowed_life.as_secs(), 60);
        assert!(mode.options.refused_life.is_zero());
        for wrong in [
            "authorizers: []".to_owned(),
            "authorizers: [{type: RBAC, name: a}, {type: RBAC, name: b}]".to_owned(),
            "authorizers: [{type: Magic, name: a}]".to_owned(),
            format!("authorizers: [{{{webhook}, matchConditions: [{{expression: a}}]}}}}]"),
        ] {
            assert!(Authorization::parse(&format!("{header}{wrong}")).is_err(), "{wrong}");
        }
    }
}
