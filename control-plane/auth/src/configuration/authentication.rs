//! `AuthenticationConfiguration`: issuers of JWTs, and who may be anonymous.

use serde::Deserialize;
use skep_api::field::{Error as FieldError, ErrorList, Path};

use super::{Error, check};
use crate::authentication::Anonymous;
use crate::authentication::oidc::Issuer;

mod issuer;
mod mappings;

/// No file has more issuers.
const ISSUERS: usize = 64;

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
    #[serde(default)]
    issuer: issuer::Entry,
    #[serde(default)]
    claim_validation_rules: Vec<mappings::ClaimRule>,
    #[serde(default)]
    claim_mappings: mappings::Mappings,
    #[serde(default)]
    user_validation_rules: Vec<mappings::UserRule>,
}

impl Authentication {
    /// Reads YAML or JSON, and says all that is wrong with it. `own` are the issuers of service-account
    /// tokens: no other may have their name.
    pub fn parse(text: &str, own: &[String]) -> Result<Self, Error> {
        let file: File = serde_yaml::from_str(text)?;
        check(&file.kind, &file.api_version, "AuthenticationConfiguration")?;
        let root = Path::new("jwt");
        let mut errors = ErrorList::new();
        if file.jwt.len() > ISSUERS {
            errors.push(FieldError::too_many(&root, file.jwt.len(), ISSUERS));
            return Err(Error::Content(errors.to_string()));
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        let (mut urls, mut discovery): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for (index, entry) in file.jwt.into_iter().enumerate() {
            let path = root.index(index);
            let (url, discovery_url) = (entry.issuer.url.clone(), entry.issuer.discovery_url.clone());
            issuers.extend(entry.read(&path, own, &mut errors));
            let path = path.child("issuer");
            for (field, url, seen) in
                [("url", url, &mut urls), ("discoveryURL", discovery_url.unwrap_or_default(), &mut discovery)]
            {
                if url.is_empty() {
                    continue;
                }
                if seen.contains(&url) {
                    errors.push(FieldError::duplicate(&path.child(field), url.as_str()));
                }
                seen.push(url);
            }
        }
        let anonymous = file.anonymous.map(|entry| {
            let paths: Vec<String> = entry.conditions.into_iter().map(|condition| condition.path).collect();
            if !entry.enabled && !paths.is_empty() {
                let path = Path::new("anonymous").child("conditions");
                let why = "enabled should be set to true when conditions are defined";
                errors.push(FieldError::invalid(&path, paths.clone(), why));
            }
            match (entry.enabled, paths.is_empty()) {
                (false, _) => Anonymous::Off,
                (true, true) => Anonymous::On,
                (true, false) => Anonymous::Paths(paths),
            }
        });
        if errors.is_empty() {
            Ok(Self { issuers, anonymous })
        } else {
            Err(Error::Content(errors.to_string()))
        }
    }
}

impl Jwt {
    /// The issuer, unless something is wrong with it.
    fn read(self, path: &Path, own: &[String], errors: &mut ErrorList) -> Option<Issuer> {
        let before = errors.len();
        let (claim_rules, required) =
            mappings::claim_rules(self.claim_validation_rules, &path.child("claimValidationRules"), errors);
        let user = self.claim_mappings.read(&path.child("claimMappings"), &claim_rules, errors);
        let user_rules =
            mappings::user_rules(self.user_validation_rules, &path.child("userValidationRules"), errors);
        let issuer = self.issuer.read(&path.child("issuer"), own, errors);
        let user = user.filter(|_| errors.len() == before)?;
        Some(Issuer {
            discovery_url: issuer.discovery_url,
            trust: issuer.trust,
            groups: user.groups,
            uid: user.uid,
            extra: user.extra,
            required,
            claim_rules,
            user_rules,
            ..Issuer::new(issuer.url, issuer.audiences, user.username)
        })
    }
}

#[cfg(test)]
mod tests;
