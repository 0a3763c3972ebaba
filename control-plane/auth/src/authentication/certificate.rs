//! Client certificates: the common name is the user, organizations are its groups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use skep_api::user::UserInfo;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Credentials, Error};
use crate::pki::{self, ClientAuth, client_verifier};

/// No more certificates than this are remembered.
const REMEMBERED: usize = 4096;

/// The certificates of some authorities, with a memory: one connection brings the same certificate with
/// each of its requests.
#[derive(Debug)]
pub struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    // Held for map operations only. A certificate that was good stays so until its end.
    good: Mutex<HashMap<[u8; 32], i64>>,
}

impl Authorities {
    /// The certificates that these authorities (PEM) signed.
    pub fn new(ca_pem: &str) -> Result<Self, pki::Error> {
        let verifier = client_verifier(ca_pem, ClientAuth::Required)?;
        Ok(Self { verifier, good: Mutex::default() })
    }

    /// Is the chain, leaf first, signed by an authority, for clients, and in its time.
    pub fn vouch(&self, chain: &[CertificateDer<'static>]) -> Result<(), Error> {
        let Some((leaf, others)) = chain.split_first() else {
            return Err(Error::Invalid("there is no certificate".into()));
        };
        let now = UnixTime::now();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let id: [u8; 32] = Sha256::digest(leaf).into();
        {
            let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            if good.get(&id).is_some_and(|until| seconds <= *until) {
                return Ok(());
            }
        }
        self.verifier
            .verify_client_cert(leaf, others, now)
            .map_err(|e| Error::Invalid(format!("the client certificate: {e}")))?;
        let until = read(leaf)?.validity().not_after.timestamp();
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.retain(|_, until| seconds <= *until);
        }
        if good.len() < REMEMBERED {
            good.insert(id, until);
        }
        Ok(())
    }
}

pub(super) fn read(leaf: &[u8]) -> Result<X509Certificate<'_>, Error> {
    let (_, certificate) = X509Certificate::from_der(leaf)
        .map_err(|e| Error::Invalid(format!("the client certificate can't be read: {e}")))?;
    Ok(certificate)
}

pub(super) fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> &'a str {
    let name = certificate.subject().iter_common_name().next();
    name.and_then(|part| part.as_str().ok()).unwrap_or_default()
}

/// Reads the identity out of a client certificate that the cluster's authority signed. It is judged
/// here and not by the TLS layer: connections outlive handshakes, and there are several authorities.
#[derive(Debug)]
pub struct ClientCertificate(Authorities);

impl ClientCertificate {
    /// Trusts these authorities (PEM).
    pub fn new(ca_pem: &str) -> Result<Self, pki::Error> {
        Ok(Self(Authorities::new(ca_pem)?))
    }
}

#[async_trait]
impl Authenticator for ClientCertificate {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error> {
        let Some(leaf) = credentials.certificates.first() else { return Ok(None) };
        self.0.vouch(credentials.certificates)?;
        let certificate = read(leaf)?;
        let name = common_name(&certificate);
        if name.is_empty() {
            return Ok(None);
        }
        let organizations = certificate.subject().iter_organization().filter_map(|part| part.as_str().ok());
        let mut user = UserInfo::new(name, organizations);
        // Which certificate it was: audit and bound tokens tell it on.
        let id = format!("X509SHA256={}", hex(&Sha256::digest(leaf)));
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![id]);
        Ok(Some(user))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
