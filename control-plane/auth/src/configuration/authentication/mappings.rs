//! How claims become a user, and what must hold of both: `claimValidationRules`, `claimMappings` and
//! `userValidationRules` of `jwt[]`.

use std::collections::BTreeMap;

use serde::Deserialize;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;

use crate::authentication::oidc::{Expression, Rule, Source};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UserRule {
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mappings {
    username: Prefixed,
    groups: Prefixed,
    uid: Plain,
    extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Prefixed {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Plain {
    claim: String,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Extra {
    key: String,
    value_expression: String,
}

/// Where the parts of a user come from.
pub(super) struct User {
    pub(super) username: Source,
    pub(super) groups: Option<Source>,
    pub(super) uid: Option<Source>,
    pub(super) extra: Vec<(String, Expression)>,
}

const BOTH: &str = "claim and expression can't both be set";
const NEITHER: &str = "claim or expression is required";

fn compiled(
    outcome: Result<Expression, String>,
    text: &str,
    at: &Path,
    errors: &mut ErrorList,
) -> Option<Expression> {
    outcome.map_err(|why| errors.push(Error::invalid(at, text, why))).ok()
}

/// The conditions on claims, and the values that claims must have.
pub(super) fn claim_rules(
    rules: Vec<ClaimRule>,
    path: &Path,
    errors: &mut ErrorList,
) -> (Vec<Rule>, BTreeMap<String, String>) {
    let (mut conditions, mut required) = (Vec::new(), BTreeMap::new());
    let mut seen: Vec<String> = Vec::new();
    for (index, rule) in rules.into_iter().enumerate() {
        let path = path.index(index);
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => errors.push(Error::invalid(&path, rule.claim, BOTH)),
            (true, true) => errors.push(Error::required(&path, NEITHER)),
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    errors.push(Error::invalid(&path.child("message"), rule.message, why));
                }
                if required.insert(rule.claim.clone(), rule.required_value).is_some() {
                    errors.push(Error::duplicate(&path.child("claim"), rule.claim));
                }
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.push(Error::invalid(&path.child("requiredValue"), rule.required_value, why));
                }
                let (path, text) = (path.child("expression"), rule.expression);
                if seen.contains(&text) {
                    errors.push(Error::duplicate(&path, text));
                    continue;
                }
                let expression = compiled(Expression::on_claims(&text), &text, &path, errors);
                conditions.extend(expression.map(|expression| Rule { expression, message: rule.message }));
                seen.push(text);
            }
        }
    }
    (conditions, required)
}

/// The conditions on users.
pub(super) fn user_rules(rules: Vec<UserRule>, path: &Path, errors: &mut ErrorList) -> Vec<Rule> {
    let mut conditions = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (index, UserRule { expression: text, message }) in rules.into_iter().enumerate() {
        let path = path.index(index).child("expression");
        if text.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if seen.contains(&text) {
            errors.push(Error::duplicate(&path, text));
        } else {
            let expression = compiled(Expression::on_user(&text), &text, &path, errors);
            conditions.extend(expression.map(|expression| Rule { expression, message }));
            seen.push(text);
        }
    }
    conditions
}

impl Mappings {
    /// Reads them; `None` when there is no name to call anybody by.
    pub(super) fn read(self, path: &Path, rules: &[Rule], errors: &mut ErrorList) -> Option<User> {
        let name_text = self.username.expression.clone();
        let username = self.username.read(&path.child("username"), true, errors);
        let groups = self.groups.read(&path.child("groups"), false, errors);
        let uid = self.uid.read(&path.child("uid"), errors);
        let extra = extra(self.extra, &path.child("extra"), errors);
        if let Some(Source::Expression(expression)) = &username
            && expression.selects_claim("email")
        {
            // An address that nobody has verified names nobody.
            let all = rules.iter().map(|rule| &rule.expression).chain(extra.iter().map(|(_, found)| found));
            if !all.chain([expression]).any(|expression| expression.selects_claim("email_verified")) {
                let why = "claims.email_verified must be used in claimMappings.username.expression or \
                           claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
                           claims.email is used in claimMappings.username.expression";
                errors.push(Error::invalid(&path.child("username").child("expression"), name_text, why));
            }
        }
        Some(User { username: username?, groups, uid, extra })
    }
}

impl Prefixed {
    fn read(self, path: &Path, required: bool, errors: &mut ErrorList) -> Option<Source> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (false, false) => errors.push(Error::invalid(path, "", BOTH)),
            (true, true) if required => errors.push(Error::required(path, NEITHER)),
            (true, true) => {}
            (true, false) => {
                if let Some(prefix) = self.prefix {
                    let why = "may not be specified when expression is set";
                    errors.push(Error::invalid(&path.child("prefix"), prefix, why));
                }
                let (text, path) = (self.expression, path.child("expression"));
                let found = compiled(Expression::over_claims(&text), &text, &path, errors);
                return found.map(Source::Expression);
            }
            (false, true) => {
                let Some(prefix) = self.prefix else {
                    let why = "prefix is required when claim is set. It can be set to an empty string to \
                               disable prefixing";
                    errors.push(Error::required(&path.child("prefix"), why));
                    return None;
                };
                return Some(Source::claim(self.claim, prefix));
            }
        }
        None
    }
}

impl Plain {
    fn read(self, path: &Path, errors: &mut ErrorList) -> Option<Source> {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (true, true) => None,
            (false, true) => Some(Source::claim(self.claim, "")),
            (false, false) => {
                errors.push(Error::invalid(path, "", BOTH));
                None
            }
            (true, false) => {
                let (text, path) = (self.expression, path.child("expression"));
                compiled(Expression::over_claims(&text), &text, &path, errors).map(Source::Expression)
            }
        }
    }
}

fn extra(entries: Vec<Extra>, path: &Path, errors: &mut ErrorList) -> Vec<(String, Expression)> {
    let mut found = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (index, Extra { key, value_expression: text }) in entries.into_iter().enumerate() {
        let path = path.index(index);
        check_key(&key, &path.child("key"), errors);
        if seen.contains(&key) {
            errors.push(Error::duplicate(&path.child("key"), key));
            continue;
        }
        seen.push(key.clone());
        let path = path.child("valueExpression");
        if text.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let expression = compiled(Expression::over_claims(&text), &text, &path, errors);
        found.extend(expression.map(|expression| (key, expression)));
    }
    found
}

/// `example.org/role`: lower case, below a domain that is not Kubernetes' own.
fn check_key(key: &str, path: &Path, errors: &mut ErrorList) {
    let mut wrong = |value: &str, why: &str| errors.push(Error::invalid(path, value, why));
    match key.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            for why in names::dns1123_subdomain(domain) {
                wrong(domain, &why);
            }
            let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if !rest.chars().all(fits) {
                let grammar = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
                wrong(rest, &format!("Invalid path (regex used for validation is '{grammar}')"));
            }
            if ["kubernetes.io", "k8s.io"].iter().any(|own| {
                domain.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }) {
                wrong(key, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
            }
        }
        _ if key.is_empty() => errors.push(Error::required(path, "")),
        _ => wrong(key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if key.chars().any(char::is_uppercase) {
        errors.push(Error::invalid(path, key, "must be lowercase"));
    }
}
