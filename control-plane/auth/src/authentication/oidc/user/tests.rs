//! Claims to users: what expressions make, and what refusals say.

use serde_json::json;

use super::super::{Expression, Rule};
use super::*;

fn claims() -> Json {
    json!({
        "iss": "https://one.example", "aud": ["a"], "exp": 1_700_086_400, "nbf": 1_700_000_000, "jti": "id-1",
        "sub": "jane", "email": "jane@example.org", "email_verified": true, "roles": "dev,ops", "empty": "",
        "list": ["a", "", "b"], "mixed": ["a", 1], "null": null,
        "kubernetes.io": {"namespace": "kube-system", "pods": [{"node.name": "n1"}], "warnafter": 1_700_081_020},
    })
}

fn issuer(username: Source) -> Issuer {
    Issuer::new("https://one.example", vec!["a".to_owned()], username)
}

fn over(text: &str) -> Source {
    Source::Expression(Expression::over_claims(text).expect(text))
}

fn on_claims(text: &str, message: &str) -> Rule {
    Rule { expression: Expression::on_claims(text).expect(text), message: message.to_owned() }
}

fn on_user(text: &str, message: &str) -> Rule {
    Rule { expression: Expression::on_user(text).expect(text), message: message.to_owned() }
}

#[test]
fn expressions_make_the_user() {
    let key = "example.org/warn";
    let user = of(
        &Issuer {
            groups: Some(over("claims.roles.split(',') + ['']")),
            uid: Some(over("claims.kubernetes__dot__io.pods[0].node__dot__name")),
            extra: vec![
                (
                    key.to_owned(),
                    Expression::over_claims("string(int(claims['kubernetes.io'].warnafter))").unwrap(),
                ),
                (
                    "example.org/none".to_owned(),
                    Expression::over_claims("claims[?'nope'].orValue([])").unwrap(),
                ),
            ],
            claim_rules: vec![
                on_claims("claims.exp - claims.nbf <= 86400", "too long"),
                on_claims("has(claims.kubernetes__dot__io.namespace) && !has(claims.nope)", ""),
            ],
            user_rules: vec![
                on_user("!user.username.startsWith('system:')", "reserved"),
                on_user("user.groups == ['dev', 'ops'] && user.uid == 'n1'", ""),
                on_user("user.extra.example__dot__org__slash__warn[0] == '1700081020'", ""),
                on_user("user.extra[?'example.org/none'].orValue([]) == []", ""),
            ],
            ..issuer(over("'one:' + claims.sub"))
        },
        &claims(),
    )
    .expect("a user");
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("one:jane", "n1"));
    assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(user.extra[key], ["1700081020"]);
    assert_eq!(user.extra[CREDENTIAL], ["JTI=id-1"]);
    assert!(!user.extra.contains_key("example.org/none"), "nothing is no value");
}

#[test]
fn groups_are_a_text_or_texts() {
    for (expression, want) in [
        ("claims.sub", vec!["jane"]),
        ("claims.list", vec!["a", "b"]),
        ("claims.empty", vec![]),
        ("claims['null']", vec![]),
    ] {
        let found = groups(&over(expression), &claims()).expect(expression);
        assert_eq!(found, want, "{expression}");
    }
    for wrong in ["claims.mixed", "claims.exp", "{'a': 'b'}"] {
        let error = groups(&over(wrong), &claims()).expect_err(wrong);
        assert_eq!(
            error,
            "error evaluating group claim expression: expression must return a string or a list of strings"
        );
    }
}

#[test]
fn refusals_say_why() {
    let sub = || Source::claim("sub", "");
    for (issuer, why) in [
        (
            issuer(over("claims.nope")),
            "error evaluating username claim expression: expression 'claims.nope' resulted in error: no such key: nope",
        ),
        (
            issuer(over("claims.exp")),
            "error evaluating username claim expression: username claim expression must return a string",
        ),
        (issuer(over("claims.empty")), "empty username via CEL expression is not allowed"),
        (issuer(Source::claim("nope", "")), "parse username claims \"nope\": claim not present"),
        (
            Issuer { claim_rules: vec![on_claims("claims.sub == 'x'", "not x")], ..issuer(sub()) },
            "error evaluating claim validation expression: validation expression 'claims.sub == 'x'' failed: not x",
        ),
        (
            Issuer { claim_rules: vec![on_claims("claims.a.b == 1", "")], ..issuer(sub()) },
            "error evaluating claim validation expression: expression 'claims.a.b == 1' resulted in error: no such key: a",
        ),
        (
            Issuer {
                user_rules: vec![on_user("user.groups.exists(g, g == 'system:authenticated')", "m")],
                ..issuer(sub())
            },
            "error evaluating user info validation rule: validation expression 'user.groups.exists(g, g == 'system:authenticated')' failed: m",
        ),
        (
            Issuer { uid: Some(over("claims.exp")), ..issuer(sub()) },
            "error evaluating uid claim expression: uid claim expression must return a string",
        ),
    ] {
        assert_eq!(of(&issuer, &claims()).expect_err(why), why);
    }
    let endless = Issuer {
        claim_rules: vec![on_claims(
            "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, a + b + c + d + e + f > 0))))))",
            "",
        )],
        ..issuer(sub())
    };
    assert!(of(&endless, &claims()).expect_err("costs").contains("actual cost limit exceeded"));
}
