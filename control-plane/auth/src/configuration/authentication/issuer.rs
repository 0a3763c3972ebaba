//! `jwt[].issuer`: where its keys are found and whom its tokens are for.

use serde::Deserialize;
use skep_api::field::{Error, ErrorList, Path};
use skep_webhook::Trust;
use url::Url;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Entry {
    pub(super) url: String,
    #[serde(rename = "discoveryURL")]
    pub(super) discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    audience_match_policy: Option<String>,
    egress_selector_type: Option<String>,
}

/// What was read.
pub(super) struct Read {
    pub(super) url: String,
    pub(super) discovery_url: Option<String>,
    pub(super) trust: Trust,
    pub(super) audiences: Vec<String>,
}

impl Entry {
    pub(super) fn read(self, path: &Path, own: &[String], errors: &mut ErrorList) -> Read {
        let at = path.child("url");
        if self.url.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            if own.contains(&self.url) {
                let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
                errors.push(Error::invalid(&at, self.url.as_str(), why));
            }
            check_url(&self.url, &at, errors);
        }
        let discovery_url = self.discovery_url.filter(|url| !url.is_empty());
        if let Some(url) = &discovery_url {
            let at = path.child("discoveryURL");
            if !self.url.is_empty() && self.url.trim_end_matches('/') == url.trim_end_matches('/') {
                errors.push(Error::invalid(&at, url.as_str(), "discoveryURL must be different from URL"));
            }
            check_url(url, &at, errors);
        }
        check_audiences(&self.audiences, self.audience_match_policy.as_deref(), path, errors);
        if let Some(kind) = self.egress_selector_type.filter(|kind| !kind.is_empty()) {
            let why = "egress selectors are not supported";
            errors.push(Error::invalid(&path.child("egressSelectorType"), kind, why));
        }
        let trust = match self.certificate_authority.filter(|pem| !pem.is_empty()) {
            Some(text) => {
                let found = pem::parse_many(&text);
                if !found.is_ok_and(|parts| parts.iter().any(|part| part.tag() == "CERTIFICATE")) {
                    let why = "data does not contain any valid RSA or ECDSA certificates";
                    errors.push(Error::invalid(&path.child("certificateAuthority"), "<omitted>", why));
                }
                Trust::Bundle(text.into_bytes().into())
            }
            None => Trust::System,
        };
        Read { url: self.url, discovery_url, trust, audiences: self.audiences }
    }
}

fn check_url(text: &str, at: &Path, errors: &mut ErrorList) {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return errors.push(Error::invalid(at, text, error.to_string())),
    };
    let mut wrong = |why: &str| errors.push(Error::invalid(at, text, why));
    if url.scheme() != "https" {
        wrong("URL scheme must be https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        wrong("URL must not contain a username or password");
    }
    if url.query().is_some_and(|query| !query.is_empty()) {
        wrong("URL must not contain a query");
    }
    if url.fragment().is_some_and(|fragment| !fragment.is_empty()) {
        wrong("URL must not contain a fragment");
    }
}

fn check_audiences(audiences: &[String], policy: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let at = path.child("audiences");
    if audiences.is_empty() {
        return errors.push(Error::required(&at, format!("at least one {at} is required")));
    }
    for (index, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(Error::required(&at.index(index), ""));
        }
        if audiences[..index].contains(audience) {
            errors.push(Error::duplicate(&at.index(index), audience.as_str()));
        }
    }
    let policy = policy.unwrap_or_default();
    let why = match (audiences.len(), policy) {
        (_, "MatchAny") | (1, "") => return,
        (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
        _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
    };
    errors.push(Error::invalid(&path.child("audienceMatchPolicy"), policy, why));
}
