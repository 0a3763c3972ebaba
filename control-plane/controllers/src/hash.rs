//! Short hashes for names and labels of what a template makes.

use sha2::{Digest, Sha256};

/// No vowels and no digits that look like them: no words by accident.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten characters that are safe in names and labels, from these bytes and the count of collisions so far.
pub(crate) fn safe(bytes: &[u8], collisions: Option<i32>) -> String {
    let mut digest = Sha256::new();
    digest.update(bytes);
    if let Some(count) = collisions {
        digest.update(count.to_le_bytes());
    }
    digest
        .finalize()
        .iter()
        .take(10)
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}
