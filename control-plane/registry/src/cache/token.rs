//! The `continue` token of a paged list: which revision the pages show and after which key to go on.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use skep_storage::Revision;

/// A decoded token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Continue {
    /// Token format.
    v: String,
    /// The revision of the first page; 0 lets the list go on inconsistently at the newest.
    pub(crate) rv: Revision,
    /// The last key that was sent.
    pub(crate) after: String,
}

const FORMAT: &str = "skep.io/v1";

impl Continue {
    /// A token.
    pub(crate) fn new(rv: Revision, after: impl Into<String>) -> Self {
        Self { v: FORMAT.to_owned(), rv, after: after.into() }
    }

    /// As text.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// From text; `None` when it is not one of ours.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let token: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (token.v == FORMAT).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip() {
        let token = Continue::new(7, "default/a");
        assert_eq!(Continue::decode(&token.encode()), Some(token));
    }

    #[test]
    fn foreign_tokens_are_refused() {
        assert_eq!(Continue::decode("abc"), None);
        assert_eq!(Continue::decode(&URL_SAFE_NO_PAD.encode(br#"{"v":"x","rv":1,"after":"a"}"#)), None);
    }
}
