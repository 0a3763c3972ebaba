//! Is a stored certificate still the one we want.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::SanType;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CertPair;

/// What a certificate should be.
pub(super) struct Wanted<'a> {
    pub(super) ca_pem: &'a str,
    pub(super) name: &'a str,
    pub(super) organizations: &'a [&'a str],
    pub(super) names: &'a [SanType],
}

/// Does the pair fit, is it signed by the authority, and does it last until `until`. Anything that
/// can't be read does not fit: it is issued again.
pub(super) fn still_good(pair: &CertPair, wanted: &Wanted<'_>, until: SystemTime) -> bool {
    fits(pair, wanted, until).unwrap_or(false)
}

fn fits(pair: &CertPair, wanted: &Wanted<'_>, until: SystemTime) -> Option<bool> {
    let leaf = pem::parse(&pair.cert_pem).ok()?;
    let authority = pem::parse(wanted.ca_pem).ok()?;
    let (_, leaf) = X509Certificate::from_der(leaf.contents()).ok()?;
    let (_, authority) = X509Certificate::from_der(authority.contents()).ok()?;
    let key = rcgen::KeyPair::from_pem(&pair.key_pem).ok()?;
    let until = i64::try_from(until.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    let organizations: Vec<&str> =
        leaf.subject().iter_organization().filter_map(|part| part.as_str().ok()).collect();
    let name = leaf.subject().iter_common_name().next().and_then(|part| part.as_str().ok());
    Some(
        leaf.validity().not_after.timestamp() > until
            && leaf.verify_signature(Some(authority.public_key())).is_ok()
            && leaf.public_key().subject_public_key.data.as_ref() == rcgen::PublicKeyData::der_bytes(&key)
            && name == Some(wanted.name)
            && organizations == wanted.organizations
            && names_of(&leaf) == wanted.names.iter().map(describe).collect(),
    )
}

fn describe(name: &SanType) -> String {
    match name {
        SanType::DnsName(name) => name.as_str().to_owned(),
        SanType::IpAddress(ip) => ip.to_string(),
        other => format!("{other:?}"),
    }
}

fn names_of(leaf: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return BTreeSet::new() };
    let names = extension.value.general_names.iter().map(|name| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => IpAddr::from(v4).to_string(),
            Err(_) => <[u8; 16]>::try_from(*bytes)
                .map_or_else(|_| format!("{bytes:?}"), |v6| IpAddr::from(v6).to_string()),
        },
        other => format!("{other:?}"),
    });
    names.collect()
}
