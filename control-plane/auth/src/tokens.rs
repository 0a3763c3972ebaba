//! Service-account tokens: issuing them (TokenRequest), verifying them, TokenReview, and the documents
//! by which others verify them (OIDC discovery, JWKS).
//!
//! A token is a JWT signed with ES256 (or RS256, with an RSA key), bound to a service account and often to a pod or secret. It is
//! good while its time lasts *and* what it is bound to is still there with the same uid.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::authentication::Error;

pub use claims::{Bound, Claims, Reference};
pub use legacy::SecretTokenVerifier;
pub use request::{TokenSubject, token_request, token_review};
pub use verify::{BoundObject, Lookup, Seen, ServiceAccountVerifier};

mod claims;
mod keys;
mod legacy;
mod request;
mod verify;

pub(crate) use verify::claimed_issuer;

/// Why the signing key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It can't be read.
    #[error("the service-account key can't be read")]
    Read(#[from] rcgen::Error),
    /// It can't sign.
    #[error("the service-account key can't be used")]
    Use(#[from] jsonwebtoken::errors::Error),
    /// It is not a key of a kind we know.
    #[error("the service-account key is not usable: {0}")]
    Form(String),
}

/// What a new token is to say.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub account: Reference,
    /// Who may accept it; empty: the API server.
    pub audiences: Vec<String>,
    /// How long it lasts.
    pub life: Duration,
    /// What it lives with.
    pub bound: Option<Bound>,
    /// The node of the pod it is bound to.
    pub node: Option<Reference>,
}

/// A new token.
pub struct Issued {
    /// The token. A secret.
    pub token: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

/// Clocks of the cluster's own servers may differ by this.
const LEEWAY: u64 = 10;

/// What a [`Signer`] is made of.
#[derive(Clone, Default)]
pub struct SignerOptions {
    /// The key that signs (PEM, PKCS#8).
    pub key_pem: String,
    /// Who issues, as URLs: the first one signs, tokens of all are believed.
    pub issuers: Vec<String>,
    /// The API server's own audiences; none: the first issuer.
    pub audiences: Vec<String>,
    /// Further keys that tokens are verified with (PEM, public or private).
    pub verifying_pems: Vec<String>,
    /// The longest life of a token.
    pub max_expiration: Option<Duration>,
    /// Where the keys are told; by default below the first issuer.
    pub jwks_uri: Option<String>,
}

/// The key that signs, and the public halves that verify.
pub struct Signer {
    issuers: Vec<String>,
    audiences: Vec<String>,
    encoding: EncodingKey,
    /// The signing key's first.
    keys: Vec<keys::VerifyingKey>,
    max_expiration: Option<Duration>,
    jwks_uri: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with a key as `issuer` (a URL); `audiences` are the API server's own.
    pub fn new(
        key_pem: &str,
        issuer: impl Into<String>,
        audiences: Vec<String>,
    ) -> Result<Arc<Self>, KeyError> {
        Self::with(SignerOptions {
            key_pem: key_pem.to_owned(),
            issuers: vec![issuer.into()],
            audiences,
            ..SignerOptions::default()
        })
    }

    /// Signs as the options say.
    pub fn with(options: SignerOptions) -> Result<Arc<Self>, KeyError> {
        let pair = rcgen::KeyPair::from_pem(&options.key_pem)?;
        let public = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let mut keys = vec![keys::VerifyingKey::from_info(&public)?];
        for pem in &options.verifying_pems {
            for key in keys::VerifyingKey::all_of(pem)? {
                if keys.iter().all(|known| known.id != key.id) {
                    keys.push(key);
                }
            }
        }
        let pem = options.key_pem.as_bytes();
        let encoding = match keys.first().map(|key| key.algorithm) {
            Some(Algorithm::RS256) => EncodingKey::from_rsa_pem(pem)?,
            _ => EncodingKey::from_ec_pem(pem)?,
        };
        let Some(issuer) = options.issuers.first().cloned() else {
            return Err(KeyError::Form("there is no issuer".to_owned()));
        };
        let audiences = if options.audiences.is_empty() { vec![issuer.clone()] } else { options.audiences };
        let jwks_uri =
            options.jwks_uri.unwrap_or_else(|| format!("{}/openid/v1/jwks", issuer.trim_end_matches('/')));
        Ok(Arc::new(Self {
            issuers: options.issuers,
            audiences,
            encoding,
            keys,
            max_expiration: options.max_expiration,
            jwks_uri,
        }))
    }

    fn header(&self) -> Header {
        let signing = self.keys.first();
        let mut header = Header::new(signing.map_or(Algorithm::ES256, |key| key.algorithm));
        header.kid = signing.map(|key| key.id.clone());
        header.typ = None;
        header
    }

    /// The claims of a token that one of our keys signed.
    fn check<T: DeserializeOwned>(&self, token: &str, adjust: impl Fn(&mut Validation)) -> Result<T, Error> {
        let invalid =
            |error: &dyn std::fmt::Display| Error::Invalid(format!("service-account token: {error}"));
        let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(&error))?;
        let named = |key: &&keys::VerifyingKey| header.kid.as_ref().is_none_or(|id| *id == key.id);
        let mut failure = invalid(&"it is signed with an unknown key");
        for key in self.keys.iter().filter(named) {
            let mut validation = Validation::new(key.algorithm);
            validation.validate_nbf = true;
            validation.leeway = LEEWAY;
            // Which audience fits is for the caller to find out, not only whether one does.
            validation.validate_aud = false;
            adjust(&mut validation);
            match jsonwebtoken::decode::<T>(token, &key.decoding, &validation) {
                Ok(found) => return Ok(found.claims),
                Err(error) => failure = invalid(&error),
            }
        }
        Err(failure)
    }

    /// The API server's audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Those whose tokens are believed; the first signs.
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// Makes a token.
    pub fn issue(&self, spec: &TokenSpec) -> Result<Issued, KeyError> {
        let now = now();
        let audiences =
            if spec.audiences.is_empty() { self.audiences.clone() } else { spec.audiences.clone() };
        let claims = Claims::new(self.issuer(), audiences, now, spec);
        let token = jsonwebtoken::encode(&self.header(), &claims, &self.encoding)?;
        Ok(Issued { token, expires: claims.exp })
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery_document(&self) -> Value {
        let mut algorithms: Vec<&Value> = self.keys.iter().map(|key| &key.shown["alg"]).collect();
        algorithms.dedup();
        json!({
            "issuer": self.issuer(),
            "jwks_uri": self.jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|key| &key.shown).collect::<Vec<_>>() })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
