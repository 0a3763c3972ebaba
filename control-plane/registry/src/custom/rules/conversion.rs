//! How a definition may convert. Paths are those of the original's internal form.

use serde_json::Value;
use skep_api::field::{Error, Path};
use skep_api::names;
use skep_api::object::ObjectExt;

use crate::custom::convert::REVIEW_VERSIONS;
use crate::strategy::check::At;

pub(super) fn validate(here: &At<'_>, old: Option<&Value>) {
    if !here.is_set() {
        return;
    }
    let strategy = here.child("strategy");
    strategy.require_one_of(&["None", "Webhook"]);
    let webhook = here.child("webhook");
    let client = here.path().child("webhookClientConfig");
    let reviews = here.path().child("conversionReviewVersions");
    if strategy.text() != "Webhook" {
        if webhook.child("clientConfig").is_set() {
            let detail = "should not be set when strategy is not set to Webhook";
            here.error(Error::forbidden(&client, detail));
        }
        if !webhook.child("conversionReviewVersions").is_empty() {
            let detail = "should not be set when strategy is not set to Webhook";
            here.error(Error::forbidden(&reviews, detail));
        }
        return;
    }
    let config = webhook.child("clientConfig");
    if config.is_set() {
        self::client(&config, &client);
    } else {
        here.error(Error::required(&client, "required when strategy is set to Webhook"));
    }
    review_versions(&webhook.child("conversionReviewVersions"), &reviews, old);
}

fn client(config: &At<'_>, path: &Path) {
    let (url, service) = (config.child("url"), config.child("service"));
    if url.is_set() == service.is_set() {
        return config.error(Error::required(path, "exactly one of url or service is required"));
    }
    if url.is_set() {
        return self::url(&url, &path.child("url"));
    }
    let path = path.child("service");
    for field in ["name", "namespace"] {
        if service.child(field).is_empty() {
            config.error(Error::required(&path.child(field), format!("service {field} is required")));
        }
    }
    let port = service.child("port").int().unwrap_or(443);
    for detail in names::port_number(port) {
        config.error(Error::invalid(&path.child("port"), port, format!("port is not valid: {detail}")));
    }
    let given = service.child("path");
    if given.is_set() {
        let here = path.child("path");
        let text = given.text();
        let invalid = |detail: String| config.error(Error::invalid(&here, text, detail));
        if text.is_empty() || !text.starts_with('/') {
            return invalid("must start with a '/'".to_owned());
        }
        let inner = text[1..].strip_suffix('/').unwrap_or(&text[1..]);
        if inner.is_empty() {
            return;
        }
        for (at, step) in inner.split('/').enumerate() {
            if step.is_empty() {
                return invalid(format!("segment[{at}] may not be empty"));
            }
            for wrong in names::dns1123_subdomain(step) {
                invalid(format!("segment[{at}]: {wrong}"));
            }
        }
    }
}

fn url(url: &At<'_>, path: &Path) {
    const FORM: &str = "desired format: https://host[/path]";
    let text = url.text();
    let invalid = |value: &str, detail: &str| {
        url.error(Error::invalid(path, value, format!("{detail}; {FORM}")));
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return invalid(text, "'https' is the only allowed URL scheme");
    };
    if scheme != "https" {
        invalid(scheme, "'https' is the only allowed URL scheme");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, tail) = rest.split_at(end);
    if host.is_empty() {
        invalid(host, "host must be specified");
    }
    if let Some((user, _)) = host.split_once('@') {
        url.error(Error::invalid(path, user, "user information is not permitted in the URL"));
    }
    if let Some((_, fragment)) = tail.split_once('#') {
        url.error(Error::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if let Some((_, query)) = tail.split('#').next().unwrap_or_default().split_once('?') {
        url.error(Error::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn review_versions(here: &At<'_>, path: &Path, old: Option<&Value>) {
    let versions = here.items();
    if versions.is_empty() {
        return here.error(Error::required(path, ""));
    }
    let mut seen = Vec::new();
    for (at, version) in versions.iter().enumerate() {
        let text = version.text();
        if seen.contains(&text) {
            here.error(Error::invalid(&path.index(at), text, "duplicate version"));
            continue;
        }
        seen.push(text);
        for wrong in names::dns1035_label(text) {
            here.error(Error::invalid(&path.index(at), text, wrong));
        }
    }
    let known = |versions: &[&str]| versions.iter().any(|version| REVIEW_VERSIONS.contains(version));
    let before = old.map(|old| {
        let list = old.items(&["spec", "conversion", "webhook", "conversionReviewVersions"]);
        list.iter().filter_map(Value::as_str).collect::<Vec<_>>()
    });
    let strict = before.is_none_or(|before| before.is_empty() || known(&before));
    if strict && !known(&seen) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        here.error(Error::invalid(path, here.value().clone(), detail));
    }
}
