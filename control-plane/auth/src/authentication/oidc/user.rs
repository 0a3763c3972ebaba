//! From verified claims to a user: names by claims or expressions, then the conditions. Pure.

use serde_json::Value as Json;
use skep_api::user::UserInfo;
use skep_cel::Value;

use super::expression::is_true;
use super::{Issuer, Source};

/// The key by which the audit log finds the token a user came with.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// The user that an issuer's verified claims describe; the error says why there is none.
pub(super) fn of(issuer: &Issuer, claims: &Json) -> Result<UserInfo, String> {
    let mut user = UserInfo {
        name: name(&issuer.username, claims)?,
        groups: issuer.groups.as_ref().map(|source| groups(source, claims)).transpose()?.unwrap_or_default(),
        uid: issuer.uid.as_ref().map(|source| uid(source, claims)).transpose()?.unwrap_or_default(),
        ..UserInfo::default()
    };
    if let Some(jti) = claims.get("jti").and_then(Json::as_str).filter(|jti| !jti.is_empty()) {
        user.extra.insert(CREDENTIAL.to_owned(), vec![format!("JTI={jti}")]);
    }
    for (key, expression) in &issuer.extra {
        let wrong = |why: String| format!("error evaluating extra claim expression: {why}");
        let values = expression.of_claims(claims).and_then(|value| texts(&value)).map_err(wrong)?;
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    check_claims(issuer, claims)?;
    for rule in &issuer.user_rules {
        let held = rule.expression.holds_of_user(&user).and_then(|held| settle(held, rule));
        held.map_err(|why| format!("error evaluating user info validation rule: {why}"))?;
    }
    // Conditions see the groups of the claims only; the group of all who are known comes after them.
    Ok(UserInfo { uid: user.uid, extra: user.extra, ..UserInfo::new(user.name, user.groups) })
}

fn check_claims(issuer: &Issuer, claims: &Json) -> Result<(), String> {
    for (name, wanted) in &issuer.required {
        match claims.get(name) {
            Some(Json::String(found)) if found == wanted => {}
            Some(Json::String(_)) => return Err(format!("required claim {name} value does not match")),
            Some(_) => return Err(format!("parse claim {name}: it is no string")),
            None => return Err(format!("required claim {name} not present in ID token")),
        }
    }
    for rule in &issuer.claim_rules {
        let value = rule.expression.of_claims(claims);
        let held = value.and_then(|value| is_true(&value)).and_then(|held| settle(held, rule));
        held.map_err(|why| format!("error evaluating claim validation expression: {why}"))?;
    }
    Ok(())
}

fn settle(held: bool, rule: &super::Rule) -> Result<(), String> {
    if held {
        return Ok(());
    }
    Err(format!("validation expression '{}' failed: {}", rule.expression.text(), rule.message))
}

fn name(source: &Source, claims: &Json) -> Result<String, String> {
    let claim = match source {
        Source::Expression(expression) => {
            let wrong = |why: String| format!("error evaluating username claim expression: {why}");
            let value = expression.of_claims(claims).map_err(wrong)?;
            let name = value.as_str().ok_or("username claim expression must return a string".to_owned());
            let name = name.map_err(wrong)?;
            if name.is_empty() {
                return Err("empty username via CEL expression is not allowed".to_owned());
            }
            return Ok(name.to_owned());
        }
        Source::Claim(claim) => claim,
    };
    let found =
        text(claims, &claim.name).map_err(|why| format!("parse username claims {:?}: {why}", claim.name));
    let name = found?;
    if claim.name == "email" {
        // Where the issuer says whether it has looked, it must have.
        match claims.get("email_verified") {
            None | Some(Json::Bool(true)) => {}
            Some(Json::Bool(false)) => return Err("email not verified".to_owned()),
            Some(_) => return Err("parse 'email_verified' claim: it is no boolean".to_owned()),
        }
    }
    if name.is_empty() {
        return Err(format!("the claim {} is empty", claim.name));
    }
    Ok(format!("{}{name}", claim.prefix))
}

fn uid(source: &Source, claims: &Json) -> Result<String, String> {
    match source {
        Source::Claim(claim) => {
            let found = text(claims, &claim.name);
            found.map(str::to_owned).map_err(|why| format!("parse uid claim {:?}: {why}", claim.name))
        }
        Source::Expression(expression) => {
            let wrong = |why: String| format!("error evaluating uid claim expression: {why}");
            let value = expression.of_claims(claims).map_err(wrong)?;
            let uid = value.as_str().map(str::to_owned);
            uid.ok_or_else(|| wrong("uid claim expression must return a string".to_owned()))
        }
    }
}

fn groups(source: &Source, claims: &Json) -> Result<Vec<String>, String> {
    let claim = match source {
        Source::Expression(expression) => {
            let wrong = |why: String| format!("error evaluating group claim expression: {why}");
            return expression.of_claims(claims).and_then(|value| texts(&value)).map_err(wrong);
        }
        Source::Claim(claim) => claim,
    };
    let list = match claims.get(&claim.name) {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let group = |group: &Json| match group.as_str() {
        Some(group) => Ok(format!("{}{group}", claim.prefix)),
        None => {
            Err(format!("parse groups claim {:?}: it is neither a string nor a list of strings", claim.name))
        }
    };
    list.iter().map(group).collect()
}

fn text<'a>(claims: &'a Json, name: &str) -> Result<&'a str, &'static str> {
    claims.get(name).ok_or("claim not present")?.as_str().ok_or("it is no string")
}

/// A string or a list of strings; what is empty or null counts as absent.
fn texts(value: &Value<'_>) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let mut found = Vec::new();
    match value {
        Value::Null => {}
        Value::String(text) => found.push(text.to_string()),
        Value::List(list) => {
            for item in list.iter() {
                found.push(item.as_str().ok_or_else(wrong)?.to_owned());
            }
        }
        _ => return Err(wrong()),
    }
    found.retain(|text| !text.is_empty());
    Ok(found)
}

#[cfg(test)]
mod tests;
