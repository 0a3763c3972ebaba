//! What the file may say, and what is said about it when it is wrong.

use serde_json::json;

use super::*;
use crate::authentication::oidc::{Claim, Source};

const HEADER: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";

fn parse(jwt: &serde_json::Value) -> Result<Authentication, String> {
    let own = ["https://own.example".to_owned()];
    Authentication::parse(&format!("{HEADER}jwt: {jwt}\n"), &own).map_err(|error| error.to_string())
}

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
  claimValidationRules: [{{expression: 'claims.exp - claims.nbf <= 86400', message: too long}}]
  claimMappings:
    username: {{expression: '\"two:\" + claims.sub'}}
    groups: {{expression: 'claims.roles.split(\",\")'}}
    uid: {{expression: claims.sub}}
    extra: [{{key: example.org/tenant, valueExpression: claims.tenant}}]
  userValidationRules: [{{expression: \"!user.username.startsWith('system:')\", message: reserved}}]
"
    );
    let file = Authentication::parse(&text, &[]).expect("a configuration");
    let paths = vec!["/livez".to_owned(), "/readyz".to_owned()];
    assert_eq!(file.anonymous, Some(Anonymous::Paths(paths)));
    let [one, two] = file.issuers.as_slice() else { panic!("{:?}", file.issuers) };
    let Some(Source::Claim(groups)) = &one.groups else { panic!("{:?}", one.groups) };
    assert_eq!(*groups, Claim { name: "roles".into(), prefix: "one:".into() });
    assert_eq!(one.required["hd"], "example.org");
    assert!(matches!(&two.username, Source::Expression(found) if found.text() == "\"two:\" + claims.sub"));
    assert_eq!((two.claim_rules.len(), two.user_rules.len(), two.extra.len()), (1, 1, 1));
    assert_eq!(two.extra[0].0, "example.org/tenant");
}

#[test]
fn what_is_wrong_is_said_as_upstream_says_it() {
    let issuer = json!({"url": "https://one.example", "audiences": ["a"]});
    let name = json!({"username": {"claim": "sub", "prefix": ""}});
    let with = |field: &str, value: serde_json::Value| {
        let mut jwt = json!({"issuer": issuer, "claimMappings": name});
        jwt[field] = value;
        json!([jwt])
    };
    let mapped = |value: serde_json::Value| with("claimMappings", value);
    let extra = |key: &str| {
        let mut mappings = name.clone();
        mappings["extra"] = json!([{"key": key, "valueExpression": "claims.a"}]);
        mapped(mappings)
    };
    for (jwt, lines) in [
        (
            with("issuer", json!({"url": "http://u:p@one.example?a#b", "audiences": ["a"]})),
            vec![
                r#"jwt[0].issuer.url: Invalid value: "http://u:p@one.example?a#b": URL scheme must be https"#,
                "URL must not contain a username or password",
                "URL must not contain a query",
                "URL must not contain a fragment",
            ],
        ),
        (
            with("issuer", json!({"url": "https://own.example", "audiences": ["a"]})),
            vec!["URL must not overlap with disallowed issuers: [https://own.example]"],
        ),
        (
            with("issuer", json!({})),
            vec![
                "jwt[0].issuer.url: Required value",
                "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
            ],
        ),
        (
            with(
                "issuer",
                json!({"url": "https://a.example", "discoveryURL": "https://a.example/", "audiences": ["a", "a"],
                "certificateAuthority": "x"}),
            ),
            vec![
                "jwt[0].issuer.discoveryURL: Invalid value: \"https://a.example/\": discoveryURL must be different from URL",
                "jwt[0].issuer.audiences[1]: Duplicate value: \"a\"",
                "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny for multiple audiences",
                "jwt[0].issuer.certificateAuthority: Invalid value: \"<omitted>\": data does not contain",
            ],
        ),
        (
            with(
                "claimValidationRules",
                json!([{}, {"claim": "a", "expression": "b"}, {"claim": "c", "message": "m"}, {"claim": "c"},
                {"expression": "claims.a", "requiredValue": "x"}, {"expression": "claims.a.b == 1"}, {"expression": "claims.a.b == 1"},
                {"expression": "user.name == ''"}]),
            ),
            vec![
                "jwt[0].claimValidationRules[0]: Required value: claim or expression is required",
                "jwt[0].claimValidationRules[1]: Invalid value: \"a\": claim and expression can't both be set",
                "jwt[0].claimValidationRules[2].message: Invalid value: \"m\": may not be specified when claim is set",
                "jwt[0].claimValidationRules[3].claim: Duplicate value: \"c\"",
                "jwt[0].claimValidationRules[4].requiredValue: Invalid value: \"x\": may not be specified when expression is set",
                "jwt[0].claimValidationRules[4].expression: Invalid value: \"claims.a\": must evaluate to bool",
                "jwt[0].claimValidationRules[6].expression: Duplicate value: \"claims.a.b == 1\"",
                "jwt[0].claimValidationRules[7].expression: Invalid value: \"user.name == ''\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'user' (in container '')\n | user.name == ''\n | ^",
            ],
        ),
        (
            mapped(
                json!({"username": {}, "groups": {"claim": "a", "expression": "b"}, "uid": {"claim": "a", "expression": "b"}}),
            ),
            vec![
                "jwt[0].claimMappings.username: Required value: claim or expression is required",
                "jwt[0].claimMappings.groups: Invalid value: \"\": claim and expression can't both be set",
                "jwt[0].claimMappings.uid: Invalid value: \"\": claim and expression can't both be set",
            ],
        ),
        (
            mapped(json!({"username": {"claim": "sub"}, "groups": {"expression": "claims.", "prefix": "x"}})),
            vec![
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
                "jwt[0].claimMappings.groups.prefix: Invalid value: \"x\": may not be specified when expression is set",
                "jwt[0].claimMappings.groups.expression: Invalid value: \"claims.\": compilation failed: ERROR: <input>:1:8: Syntax error",
            ],
        ),
        (
            mapped(json!({"username": {"expression": "claims.?email.orValue('')"}})),
            vec![
                "jwt[0].claimMappings.username.expression: Invalid value: \"claims.?email.orValue('')\": claims.email_verified must be used in",
            ],
        ),
        (
            extra("plain"),
            vec![
                "jwt[0].claimMappings.extra[0].key: Invalid value: \"plain\": must be a domain-prefixed path",
            ],
        ),
        (extra(""), vec!["jwt[0].claimMappings.extra[0].key: Required value"]),
        (extra("example.org/Foo"), vec!["\"example.org/Foo\": must be lowercase"]),
        (
            extra("a.k8s.io/foo"),
            vec!["k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"],
        ),
        (extra("example.org/a b"), vec!["Invalid path"]),
        (
            with(
                "userValidationRules",
                json!([{}, {"expression": "user.username"}, {"expression": "user.nope == 1"}]),
            ),
            vec![
                "jwt[0].userValidationRules[0].expression: Required value",
                "jwt[0].userValidationRules[1].expression: Invalid value: \"user.username\": must evaluate to bool",
                "jwt[0].userValidationRules[2].expression: Invalid value: \"user.nope == 1\": compilation failed: ERROR: <input>:1:5: undefined field 'nope'",
            ],
        ),
        (
            json!([{"issuer": issuer, "claimMappings": name}, {"issuer": issuer, "claimMappings": name}]),
            vec!["jwt[1].issuer.url: Duplicate value: \"https://one.example\""],
        ),
        (json!(vec![json!({}); 65]), vec!["jwt: Too many: 65: must have at most 64 items"]),
        (json!([{"issuer": issuer, "claimMappings": name, "extra": 1}]), vec!["unknown field"]),
    ] {
        let error = parse(&jwt).expect_err(&jwt.to_string()).replace("\\n", "\n");
        for line in lines {
            assert!(error.contains(line), "{line}\nnot in {error}");
        }
    }
    assert!(
        parse(&with(
            "claimValidationRules",
            json!([{"expression": "claims.?email_verified.orValue(true) == true"}])
        ))
        .is_ok()
    );
    assert!(
        parse(&mapped(
            json!({"username": {"expression": "claims.email_verified ? claims.email : claims.sub"}})
        ))
        .is_ok()
    );
    assert!(Authentication::parse("apiVersion: v1\nkind: Pod\n", &[]).is_err());
    let off = format!("{HEADER}anonymous: {{enabled: false, conditions: [{{path: /x}}]}}\n");
    let error = Authentication::parse(&off, &[]).expect_err("off").to_string();
    assert!(error.contains("anonymous.conditions: Invalid value"), "{error}");
}
