//! Writing X.509 certificates where rcgen has no words: subjects of several organizations, and subjects
//! and names that are taken over from a request byte by byte.

use std::net::IpAddr;
use std::time::SystemTime;

use rcgen::{KeyPair, SanType, SigningKey};
use x509_parser::prelude::{FromDer, X509Certificate};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::Error;

const SUBJECT_KEY: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALT_NAMES: &[u64] = &[2, 5, 29, 17];
const CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_USAGE: &[u64] = &[2, 5, 29, 37];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];

/// Other names as a DER `GeneralNames`; kinds that we never give out are left out.
pub(crate) fn alt_names(names: &[SanType]) -> Vec<u8> {
    sequence(|list| {
        for name in names {
            match name {
                SanType::DnsName(name) => list
                    .next()
                    .write_tagged_implicit(Tag::context(2), |writer| writer.write_ia5_string(name.as_str())),
                SanType::IpAddress(IpAddr::V4(ip)) => {
                    list.next()
                        .write_tagged_implicit(Tag::context(7), |writer| writer.write_bytes(&ip.octets()));
                }
                SanType::IpAddress(IpAddr::V6(ip)) => {
                    list.next()
                        .write_tagged_implicit(Tag::context(7), |writer| writer.write_bytes(&ip.octets()));
                }
                _ => {}
            }
        }
    })
}

/// What a leaf certificate says.
pub(crate) struct Leaf<'a> {
    /// The subject, a DER `Name`.
    pub(crate) subject: &'a [u8],
    /// The public key, a DER `SubjectPublicKeyInfo`.
    pub(crate) public_key: &'a [u8],
    /// The subject's other names, a DER `GeneralNames`.
    pub(crate) alt_names: Option<&'a [u8]>,
    /// Bits of `KeyUsage`, the first one (digitalSignature) highest.
    pub(crate) key_usage: u16,
    /// Object identifiers of extended usages.
    pub(crate) extended: &'a [&'a [u64]],
    /// Good from.
    pub(crate) not_before: SystemTime,
    /// Good until.
    pub(crate) not_after: SystemTime,
}

fn sequence(parts: impl FnOnce(&mut DERWriterSeq<'_>)) -> Vec<u8> {
    yasna::construct_der(|writer| writer.write_sequence(parts))
}

/// A certificate in PEM.
pub(crate) fn to_pem(der: Vec<u8>) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), lines)
}

/// A subject of organizations and a common name, each part in a set of its own.
pub(crate) fn subject(name: &str, organizations: &[&str]) -> Vec<u8> {
    sequence(|names| {
        let mut part = |oid: &[u64], text: &str| {
            names.next().write_set(|set| {
                set.next().write_sequence(|pair| {
                    pair.next().write_oid(&ObjectIdentifier::from_slice(oid));
                    pair.next().write_utf8_string(text);
                });
            });
        };
        for organization in organizations {
            part(ORGANIZATION, organization);
        }
        part(COMMON_NAME, name);
    })
}

impl Leaf<'_> {
    /// Signs it; the certificate in DER. `serial` is 16 random bytes.
    pub(crate) fn sign(&self, authority: &[u8], key: &KeyPair, serial: [u8; 16]) -> Result<Vec<u8>, Error> {
        let (_, authority) = X509Certificate::from_der(authority)
            .map_err(|e| Error::Tls(format!("the authority's certificate can't be read: {e}")))?;
        let algorithm = algorithm(key)?;
        let tbs = sequence(|tbs| {
            tbs.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            // Positive, and never zero.
            let mut number = serial;
            number[0] = number[0] & 0x7f | 0x40;
            tbs.next().write_bigint_bytes(&number, true);
            algorithm.write(tbs.next());
            tbs.next().write_der(authority.subject().as_raw());
            tbs.next().write_sequence(|validity| {
                validity.next().write_der(&time(self.not_before));
                validity.next().write_der(&time(self.not_after));
            });
            tbs.next().write_der(self.subject);
            tbs.next().write_der(self.public_key);
            tbs.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|list| self.extensions(list, &authority));
            });
        });
        let signature = key.sign(&tbs)?;
        Ok(sequence(|certificate| {
            certificate.next().write_der(&tbs);
            algorithm.write(certificate.next());
            certificate.next().write_bitvec_bytes(&signature, signature.len() * 8);
        }))
    }

    fn extensions(&self, list: &mut DERWriterSeq<'_>, authority: &X509Certificate<'_>) {
        if self.key_usage != 0 {
            let used = 16 - self.key_usage.trailing_zeros() as usize;
            let bytes = self.key_usage.to_be_bytes();
            let bits = bytes.get(..used.div_ceil(8)).unwrap_or(&bytes);
            extension(list, KEY_USAGE, true, &yasna::construct_der(|w| w.write_bitvec_bytes(bits, used)));
        }
        if !self.extended.is_empty() {
            let usages = sequence(|usages| {
                for oid in self.extended {
                    usages.next().write_oid(&ObjectIdentifier::from_slice(oid));
                }
            });
            extension(list, EXTENDED_USAGE, false, &usages);
        }
        extension(list, CONSTRAINTS, true, &sequence(|_| {}));
        if let Some(names) = self.alt_names {
            extension(list, ALT_NAMES, false, names);
        }
        let wanted = SUBJECT_KEY;
        let own = authority
            .extensions()
            .iter()
            .find(|e| e.oid.iter().is_some_and(|oid| oid.eq(wanted.iter().copied())));
        // An OCTET STRING of fewer than 128 bytes: two bytes of header.
        if let Some(id) = own.and_then(|e| e.value.get(2..)) {
            let key = sequence(|key| {
                key.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
            });
            extension(list, AUTHORITY_KEY, false, &key);
        }
    }
}

fn extension(list: &mut DERWriterSeq<'_>, oid: &[u64], critical: bool, value: &[u8]) {
    list.next().write_sequence(|parts| {
        parts.next().write_oid(&ObjectIdentifier::from_slice(oid));
        if critical {
            parts.next().write_bool(true);
        }
        parts.next().write_bytes(value);
    });
}

/// How the authority signs.
struct Algorithm {
    oid: &'static [u64],
    null: bool,
}

impl Algorithm {
    fn write(&self, writer: DERWriter<'_>) {
        writer.write_sequence(|parts| {
            parts.next().write_oid(&ObjectIdentifier::from_slice(self.oid));
            if self.null {
                parts.next().write_null();
            }
        });
    }
}

fn algorithm(key: &KeyPair) -> Result<Algorithm, Error> {
    let known: [(&rcgen::SignatureAlgorithm, &'static [u64], bool); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], false),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], true),
    ];
    let own = rcgen::PublicKeyData::algorithm(key);
    let found = known.into_iter().find(|(algorithm, ..)| *algorithm == own);
    let (_, oid, null) =
        found.ok_or_else(|| Error::Tls("the authority's key is of a kind that can't sign".into()))?;
    Ok(Algorithm { oid, null })
}

/// UTCTime until 2049, GeneralizedTime after, as RFC 5280 wants it.
fn time(at: SystemTime) -> Vec<u8> {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::MAX);
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let (tag, text) = if at.year() < 2050 {
        (0x17, at.strftime("%y%m%d%H%M%SZ").to_string())
    } else {
        (0x18, at.strftime("%Y%m%d%H%M%SZ").to_string())
    };
    let mut out = vec![tag, u8::try_from(text.len()).unwrap_or(15)];
    out.extend_from_slice(text.as_bytes());
    out
}
