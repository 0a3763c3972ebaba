//! Certificate requests (PKCS#10): what one asks for, what the built-in signers take, and signing.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::authentication::hex;

pub use new_key::NewKey;
pub use sign::{Authority, life};

mod new_key;
mod sign;
pub mod signer;

/// No request comes near this.
const LONGEST: usize = 64 << 10;

/// Why a request can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not base64.
    #[error("the request is not base64")]
    Base64,
    /// It is not PEM of the right kind.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    /// It is not a certificate request.
    #[error("the certificate request can't be read: {0}")]
    Form(String),
    /// The one who made it does not have its key.
    #[error("the certificate request is not signed with its own key")]
    Signature,
    /// It could not be signed.
    #[error("the certificate could not be signed: {0}")]
    Sign(String),
    /// A usage that no certificate has.
    #[error("unrecognized usage {0:?}")]
    Usage(String),
}

/// When a certificate (PEM) ends; `None` when it can't be read.
pub fn not_after(pem: &[u8]) -> Option<jiff::Timestamp> {
    let block = pem::parse(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(block.contents()).ok()?;
    jiff::Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// When a certificate (PEM) begins; `None` when it can't be read.
pub fn not_before(pem: &[u8]) -> Option<jiff::Timestamp> {
    let block = pem::parse(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(block.contents()).ok()?;
    jiff::Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()
}

/// Does a certificate (PEM) vouch for itself; true when it can't be read.
pub fn is_self_signed(pem: &[u8]) -> bool {
    let Ok(block) = pem::parse(pem) else { return true };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(block.contents()) else { return true };
    certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// The SHA-256 of a certificate's (PEM) public key, in hexadecimal digits.
pub fn public_key_hash(pem: &[u8]) -> Option<String> {
    let block = pem::parse(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(block.contents()).ok()?;
    Some(hex(&Sha256::digest(certificate.public_key().raw)))
}

/// What a request asks for. Its signature has been checked.
#[derive(Clone, Debug)]
pub struct Request {
    subject: Vec<u8>,
    public_key: Vec<u8>,
    alt_names: Option<Vec<u8>>,
    common_name: String,
    organizations: Vec<String>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Emails, URIs and the like, counted by their kinds.
    emails: usize,
    uris: usize,
}

impl Request {
    /// Reads `spec.request`: base64 of PEM.
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        let bytes = STANDARD.decode(text).map_err(|_| Error::Base64)?;
        Self::from_pem(&bytes)
    }

    /// Reads PEM.
    pub fn from_pem(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > LONGEST {
            return Err(Error::Form("it is too long".into()));
        }
        let block = pem::parse(bytes).map_err(|_| Error::Pem)?;
        if !matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
            return Err(Error::Pem);
        }
        let form = |error: &dyn std::fmt::Display| Error::Form(error.to_string());
        let (rest, request) = X509CertificationRequest::from_der(block.contents()).map_err(|e| form(&e))?;
        if !rest.is_empty() {
            return Err(Error::Form("something follows it".into()));
        }
        request.verify_signature().map_err(|_| Error::Signature)?;
        let info = &request.certification_request_info;
        let texts = |parts: &mut dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>>| {
            parts.filter_map(|part| part.as_str().ok()).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut found = Self {
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            alt_names: None,
            common_name: texts(&mut info.subject.iter_common_name()).into_iter().next().unwrap_or_default(),
            organizations: texts(&mut info.subject.iter_organization()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: 0,
            uris: 0,
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &requested.extensions {
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    continue;
                };
                found.alt_names = Some(extension.value.to_vec());
                for name in &names.general_names {
                    found.add(name)?;
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), Error> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let ip = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.addresses.push(ip.map_err(|_| Error::Form("an address has a wrong length".into()))?);
            }
            GeneralName::RFC822Name(_) => self.emails += 1,
            GeneralName::URI(_) => self.uris += 1,
            // Names nobody here understands are not vouched for.
            _ => return Err(Error::Form("a subject name is of an unknown kind".into())),
        }
        Ok(())
    }

    /// The subject's common name.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// The subject's organizations.
    pub fn organizations(&self) -> &[String] {
        &self.organizations
    }

    /// The DNS names asked for.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The addresses asked for.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}
