//! The other side of a request: a new key, and asking for a certificate for it.

use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::Error;

/// A new key. It never leaves the machine it was made on.
pub struct NewKey {
    pair: KeyPair,
    pem: String,
}

fn sign(error: impl std::fmt::Display) -> Error {
    Error::Sign(error.to_string())
}

fn params(name: &str, organization: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !organization.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl NewKey {
    /// Makes one.
    pub fn generate() -> Result<Self, Error> {
        let pair = KeyPair::generate().map_err(sign)?;
        let pem = pair.serialize_pem();
        Ok(Self { pair, pem })
    }

    /// The key in PEM (PKCS#8). A secret.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A request (PEM) for a certificate of this subject and these names.
    pub fn request(
        &self,
        name: &str,
        organization: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<String, Error> {
        let mut params = params(name, organization);
        for name in names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(sign)?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.serialize_request(&self.pair).map_err(sign)?.pem().map_err(sign)
    }

    /// A certificate (PEM) that nobody but its holder vouches for.
    pub fn self_signed(&self, name: &str) -> Result<String, Error> {
        Ok(params(name, "").self_signed(&self.pair).map_err(sign)?.pem())
    }
}
