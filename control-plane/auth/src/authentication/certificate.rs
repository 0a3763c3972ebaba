//! Client certificates: the common name is the user, organizations are its groups.

use async_trait::async_trait;
use skep_api::user::UserInfo;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Credentials, Error};

/// Reads the identity out of a client certificate. That the chain is signed by the cluster's authority
/// has been checked by the TLS layer, which hands no other chain over; that it is still in its time is
/// checked again here, since connections outlive handshakes.
pub struct ClientCertificate;

#[async_trait]
impl Authenticator for ClientCertificate {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error> {
        let Some(leaf) = credentials.certificates.first() else { return Ok(None) };
        let (_, certificate) = X509Certificate::from_der(leaf)
            .map_err(|e| Error::Invalid(format!("the client certificate can't be read: {e}")))?;
        if !certificate.validity().is_valid() {
            return Err(Error::Invalid("the client certificate is out of its time".into()));
        }
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().and_then(|part| part.as_str().ok()).unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let organizations = subject.iter_organization().filter_map(|part| part.as_str().ok());
        Ok(Some(UserInfo::new(name, organizations)))
    }
}
