//! How a value is encrypted under a KMS plug-in, as upstream stores it: an `EncryptedObject` with the
//! value's ciphertext, the encrypted source of its key, and the name of the key that encrypted that.
//!
//! The source is a seed: each value gets a key of its own, derived from the seed and 32 random bytes
//! (HKDF-SHA256, expand only), so that a seed may be used without end. Sources that are keys themselves are
//! read, never written.

use std::collections::BTreeMap;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use hkdf::Hkdf;
use prost::Message;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// A seed has at least so many bytes, and a derived key and what it is derived with exactly.
pub(super) const SEED: usize = 32;
const NONCE: usize = 12;
/// The encrypted source of a key is no longer, nor is the name of a key, in bytes.
const SOURCE: usize = 1024;
/// All annotations together are no longer, in bytes.
const ANNOTATIONS: usize = 32 * 1024;

/// The source is an AES-GCM key.
pub(super) const KEY: i32 = 0;
/// The source is a seed.
pub(super) const DERIVED: i32 = 1;

/// What is stored.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) data: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    pub(super) source_type: i32,
}

impl EncryptedObject {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let object = Self::decode(bytes).map_err(|error| format!("it can't be read: {error}"))?;
        object.check()?;
        Ok(object)
    }

    /// The limits of every part but the data.
    pub(super) fn check(&self) -> Result<(), String> {
        if !matches!(self.source_type, KEY | DERIVED) {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.source_type));
        }
        match self.source.len() {
            0 => return Err("encrypted DEK source is empty".to_owned()),
            size if size > SOURCE => {
                return Err(format!(
                    "encrypted DEK source is {size} bytes, which exceeds the max size of {SOURCE}"
                ));
            }
            _ => {}
        }
        check_key_id(&self.key_id)?;
        let size: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > ANNOTATIONS {
            return Err(format!(
                "total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS}"
            ));
        }
        match self.annotations.keys().find(|key| !is_domain(key)) {
            Some(key) => Err(format!("annotations: {key:?} is no fully qualified domain name")),
            None => Ok(()),
        }
    }

    /// What the decrypted source is remembered by.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(&self.source_type.to_be_bytes());
        part(&self.source);
        part(self.key_id.as_bytes());
        for (key, value) in &self.annotations {
            part(key.as_bytes());
            part(value);
        }
        hash.finalize().into()
    }
}

pub(super) fn check_key_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".to_owned()),
        size if size > SOURCE => {
            Err(format!("keyID is {size} bytes, which exceeds the max size of {SOURCE}"))
        }
        _ => Ok(()),
    }
}

