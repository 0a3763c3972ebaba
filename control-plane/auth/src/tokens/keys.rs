//! The keys tokens are verified with: public halves, by the ids that tokens name them by.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::KeyError;

/// A public key.
pub(super) struct VerifyingKey {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// As `/openid/v1/jwks` shows it.
    pub(super) shown: Value,
}

fn unusable(why: &str) -> KeyError {
    KeyError::Form(why.to_owned())
}

impl VerifyingKey {
    /// Reads PEM: a public key, a certificate, or a private key, of which the public half is taken.
    pub(super) fn all_of(pem: &str) -> Result<Vec<Self>, KeyError> {
        let blocks = pem::parse_many(pem).map_err(|error| unusable(&error.to_string()))?;
        let keys: Vec<Self> = blocks
            .iter()
            .map(|block| match block.tag() {
                "PUBLIC KEY" => Self::from_info(block.contents()),
                "CERTIFICATE" => {
                    let (_, certificate) = x509_parser::parse_x509_certificate(block.contents())
                        .map_err(|error| unusable(&error.to_string()))?;
                    Self::from_info(certificate.public_key().raw)
                }
                _ => {
                    let pair = rcgen::KeyPair::from_pem(&pem::encode(block))?;
                    Self::from_info(&rcgen::PublicKeyData::subject_public_key_info(&pair))
                }
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(unusable("there is no key in it")) } else { Ok(keys) }
    }

    /// Reads a DER `SubjectPublicKeyInfo`.
    pub(super) fn from_info(der: &[u8]) -> Result<Self, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|error| unusable(&error.to_string()))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let plain =
            |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().skip_while(|byte| *byte == 0).collect() };
        match info.parsed().map_err(|error| unusable(&error.to_string()))? {
            PublicKey::RSA(key) => {
                let (n, e) = (plain(key.modulus), plain(key.exponent));
                if n.len() < 256 {
                    return Err(unusable("an RSA key needs 2048 bits"));
                }
                let shown = json!({
                    "use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": encode(&n), "e": encode(&e),
                });
                let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
                Ok(Self { id, algorithm: Algorithm::RS256, decoding, shown })
            }
            PublicKey::EC(point) => {
                // An uncompressed point: 4, x, y.
                let point = point.data();
                let (curve, name, algorithm) = match point.len() {
                    65 => ("P-256", "ES256", Algorithm::ES256),
                    97 => ("P-384", "ES384", Algorithm::ES384),
                    _ => return Err(unusable("the curve of a key is neither P-256 nor P-384")),
                };
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                let (x, y) = (encode(x), encode(y));
                let decoding = DecodingKey::from_ec_components(&x, &y)?;
                let shown = json!({
                    "use": "sig", "kty": "EC", "kid": id, "crv": curve, "alg": name, "x": x, "y": y,
                });
                Ok(Self { id, algorithm, decoding, shown })
            }
            _ => Err(unusable("a key is neither RSA nor of an elliptic curve")),
        }
    }
}
