//! `AuthorizationConfiguration`: who decides, in which order.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use skep_api::duration::{format, parse};
use skep_api::field::{Error as FieldError, ErrorList, Path};
use skep_api::names;

use super::{Error, check};
use crate::authorization::webhook::{MatchConditions, WebhookOptions};

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
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookEntry>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WebhookEntry {
    #[serde(rename = "authorizedTTL")]
    authorized: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized: Option<String>,
    cache_authorized_requests: Option<bool>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<String>,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    match_conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    expression: String,
}

const KINDS: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

impl Authorization {
    /// The names of the modes besides webhooks, sorted.
    pub fn fixed_modes(&self) -> Vec<&'static str> {
        let name = |mode: &Mode| match mode {
            Mode::Rbac => Some("RBAC"),
            Mode::Node => Some("Node"),
            Mode::Abac => Some("ABAC"),
            Mode::AlwaysAllow => Some("AlwaysAllow"),
            Mode::AlwaysDeny => Some("AlwaysDeny"),
            Mode::Webhook(_) => None,
        };
        let mut names: Vec<_> = self.modes.iter().filter_map(name).collect();
        names.sort_unstable();
        names
    }

    /// Reads YAML or JSON, and says all that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = serde_yaml::from_str(text)?;
        check(&file.kind, &file.api_version, "AuthorizationConfiguration")?;
        let root = Path::new("authorizers");
        let mut errors = ErrorList::new();
        if file.authorizers.is_empty() {
            errors.push(FieldError::required(&root, "at least one authorization mode must be defined"));
        }
        let mut names: Vec<String> = Vec::new();
        let mut kinds: Vec<String> = Vec::new();
        let mut modes = Vec::new();
        for (index, entry) in file.authorizers.into_iter().enumerate() {
            let path = root.index(index);
            let at = path.child("type");
            if entry.kind.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if !KINDS.contains(&entry.kind.as_str()) {
                errors.push(FieldError::not_supported(&at, entry.kind, &KINDS));
            } else if entry.kind != "Webhook" && kinds.contains(&entry.kind) {
                errors.push(FieldError::duplicate(&at, entry.kind));
            } else {
                kinds.push(entry.kind.clone());
                check_name(&entry.name, &names, &path.child("name"), &mut errors);
                names.push(entry.name.clone());
                modes.extend(entry.read(&path, &mut errors));
            }
        }
        if errors.is_empty() { Ok(Self { modes }) } else { Err(Error::Content(errors.to_string())) }
    }
}

