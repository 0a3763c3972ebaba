//! Tokens kept in Secrets of type `kubernetes.io/service-account-token`: without an end, good for as
//! long as the Secret and the account are there.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::verify::{BoundObject, Lookup, claimed_issuer};
use super::{KeyError, Reference, Signer};
use crate::authentication::bearer::{TokenVerifier, Verified};
use crate::authentication::bootstrap::Secrets;
use crate::authentication::{Error, secret};

/// Who issues them.
const ISSUER: &str = "kubernetes/serviceaccount";
/// A Secret with this label is not believed any more.
const INVALID: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

impl Signer {
    /// Makes the token of a Secret.
    pub fn issue_for_secret(
        &self,
        namespace: &str,
        account: &Reference,
        secret: &str,
    ) -> Result<String, KeyError> {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            uid: account.uid.clone(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        };
        Ok(jsonwebtoken::encode(&self.header(), &claims, &self.encoding)?)
    }
}

/// Verifies them.
pub struct SecretTokenVerifier<L> {
    signer: Arc<Signer>,
    lookup: L,
}

impl<L: Lookup + Secrets> SecretTokenVerifier<L> {
    /// Verifies with the signer's keys, and looks Secrets and accounts up.
    pub fn new(signer: Arc<Signer>, lookup: L) -> Self {
        Self { signer, lookup }
    }
}

#[async_trait]
impl<L: Lookup + Secrets> TokenVerifier for SecretTokenVerifier<L> {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        if claimed_issuer(token).as_deref() != Some(ISSUER) {
            return Ok(None);
        }
        let claims: Claims = self.signer.check(token, |validation| {
            validation.set_issuer(&[ISSUER]);
            validation.required_spec_claims.clear();
            validation.validate_exp = false;
        })?;
        let wrong = |why: &str| {
            Error::Invalid(format!("the token of secret {}/{}: {why}", claims.namespace, claims.secret))
        };
        if claims.sub != format!("system:serviceaccount:{}:{}", claims.namespace, claims.account) {
            return Err(wrong("its subject and account differ"));
        }
        let found =
            self.lookup.secret(&claims.namespace, &claims.secret).await.map_err(Error::Unavailable)?;
        let found = found.filter(|secret| secret.deletion_timestamp().is_none());
        let found = found.ok_or_else(|| wrong("the secret is gone"))?;
        let kept = STANDARD.decode(found.text(&["data", "token"])).unwrap_or_default();
        if !secret::equal(&String::from_utf8_lossy(&kept), token) {
            return Err(wrong("the secret holds another token"));
        }
        if found.at(&["metadata", "labels", INVALID]).is_some() {
            return Err(wrong("it has been marked invalid"));
        }
        let seen = self.lookup.seen(BoundObject::ServiceAccount, &claims.namespace, &claims.account).await;
        let seen = seen.map_err(Error::Unavailable)?.ok_or_else(|| wrong("the account is gone"))?;
        if seen.uid != claims.uid || seen.deleted.is_some() {
            return Err(wrong("the account is another one now"));
        }
        let groups =
            ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", claims.namespace)];
        let user = UserInfo { uid: claims.uid, ..UserInfo::new(&claims.sub, groups) };
        Ok(Some(Verified { user, audiences: audiences.to_vec() }))
    }

    fn knows_audiences(&self) -> bool {
        false
    }
}
