//! Service-account tokens: issuing them (TokenRequest), verifying them, TokenReview, and the documents
//! by which others verify them (OIDC discovery, JWKS).
//!
//! A token is a JWT signed with ES256, bound to a service account and often to a pod or secret. It is
//! good while its time lasts *and* what it is bound to is still there with the same uid.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use claims::{Bound, Claims, Reference};
pub use request::{TokenSubject, token_request, token_review};
pub use verify::{BoundObject, Lookup, Seen, ServiceAccountVerifier};

mod claims;
mod request;
mod verify;

/// Why the signing key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It can't be read.
    #[error("the service-account key can't be read")]
    Read(#[from] rcgen::Error),
    /// It can't sign.
    #[error("the service-account key can't be used")]
    Use(#[from] jsonwebtoken::errors::Error),
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

/// The key that signs, and the public half that verifies.
pub struct Signer {
    issuer: String,
    audiences: Vec<String>,
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    point: Vec<u8>,
}

impl Signer {
    /// Signs with a P-256 key as `issuer` (a URL); `audiences` are the API server's own.
    pub fn new(
        key_pem: &str,
        issuer: impl Into<String>,
        audiences: Vec<String>,
    ) -> Result<Arc<Self>, KeyError> {
        let pair = rcgen::KeyPair::from_pem(key_pem)?;
        let public = rcgen::PublicKeyData::subject_public_key_info(&pair);
        Ok(Arc::new(Self {
            issuer: issuer.into(),
            audiences,
            encoding: EncodingKey::from_ec_pem(key_pem.as_bytes())?,
            decoding: DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())?,
            key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(&public)),
            point: pair.public_key_raw().to_vec(),
        }))
    }

    /// The API server's audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Makes a token.
    pub fn issue(&self, spec: &TokenSpec) -> Result<Issued, KeyError> {
        let now = now();
        let audiences =
            if spec.audiences.is_empty() { self.audiences.clone() } else { spec.audiences.clone() };
        let claims = Claims::new(&self.issuer, audiences, now, spec);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        header.typ = None;
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding)?;
        Ok(Issued { token, expires: claims.exp })
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery_document(&self, jwks_uri: &str) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let half =
            |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(self.point.get(range).unwrap_or_default());
        json!({ "keys": [{
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": half(1..33),
            "y": half(33..65),
        }] })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