fn check_name(name: &str, taken: &[String], path: &Path, errors: &mut ErrorList) {
    let wrong = names::dns1123_subdomain(name);
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if taken.iter().any(|other| other == name) {
        errors.push(FieldError::duplicate(path, name));
    } else if !wrong.is_empty() {
        let why = format!("authorizer name is invalid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(path, name, why));
    }
}

impl Entry {
    fn read(self, path: &Path, errors: &mut ErrorList) -> Option<Mode> {
        let webhook = path.child("webhook");
        let mode = match self.kind.as_str() {
            "RBAC" => Mode::Rbac,
            "Node" => Mode::Node,
            "ABAC" => Mode::Abac,
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            _ => {
                let Some(entry) = self.webhook else {
                    errors.push(FieldError::required(&webhook, "required when type=Webhook"));
                    return None;
                };
                return Some(Mode::Webhook(entry.read(path, self.name, errors)));
            }
        };
        if self.webhook.is_some() {
            let why = "may only be specified when type=Webhook";
            errors.push(FieldError::invalid(&webhook, "non-null", why));
        }
        Some(mode)
    }
}

/// The longest that a request may wait for a decision.
const LONGEST: Duration = Duration::from_secs(30);

impl WebhookEntry {
    /// Upstream's paths leave `webhook` out; so do these.
    fn read(self, path: &Path, name: String, errors: &mut ErrorList) -> WebhookMode {
        let deadline = time(self.timeout.as_deref(), None, &path.child("timeout"), errors);
        if deadline > LONGEST {
            let why = "must be > 0s and <= 30s";
            errors.push(FieldError::invalid(&path.child("timeout"), format(deadline), why));
        }
        let defaults = WebhookOptions::default();
        let mut life = |field: &str, text: &Option<String>, cached: Option<bool>, default| {
            let life = time(text.as_deref(), Some(default), &path.child(field), errors);
            if cached == Some(false) { Duration::ZERO } else { life }
        };
        let allowed_life =
            life("authorizedTTL", &self.authorized, self.cache_authorized_requests, defaults.allowed_life);
        let refused_life = life(
            "unauthorizedTTL",
            &self.unauthorized,
            self.cache_unauthorized_requests,
            defaults.refused_life,
        );
        let mut word = |field: &str, value: &str, known: &[&str]| match value {
            "" => errors.push(FieldError::required(&path.child(field), "")),
            _ if known.contains(&value) => {}
            _ => errors.push(FieldError::not_supported(&path.child(field), value, known)),
        };
        word("subjectAccessReviewVersion", &self.subject_access_review_version, &["v1", "v1beta1"]);
        let field = "matchConditionSubjectAccessReviewVersion";
        match self.match_condition_subject_access_review_version.as_str() {
            "" => {}
            version => word(field, version, &["v1"]),
        }
        word("failurePolicy", &self.failure_policy, &["NoOpinion", "Deny"]);
        if self.match_condition_subject_access_review_version.is_empty() && !self.match_conditions.is_empty()
        {
            let why = "required if match conditions are specified";
            errors.push(FieldError::required(&path.child(field), why));
        }
        let kubeconfig = self.connection_info.read(&path.child("connectionInfo"), errors);
        let texts: Vec<String> = self.match_conditions.into_iter().map(|one| one.expression).collect();
        let conditions = MatchConditions::compile(&texts, &path.child("matchConditions"), errors);
        let options = WebhookOptions {
            name,
            version: self.subject_access_review_version,
            allowed_life,
            refused_life,
            deadline,
            deny_on_failure: self.failure_policy == "Deny",
            conditions,
        };
        WebhookMode { kubeconfig, options }
    }
}

impl Connection {
    fn read(self, path: &Path, errors: &mut ErrorList) -> PathBuf {
        let file = self.kube_config_file.unwrap_or_default();
        let at = path.child("kubeConfigFile");
        let mut wrong = |why: &str| errors.push(FieldError::invalid(&at, file.display().to_string(), why));
        match self.kind.as_str() {
            "KubeConfigFile" if file.as_os_str().is_empty() => errors.push(FieldError::required(&at, "")),
            "KubeConfigFile" if !file.is_absolute() => wrong("must be an absolute path"),
            "KubeConfigFile" => match std::fs::metadata(&file) {
                Ok(found) if found.is_file() => {}
                Ok(_) => wrong("must be a regular file"),
                Err(error) => wrong(&format!("error loading file: {error}")),
            },
            "" => errors.push(FieldError::required(&path.child("type"), "")),
            other => {
                errors.push(FieldError::not_supported(&path.child("type"), other, &["KubeConfigFile"]));
            }
        }
        file
    }
}

/// A time that is not none; zero where it is wrong.
fn time(text: Option<&str>, default: Option<Duration>, path: &Path, errors: &mut ErrorList) -> Duration {
    let found = text.map(|text| (text, parse(text)));
    match (found, default) {
        (Some((_, Some(time))), _) if !time.is_zero() => return time,
        (None | Some((_, Some(_))), Some(default)) => return default,
        (None | Some((_, Some(_))), None) => errors.push(FieldError::required(path, "")),
        (Some((text, None)), _) => errors.push(FieldError::invalid(path, text, "must be > 0s")),
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";

    fn parse(authorizers: &str) -> Result<Authorization, String> {
        Authorization::parse(&format!("{HEADER}authorizers: {authorizers}\n"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_order_is_that_of_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display();
        let webhook = format!(
            "type: Webhook, name: w, webhook: {{timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, \
             authorizedTTL: 1m, cacheUnauthorizedRequests: false, matchConditionSubjectAccessReviewVersion: v1, \
             matchConditions: [{{expression: \"request.user != 'x'\"}}], \
             connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {path}}}}}"
        );
        let file = parse(&format!("[{{type: Node, name: n}}, {{{webhook}}}, {{type: RBAC, name: r}}]"));
        let file = file.expect("a configuration");
        let [Mode::Node, Mode::Webhook(mode), Mode::Rbac] = file.modes.as_slice() else {
            panic!("{:?}", file.modes)
        };
        assert!(mode.options.deny_on_failure);
        assert_eq!(mode.options.allowed_life.as_secs(), 60);
        assert!(mode.options.refused_life.is_zero());
    }

    #[test]
    fn what_is_wrong_is_said_as_upstream_says_it() {
        for (authorizers, lines) in [
            ("[]", vec!["authorizers: Required value: at least one authorization mode must be defined"]),
            (
                "[{type: RBAC, name: a}, {type: RBAC, name: b}, {type: Magic, name: c}, {name: d}]",
                vec![
                    "authorizers[1].type: Duplicate value: \"RBAC\"",
                    "authorizers[2].type: Unsupported value: \"Magic\": supported values: \"ABAC\"",
                    "authorizers[3].type: Required value",
                ],
            ),
            (
                "[{type: RBAC, name: a}, {type: Node, name: a}, {type: ABAC, name: A_}, {type: Webhook, name: w}]",
                vec![
                    "authorizers[1].name: Duplicate value: \"a\"",
                    "authorizers[2].name: Invalid value: \"A_\": authorizer name is invalid: ",
                    "authorizers[3].webhook: Required value: required when type=Webhook",
                ],
            ),
            (
                "[{type: RBAC, name: r, webhook: {}}, {type: Webhook, name: w, webhook: {}}]",
                vec![
                    "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
                    "authorizers[1].timeout: Required value",
                    "authorizers[1].subjectAccessReviewVersion: Required value",
                    "authorizers[1].failurePolicy: Required value",
                    "authorizers[1].connectionInfo.type: Required value",
                ],
            ),
            (
                "[{type: Webhook, name: w, webhook: {timeout: 31s, authorizedTTL: -1s, subjectAccessReviewVersion: v2, \
                  failurePolicy: No, matchConditions: [{expression: request.user}], connectionInfo: {type: KubeConfigFile, kubeConfigFile: x}}}]",
                vec![
                    "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s",
                    "authorizers[0].authorizedTTL: Invalid value: \"-1s\": must be > 0s",
                    "authorizers[0].subjectAccessReviewVersion: Unsupported value: \"v2\": supported values: \"v1\", \"v1beta1\"",
                    "authorizers[0].failurePolicy: Unsupported value: \"No\": supported values: \"NoOpinion\", \"Deny\"",
                    "authorizers[0].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
                    "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"x\": must be an absolute path",
                    "authorizers[0].matchConditions[0].expression: Invalid value: \"request.user\": must evaluate to bool but got string",
                ],
            ),
        ] {
            let error = parse(authorizers).expect_err(authorizers);
            for line in lines {
                assert!(error.contains(line), "{line}\nnot in {error}");
            }
        }
    }
}
