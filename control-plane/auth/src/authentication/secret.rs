//! Comparing secrets without telling by the time it takes how much of one was right.

use sha2::{Digest, Sha256};

/// What is kept and compared in place of a secret.
pub(crate) fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Compares without stopping at the first difference.
pub(crate) fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter().zip(right).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

/// Are the secrets equal.
pub(crate) fn equal(left: &str, right: &str) -> bool {
    same(&digest(left), &digest(right))
}
