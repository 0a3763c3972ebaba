//! Small languages in query strings, fields and files.

use std::str;

use skep_api::duration;
use skep_api::quantity::Quantity;
use skep_api::selector::{FieldSelector, LabelSelector};
use skep_auth::authentication::{BasicFile, TokenFile};
use skep_auth::authorization::abac::Abac;

use crate::Target;

/// Label selectors: what is printed parses to the same.
pub(crate) const LABEL_SELECTOR: Target = Target {
    name: "label-selector",
    about: "label selectors of queries",
    run: label_selector,
    seeds: &[b"a=b,c!=d,e in (f, g),h notin (i),!j,k,l>5", b"x==y", b"example.com/a in ()", b"a in (,)"],
};

fn label_selector(bytes: &[u8]) {
    let Ok(Ok(selector)) = str::from_utf8(bytes).map(LabelSelector::parse) else { return };
    let again = LabelSelector::parse(&selector.to_string()).expect("what is printed parses");
    assert_eq!(again.to_string(), selector.to_string());
}

/// Field selectors.
pub(crate) const FIELD_SELECTOR: Target = Target {
    name: "field-selector",
    about: "field selectors of queries",
    run: field_selector,
    seeds: &[b"metadata.name=a,spec.nodeName!=b", b"status.phase==Running,x=a\\,b\\=c\\\\"],
};

fn field_selector(bytes: &[u8]) {
    let Ok(Ok(selector)) = str::from_utf8(bytes).map(FieldSelector::parse) else { return };
    let again = FieldSelector::parse(&selector.to_string()).expect("what is printed parses");
    assert_eq!(again.to_string(), selector.to_string());
}

/// Quantities: the canonical form is stable and equal to what was read.
pub(crate) const QUANTITY: Target = Target {
    name: "quantity",
    about: "resource quantities",
    run: quantity,
    seeds: &[b"100m", b"1.5Gi", b"1e3", b"-0.5E", b"12345678901234567890n", b"+1Ki", b"1.545Ei"],
};

fn quantity(bytes: &[u8]) {
    let Ok(Ok(quantity)) = str::from_utf8(bytes).map(str::parse::<Quantity>) else { return };
    let printed = quantity.to_string();
    let again: Quantity = printed.parse().expect("what is printed parses");
    assert_eq!(again, quantity, "{printed}");
    assert_eq!(again.to_string(), printed);
}

/// Go's durations.
pub(crate) const DURATION: Target = Target {
    name: "duration",
    about: "durations",
    run: durations,
    seeds: &[b"1h2m3.5s", b"100ms", b"1us", b"-1s"],
};

fn durations(bytes: &[u8]) {
    if let Some(parsed) = str::from_utf8(bytes).ok().and_then(duration::parse) {
        assert_eq!(duration::parse(&duration::format(parsed)), Some(parsed));
    }
}

/// The policy file.
pub(crate) const POLICY_FILE: Target = Target {
    name: "policy-file",
    about: "ABAC policy files",
    run: policy_file,
    seeds: &[
        b"{\"apiVersion\":\"abac.authorization.kubernetes.io/v1beta1\",\"kind\":\"Policy\",\"spec\":{\"user\":\"a\",\"resource\":\"*\",\"namespace\":\"*\",\"readonly\":true}}",
        b"# old form\n{\"user\":\"bob\",\"resource\":\"pods\",\"readonly\":true}\n",
    ],
};

fn policy_file(bytes: &[u8]) {
    let parsed = str::from_utf8(bytes).map(Abac::parse);
    drop(parsed);
}

/// Token and password files.
pub(crate) const CREDENTIAL_FILES: Target = Target {
    name: "credential-files",
    about: "static token and basic-auth files",
    run: credential_files,
    seeds: &[b"token,user,uid,\"g1,g2\"\n# no\nsecret,other,2\n", b"\"quo\"\"ted\",u,1\r\n"],
};

fn credential_files(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (tokens, basic) = (TokenFile::parse(text), BasicFile::parse(text));
    assert!(tokens.is_ok() || basic.is_err() || text.is_empty() || basic.is_ok());
}
