//! Signing requests.

use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Error, Request};
use crate::pki::x509::{self, Leaf};

/// The longest life of what is signed here.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(600);
/// Clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// How long a certificate lives for which so many seconds were asked.
pub fn life(seconds: Option<i64>) -> Duration {
    let asked = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    asked.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}

/// An authority that signs requests.
pub struct Authority {
    certificate: Vec<u8>,
    key: KeyPair,
    end: SystemTime,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads certificate and key (PEM).
    pub fn new(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let sign = |error: &dyn std::fmt::Display| Error::Sign(error.to_string());
        let certificate = pem::parse(cert_pem).map_err(|e| sign(&e))?.into_contents();
        let key = KeyPair::from_pem(key_pem).map_err(|e| sign(&e))?;
        let (_, read) = X509Certificate::from_der(&certificate).map_err(|e| sign(&e))?;
        let end = u64::try_from(read.validity().not_after.timestamp()).unwrap_or_default();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        Ok(Self { certificate, key, end })
    }

    /// Signs: the certificate in PEM. Subject, key and names are those of the request.
    pub fn sign(&self, request: &Request, usages: &[String], life: Duration) -> Result<String, Error> {
        let mut key_usage = 0;
        let mut extended: Vec<&[u64]> = Vec::new();
        for usage in usages {
            match meaning(usage).ok_or_else(|| Error::Usage(usage.clone()))? {
                Usage::Key(bit) => key_usage |= bit,
                Usage::Extended(oid) => extended.push(oid),
            }
        }
        let now = SystemTime::now();
        let leaf = Leaf {
            subject: &request.subject,
            public_key: &request.public_key,
            alt_names: request.alt_names.as_deref(),
            key_usage,
            extended: &extended,
            not_before: now - BACKDATE,
            // No longer than who vouches for it.
            not_after: (now + life).min(self.end),
        };
        let serial = uuid::Uuid::new_v4().into_bytes();
        let der = leaf.sign(&self.certificate, &self.key, serial).map_err(|e| Error::Sign(e.to_string()))?;
        Ok(x509::to_pem(der))
    }
}

enum Usage {
    Key(u16),
    Extended(&'static [u64]),
}

fn meaning(usage: &str) -> Option<Usage> {
    let key = |bit: u16| Some(Usage::Key(0x8000 >> bit));
    let purpose: &'static [u64] = match usage {
        "signing" | "digital signature" => return key(0),
        "content commitment" => return key(1),
        "key encipherment" => return key(2),
        "data encipherment" => return key(3),
        "key agreement" => return key(4),
        "cert sign" => return key(5),
        "crl sign" => return key(6),
        "encipher only" => return key(7),
        "decipher only" => return key(8),
        "any" => &[2, 5, 29, 37, 0],
        "server auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 1],
        "client auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 2],
        "code signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 3],
        "email protection" | "s/mime" => &[1, 3, 6, 1, 5, 5, 7, 3, 4],
        "ipsec end system" => &[1, 3, 6, 1, 5, 5, 7, 3, 5],
        "ipsec tunnel" => &[1, 3, 6, 1, 5, 5, 7, 3, 6],
        "ipsec user" => &[1, 3, 6, 1, 5, 5, 7, 3, 7],
        "timestamping" => &[1, 3, 6, 1, 5, 5, 7, 3, 8],
        "ocsp signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 9],
        "microsoft sgc" => &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3],
        "netscape sgc" => &[2, 16, 840, 1, 113_730, 4, 1],
        _ => return None,
    };
    Some(Usage::Extended(purpose))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType};

    use super::super::signer;
    use super::*;

    fn request(name: &str, organization: &str, names: &[&str]) -> Request {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
                .expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        Request::from_pem(pem.as_bytes()).expect("reads")
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn signers_take_what_is_theirs() {
        let client = words(&["digital signature", "client auth"]);
        let serving = words(&["key encipherment", "digital signature", "server auth"]);
        let node = request("system:node:a", "system:nodes", &[]);
        let server = request("system:node:a", "system:nodes", &["a", "192.0.2.1"]);
        let person = request("jane", "dev", &[]);
        let takes = |signer: &str, request: &Request, usages: &[String]| {
            signer::check(signer, request, usages).expect("a signer of ours")
        };
        assert_eq!(takes(signer::KUBELET_CLIENT, &node, &client), Ok(()));
        assert_eq!(takes(signer::KUBELET_SERVING, &server, &serving), Ok(()));
        assert_eq!(takes(signer::API_CLIENT, &person, &client), Ok(()));
        let organization = "subject organization is not system:nodes".to_owned();
        assert_eq!(takes(signer::KUBELET_CLIENT, &person, &client), Err(organization));
        assert!(takes(signer::KUBELET_CLIENT, &server, &client).is_err(), "no names for clients");
        assert!(takes(signer::KUBELET_SERVING, &node, &serving).is_err(), "a server has names");
        assert!(takes(signer::API_CLIENT, &person, &serving).is_err());
        assert!(signer::check("example.com/own", &person, &client).is_none());
    }

    #[test]
    fn what_is_signed_says_what_was_asked() {
        let authority = {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("signed");
            Authority::new(&certificate.pem(), &key.serialize_pem()).expect("an authority")
        };
        let request = request("system:node:a", "system:nodes", &["a", "192.0.2.1"]);
        let usages = words(&["digital signature", "server auth"]);
        let signed = authority.sign(&request, &usages, life(Some(3600))).expect("signed");
        let block = pem::parse(&signed).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(block.contents()).expect("a certificate");
        assert_eq!(certificate.subject().as_raw(), &request.subject);
        let names = certificate.subject_alternative_name().expect("readable").expect("there");
        assert_eq!(names.value.general_names.len(), 2);
        let usage = certificate.key_usage().expect("readable").expect("there");
        assert!(usage.value.digital_signature() && !usage.value.key_encipherment());
        let extended = certificate.extended_key_usage().expect("readable").expect("there");
        assert!(extended.value.server_auth && !extended.value.client_auth);
        let (_, own) = X509Certificate::from_der(&authority.certificate).expect("a certificate");
        certificate.verify_signature(Some(own.public_key())).expect("signed by the authority");
        let lasts =
            certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert!((3600..=3600 + 301).contains(&lasts), "{lasts}");
        assert!(authority.sign(&request, &words(&["magic"]), life(None)).is_err());
    }

    #[test]
    fn a_life_has_bounds() {
        assert_eq!(life(None), LONGEST);
        assert_eq!(life(Some(1)), SHORTEST);
        assert_eq!(life(Some(3600)).as_secs(), 3600);
        assert_eq!(life(Some(i64::MAX)), LONGEST);
    }
}
