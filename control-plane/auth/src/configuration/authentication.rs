//! `AuthenticationConfiguration`: issuers of JWTs, and who may be anonymous.

use std::collections::BTreeMap;

use serde::Deserialize;
use skep_webhook::Trust;

use super::{Any, Error, check, no_cel};
use crate::authentication::Anonymous;
use crate::authentication::oidc::{ALGORITHMS, Claim, Issuer};

/// What the file says.
#[derive(Debug)]
pub struct Authentication {
    /// The issuers.
    pub issuers: Vec<Issuer>,
    /// Anonymous requests, if the file says anything about them.
    pub anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousEntry {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: IssuerEntry,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Any,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerEntry {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
    #[serde(default)]
    egress_selector_type: Any,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: Any,
    #[serde(default, rename = "message")]
    _message: Any,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mappings {
    username: ClaimEntry,
    groups: Option<ClaimEntry>,
    uid: Option<ClaimEntry>,
    #[serde(default)]
    extra: Any,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClaimEntry {
    claim: String,
    prefix: Option<String>,
    expression: Any,
}

impl ClaimEntry {
    fn read(&self, at: &str) -> Result<Claim, Error> {
        if !self.expression.is_empty() {
            return Err(no_cel(&format!("{at}.expression")));
        }
        if self.claim.is_empty() {
            return Err(Error::Content(format!("{at}: Required value: claim or expression is required")));
        }
        let Some(prefix) = &self.prefix else {
            let why = "prefix is required when claim is set. It can be set to an empty string to disable \
                       prefixing";
            return Err(Error::Content(format!("{at}.prefix: Required value: {why}")));
        };
        Ok(Claim { name: self.claim.clone(), prefix: prefix.clone() })
    }
}

impl Authentication {
    /// Reads YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = serde_yaml::from_str(text)?;
        check(&file.kind, &file.api_version, "AuthenticationConfiguration")?;
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, entry) in file.jwt.into_iter().enumerate() {
            let issuer = entry.read(&format!("jwt[{index}]"))?;
            if issuers.iter().any(|other| other.url == issuer.url) {
                let url = issuer.url;
                return Err(Error::Content(format!("jwt[{index}].issuer.url: Duplicate value: {url:?}")));
            }
            issuers.push(issuer);
        }
        let anonymous = file.anonymous.map(|entry| match (entry.enabled, entry.conditions.as_slice()) {
            (false, []) => Ok(Anonymous::Off),
            (false, _) => Err(Error::Content(
                "anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined"
                    .to_owned(),
            )),
            (true, []) => Ok(Anonymous::On),
            (true, paths) => Ok(Anonymous::Paths(paths.iter().map(|condition| condition.path.clone()).collect())),
        });
        Ok(Self { issuers, anonymous: anonymous.transpose()? })
    }
}

impl Jwt {
    fn read(self, at: &str) -> Result<Issuer, Error> {
        let wrong = |field: &str, why: &str| Err(Error::Content(format!("{at}.{field}: {why}")));
        let issuer = self.issuer;
        if !issuer.url.starts_with("https://") {
            return wrong("issuer.url", "Invalid value: URL scheme must be https");
        }
        if issuer.discovery_url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
            return wrong("issuer.discoveryURL", "Invalid value: URL scheme must be https");
        }
        if issuer.audiences.is_empty() {
            return wrong(
                "issuer.audiences",
                "Required value: at least one jwt[].issuer.audiences is required",
            );
        }
        let policy = issuer.audience_match_policy.as_deref().unwrap_or_default();
        if !matches!(policy, "" | "MatchAny") || (policy.is_empty() && issuer.audiences.len() > 1) {
            let why = "must be MatchAny for multiple audiences";
            return wrong("issuer.audienceMatchPolicy", &format!("Invalid value: {policy:?}: {why}"));
        }
        if !issuer.egress_selector_type.is_empty() {
            return wrong("issuer.egressSelectorType", "egress selectors are not supported");
        }
        if !self.user_validation_rules.is_empty() {
            return Err(no_cel(&format!("{at}.userValidationRules")));
        }
        if !self.claim_mappings.extra.is_empty() {
            return Err(no_cel(&format!("{at}.claimMappings.extra")));
        }
        let mut required = BTreeMap::new();
        for (index, rule) in self.claim_validation_rules.into_iter().enumerate() {
            let field = format!("claimValidationRules[{index}]");
            if !rule.expression.is_empty() {
                return Err(no_cel(&format!("{at}.{field}.expression")));
            }
            if rule.claim.is_empty() {
                return wrong(&field, "Required value: claim or expression is required");
            }
            if required.insert(rule.claim, rule.required_value).is_some() {
                return wrong(&field, "Duplicate value");
            }
        }
        let mappings = self.claim_mappings;
        let uid = match mappings.uid {
            Some(uid) if !uid.expression.is_empty() => {
                return Err(no_cel(&format!("{at}.claimMappings.uid.expression")));
            }
            uid => uid.map(|uid| uid.claim).filter(|claim| !claim.is_empty()),
        };
        // An empty mapping of groups is no mapping.
        let groups =
            mappings.groups.filter(|groups| !groups.claim.is_empty() || !groups.expression.is_empty());
        let trust = match issuer.certificate_authority.filter(|pem| !pem.is_empty()) {
            Some(pem) => Trust::Bundle(pem.into_bytes().into()),
            None => Trust::System,
        };
        Ok(Issuer {
            url: issuer.url,
            discovery_url: issuer.discovery_url.filter(|url| !url.is_empty()),
            trust,
            audiences: issuer.audiences,
            username: mappings.username.read(&format!("{at}.claimMappings.username"))?,
            groups: groups.map(|groups| groups.read(&format!("{at}.claimMappings.groups"))).transpose()?,
            uid,
            required,
            algorithms: ALGORITHMS.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

    #[test]
    fn issuers_and_anonymous_paths_are_read() {
        let text = format!(
            "{HEADER}
anonymous:
  enabled: true
  conditions: [{{path: /livez}}, {{path: /readyz}}]
jwt:
- issuer: {{url: https://one.example, audiences: [a, b], audienceMatchPolicy: MatchAny}}
  claimValidationRules: [{{claim: hd, requiredValue: example.org}}]
  claimMappings:
    username: {{claim: email, prefix: ''}}
    groups: {{claim: roles, prefix: 'one:'}}
    uid: {{claim: oid}}
- issuer: {{url: https://two.example, discoveryURL: https://inner.example/conf, audiences: [a]}}
  claimMappings: {{username: {{claim: sub, prefix: 'two:'}}}}
"
        );
        let file = Authentication::parse(&text).expect("a configuration");
        let paths = vec!["/livez".to_owned(), "/readyz".to_owned()];
        assert_eq!(file.anonymous, Some(Anonymous::Paths(paths)));
        assert_eq!(file.issuers.len(), 2);
        let one = &file.issuers[0];
        assert_eq!(one.groups, Some(Claim { name: "roles".into(), prefix: "one:".into() }));
        assert_eq!((one.uid.as_deref(), one.required["hd"].as_str()), (Some("oid"), "example.org"));
    }

    #[test]
    fn what_can_not_be_done_is_refused() {
        let issuer = "issuer: {url: https://one.example, audiences: [a]}";
        let name = "username: {claim: sub, prefix: ''}";
        for (jwt, why) in [
            ("issuer: {url: http://one.example, audiences: [a]}, claimMappings: {username: {claim: a, prefix: ''}}".to_owned(), "https"),
            (format!("{issuer}, claimMappings: {{username: {{claim: sub}}}}"), "prefix is required"),
            (format!("{issuer}, claimMappings: {{username: {{expression: claims.sub}}}}"), "CEL"),
            (format!("{issuer}, claimMappings: {{{name}, extra: [{{key: a, valueExpression: b}}]}}"), "CEL"),
            (format!("{issuer}, claimMappings: {{{name}}}, userValidationRules: [{{expression: a}}]"), "CEL"),
            (format!("{issuer}, claimMappings: {{{name}}}, claimValidationRules: [{{expression: a}}]"), "CEL"),
            (format!("issuer: {{url: https://one.example, audiences: []}}, claimMappings: {{{name}}}"), "audiences"),
        ] {
            let error = Authentication::parse(&format!("{HEADER}jwt: [{{{jwt}}}]\n")).expect_err(&jwt);
            assert!(error.to_string().contains(why), "{jwt}: {error}");
        }
        assert!(Authentication::parse("apiVersion: v1\nkind: Pod\n").is_err());
    }
}
