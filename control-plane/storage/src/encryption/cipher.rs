//! The ciphers, and the prefixes by which values name theirs.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use crypto_secretbox::XSalsa20Poly1305;
use rand::RngCore;

/// What every encrypted value begins with.
const SEALED: &[u8] = b"k8s:enc:";

/// Is the value encrypted, whatever with.
pub(super) fn is_sealed(value: &[u8]) -> bool {
    value.starts_with(SEALED)
}

/// One way of encrypting, key included.
pub(super) enum Cipher {
    Gcm128(Box<Aes128Gcm>),
    Gcm192(Box<AesGcm<aes::Aes192, U12>>),
    Gcm256(Box<Aes256Gcm>),
    /// The key; a new state is made for each value.
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// A cipher with the prefix of its values.
pub(super) struct Key {
    prefix: String,
    cipher: Cipher,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn sizes(provider: &str, allowed: &str) -> String {
    format!("a key of {provider} has {allowed} bytes")
}

impl Key {
    pub(super) fn new(provider: &str, name: &str, secret: &[u8]) -> Result<Self, String> {
        let size = |_| sizes(provider, "16, 24 or 32");
        let cipher = match provider {
            "aesgcm" => match secret.len() {
                16 => Cipher::Gcm128(Box::new(Aes128Gcm::new_from_slice(secret).map_err(size)?)),
                24 => Cipher::Gcm192(Box::new(AesGcm::new_from_slice(secret).map_err(size)?)),
                _ => Cipher::Gcm256(Box::new(Aes256Gcm::new_from_slice(secret).map_err(size)?)),
            },
            "aescbc" if matches!(secret.len(), 16 | 24 | 32) => Cipher::Cbc(secret.to_vec()),
            "aescbc" => return Err(sizes(provider, "16, 24 or 32")),
            "secretbox" => {
                let cipher = XSalsa20Poly1305::new_from_slice(secret).map_err(|_| sizes(provider, "32"))?;
                Cipher::Secretbox(Box::new(cipher))
            }
            other => return Err(format!("{other:?} is no provider")),
        };
        Ok(Self { prefix: format!("k8s:enc:{provider}:v1:{name}:"), cipher })
    }

    /// What follows this key's prefix; `None` when another key wrote the value.
    pub(super) fn strip<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        value.strip_prefix(self.prefix.as_bytes())
    }

    /// The prefix, for messages.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `context` is where the value is kept: moved elsewhere it does not open.
    pub(super) fn seal(&self, plain: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let mut out = self.prefix.clone().into_bytes();
        let payload = Payload { msg: plain, aad: context };
        match &self.cipher {
            Cipher::Gcm128(cipher) => gcm(&mut out, |nonce| cipher.encrypt(nonce.into(), payload))?,
            Cipher::Gcm192(cipher) => gcm(&mut out, |nonce| cipher.encrypt(nonce.into(), payload))?,
            Cipher::Gcm256(cipher) => gcm(&mut out, |nonce| cipher.encrypt(nonce.into(), payload))?,
            Cipher::Cbc(key) => {
                let iv: [u8; 16] = random();
                out.extend_from_slice(&iv);
                out.extend(encrypt_cbc(key, &iv, plain)?);
            }
            Cipher::Secretbox(cipher) => {
                let nonce: [u8; 24] = random();
                out.extend_from_slice(&nonce);
                out.extend(cipher.encrypt((&nonce).into(), plain).ok()?);
            }
        }
        Some(out)
    }

    /// `sealed` is what follows the prefix.
    pub(super) fn open(&self, sealed: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        match &self.cipher {
            Cipher::Cbc(key) => {
                let (iv, sealed) = sealed.split_first_chunk::<16>()?;
                decrypt_cbc(key, iv, sealed)
            }
            Cipher::Secretbox(cipher) => {
                let (nonce, sealed) = sealed.split_first_chunk::<24>()?;
                cipher.decrypt(nonce.into(), sealed).ok()
            }
            Cipher::Gcm128(cipher) => {
                let (nonce, msg) = sealed.split_first_chunk::<12>()?;
                cipher.decrypt(nonce.into(), Payload { msg, aad: context }).ok()
            }
            Cipher::Gcm192(cipher) => {
                let (nonce, msg) = sealed.split_first_chunk::<12>()?;
                cipher.decrypt(nonce.into(), Payload { msg, aad: context }).ok()
            }
            Cipher::Gcm256(cipher) => {
                let (nonce, msg) = sealed.split_first_chunk::<12>()?;
                cipher.decrypt(nonce.into(), Payload { msg, aad: context }).ok()
            }
        }
    }
}

fn gcm<E>(out: &mut Vec<u8>, seal: impl FnOnce(&[u8; 12]) -> Result<Vec<u8>, E>) -> Option<()> {
    let nonce: [u8; 12] = random();
    out.extend_from_slice(&nonce);
    out.extend(seal(&nonce).ok()?);
    Some(())
}

fn encrypt_cbc(key: &[u8], iv: &[u8; 16], plain: &[u8]) -> Option<Vec<u8>> {
    Some(match key.len() {
        16 => cbc::Encryptor::<aes::Aes128>::new_from_slices(key, iv)
            .ok()?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
        24 => cbc::Encryptor::<aes::Aes192>::new_from_slices(key, iv)
            .ok()?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
        _ => cbc::Encryptor::<aes::Aes256>::new_from_slices(key, iv)
            .ok()?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
    })
}

fn decrypt_cbc(key: &[u8], iv: &[u8; 16], sealed: &[u8]) -> Option<Vec<u8>> {
    let opened = match key.len() {
        16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(key, iv)
            .ok()?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        24 => cbc::Decryptor::<aes::Aes192>::new_from_slices(key, iv)
            .ok()?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(key, iv)
            .ok()?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
    };
    opened.ok()
}