/// Two labels of DNS at least.
fn is_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= 63
            && bytes.iter().all(|b| fits(*b) || *b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

/// A decrypted source: what values are encrypted with.
#[derive(Clone)]
pub(super) enum Source {
    Key(Box<Aes256Gcm>),
    Seed(Vec<u8>),
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

impl Source {
    /// A seed that nobody has.
    pub(super) fn fresh() -> [u8; SEED] {
        random()
    }

    pub(super) fn new(source_type: i32, secret: &[u8]) -> Result<Self, String> {
        match source_type {
            DERIVED if secret.len() >= SEED => Ok(Self::Seed(secret.to_vec())),
            DERIVED => Err(format!("invalid seed length {} used for key generation", secret.len())),
            _ => {
                let cipher = Aes256Gcm::new_from_slice(secret);
                let wrong = |_| format!("a key has 32 bytes, this one has {}", secret.len());
                cipher.map(|cipher| Self::Key(Box::new(cipher))).map_err(wrong)
            }
        }
    }

    /// `context` is where the value is kept: moved elsewhere it does not open.
    pub(super) fn seal(&self, plain: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        // A key as it is would wear out by random nonces; nothing is written with one.
        let Self::Seed(seed) = self else { return None };
        let info: [u8; SEED] = random();
        let nonce: [u8; NONCE] = random();
        let sealed =
            derive(seed, &info)?.encrypt((&nonce).into(), Payload { msg: plain, aad: context }).ok()?;
        let mut out = Vec::with_capacity(SEED + NONCE + sealed.len());
        out.extend_from_slice(&info);
        out.extend_from_slice(&nonce);
        out.extend(sealed);
        Some(out)
    }

    pub(super) fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let open = |cipher: &Aes256Gcm, sealed: &[u8]| {
            let (nonce, msg) = sealed.split_first_chunk::<NONCE>()?;
            cipher.decrypt(nonce.into(), Payload { msg, aad: context }).ok()
        };
        match self {
            Self::Key(cipher) => open(cipher, sealed),
            Self::Seed(seed) => {
                let (info, rest) = sealed.split_first_chunk::<SEED>()?;
                open(&derive(seed, info)?, rest)
            }
        }
    }
}

fn derive(seed: &[u8], info: &[u8; SEED]) -> Option<Aes256Gcm> {
    let mut key = [0; SEED];
    Hkdf::<Sha256>::from_prk(seed).ok()?.expand(info, &mut key).ok()?;
    Aes256Gcm::new_from_slice(&key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_with_its_seed_at_its_place_only() {
        let seed = Source::new(DERIVED, &[1; 32]).expect("a seed");
        let one = seed.seal(b"plain", b"/a").expect("sealed");
        let two = seed.seal(b"plain", b"/a").expect("sealed");
        assert_ne!(one, two);
        assert_ne!(one[..SEED], two[..SEED], "each value has its own key");
        assert_eq!(seed.open(&one, b"/a").expect("opens"), b"plain");
        assert_eq!(seed.open(&one, b"/b"), None);
        assert_eq!(seed.open(&one[..50], b"/a"), None);
        assert_eq!(Source::new(DERIVED, &[2; 32]).expect("a seed").open(&one, b"/a"), None);
        assert!(Source::new(DERIVED, &[1; 31]).is_err());
        assert!(Source::new(KEY, &[1; 31]).is_err());
        let key = Source::new(KEY, &[3; 32]).expect("a key");
        assert_eq!(key.seal(b"plain", b"/a"), None, "keys as they are only read");
        let nonce = [7; NONCE];
        let payload = Payload { msg: b"plain".as_slice(), aad: b"/a" };
        let sealed = Aes256Gcm::new_from_slice(&[3; 32]).expect("a cipher").encrypt((&nonce).into(), payload);
        let stored = [nonce.as_slice(), &sealed.expect("sealed")].concat();
        assert_eq!(key.open(&stored, b"/a").expect("opens"), b"plain");
    }

    /// The derivation is HKDF's expansion as RFC 5869 has it: its first test vector's pseudorandom key and
    /// output.
    #[test]
    fn the_derivation_is_the_expansion_of_rfc_5869() {
        let prk = [
            0x07, 0x77, 0x09, 0x36, 0x2c, 0x2e, 0x32, 0xdf, 0x0d, 0xdc, 0x3f, 0x0d, 0xc4, 0x7b, 0xba, 0x63,
            0x90, 0xb6, 0xc7, 0x3b, 0xb5, 0x0f, 0x9c, 0x31, 0x22, 0xec, 0x84, 0x4a, 0xd7, 0xc2, 0xb3, 0xe5,
        ];
        let info = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9];
        let mut out = [0; 8];
        Hkdf::<Sha256>::from_prk(&prk).expect("a key").expand(&info, &mut out).expect("expands");
        assert_eq!(out, [0x3c, 0xb2, 0x5f, 0x25, 0xfa, 0xac, 0xd5, 0x7a]);
    }

    #[test]
    fn parts_have_limits() {
        let good = EncryptedObject {
            data: vec![1],
            key_id: "k".into(),
            source: vec![1],
            annotations: BTreeMap::from([("a.example.com".to_owned(), vec![1])]),
            source_type: DERIVED,
        };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(EncryptedObject::read(&good.encode_to_vec()), Ok(good.clone()));
        let annotated = |key: &str, size: usize| BTreeMap::from([(key.to_owned(), vec![1; size])]);
        for (bad, why) in [
            (EncryptedObject { source_type: 2, ..good.clone() }, "unknown encryptedDEKSourceType: 2"),
            (EncryptedObject { source: vec![], ..good.clone() }, "source is empty"),
            (EncryptedObject { source: vec![1; 1025], ..good.clone() }, "exceeds the max size of 1024"),
            (EncryptedObject { key_id: String::new(), ..good.clone() }, "keyID is empty"),
            (EncryptedObject { key_id: "k".repeat(1025), ..good.clone() }, "keyID is 1025 bytes"),
            (EncryptedObject { annotations: annotated("plain", 1), ..good.clone() }, "\"plain\" is no fully"),
            (EncryptedObject { annotations: annotated("a.b", 33_000), ..good.clone() }, "total size"),
        ] {
            let error = EncryptedObject::read(&bad.encode_to_vec()).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        assert_ne!(good.fingerprint(), EncryptedObject { key_id: "l".into(), ..good.clone() }.fingerprint());
        assert_eq!(good.fingerprint(), EncryptedObject { data: vec![2], ..good.clone() }.fingerprint());
    }
}
