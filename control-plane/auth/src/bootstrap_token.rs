//! Bootstrap tokens: `ID.SECRET`, six and sixteen letters and digits, kept in a Secret of kube-system.
//! They let a machine join, and prove to it which cluster it joins: what is published about the cluster
//! is signed with the secret half.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rand::Rng;
use serde_json::{Value, json};
use skep_api::object::ObjectExt;

/// The type of the Secrets.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// What their names begin with.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
/// The group of everybody who has one.
pub const GROUP: &str = "system:bootstrappers";
/// What the keys of signatures in the ConfigMap `cluster-info` begin with.
pub const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public half.
    pub id: String,
    /// Its secret half.
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

fn is_half(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| LETTERS.contains(&byte))
}

impl Token {
    /// Reads `ID.SECRET`; `None` when it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        (is_half(id, ID) && is_half(secret, SECRET)).then(|| Self { id: id.into(), secret: secret.into() })
    }

    /// A new one.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut half = |length: usize| -> String {
            (0..length).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect()
        };
        Self { id: half(ID), secret: half(SECRET) }
    }

    /// `ID.SECRET`. A secret.
    pub fn text(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The Secret to store. `expiration` is RFC 3339, or empty for never.
    pub fn to_secret(&self, description: &str, expiration: &str, groups: &[String]) -> Value {
        let encode = |text: &str| Value::from(STANDARD.encode(text));
        let mut data = json!({
            "token-id": encode(&self.id),
            "token-secret": encode(&self.secret),
            "usage-bootstrap-authentication": encode("true"),
            "usage-bootstrap-signing": encode("true"),
        });
        let wished = [
            ("description", description),
            ("expiration", expiration),
            ("auth-extra-groups", &groups.join(",")),
        ];
        for (key, text) in wished {
            if !text.is_empty() {
                data[key] = encode(text);
            }
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {"name": format!("{SECRET_PREFIX}{}", self.id), "namespace": "kube-system"},
            "data": data,
        })
    }

    /// Signs a text, which the signature leaves out.
    pub fn sign(&self, text: &str) -> Result<String, jsonwebtoken::errors::Error> {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": self.id}).to_string());
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
        let key = EncodingKey::from_secret(self.secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)?;
        Ok(format!("{header}..{signature}"))
    }

    /// Was the text signed with this token.
    pub fn verify(&self, text: &str, signature: &str) -> bool {
        let Some((header, signature)) = signature.trim().split_once("..") else { return false };
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
        let key = DecodingKey::from_secret(self.secret.as_bytes());
        // The algorithm is ours to choose, not the header's.
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false)
    }
}

/// What a stored token says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The token.
    pub token: Token,
    /// When it ends; what can't be read has ended.
    pub expiration: Option<jiff::Timestamp>,
    /// It lets its holder in.
    pub authentication: bool,
    /// It signs what is published about the cluster.
    pub signing: bool,
    /// The groups of its holder.
    pub groups: Vec<String>,
    /// What people say about it.
    pub description: String,
}

impl Stored {
    /// Reads a Secret; `None` when it holds no token, or not the one of its name.
    pub fn read(secret: &Value) -> Option<Self> {
        if secret.text(&["type"]) != SECRET_TYPE || secret.deletion_timestamp().is_some() {
            return None;
        }
        let data = |key: &str| -> Option<String> {
            let bytes = STANDARD.decode(secret.at(&["data", key])?.as_str()?).ok()?;
            String::from_utf8(bytes).ok()
        };
        let token = Token::parse(&format!("{}.{}", data("token-id")?, data("token-secret")?))?;
        if secret.name() != format!("{SECRET_PREFIX}{}", token.id) {
            return None;
        }
        let expiration = data("expiration").filter(|text| !text.is_empty());
        let expiration = expiration.map(|text| text.parse().unwrap_or(jiff::Timestamp::MIN));
        let extra = data("auth-extra-groups").unwrap_or_default();
        let mut groups = vec![GROUP.to_owned()];
        groups.extend(extra.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned));
        let is = |key: &str| data(key).as_deref() == Some("true");
        Some(Self {
            token,
            expiration,
            authentication: is("usage-bootstrap-authentication"),
            signing: is("usage-bootstrap-signing"),
            groups,
            description: data("description").unwrap_or_default(),
        })
    }

    /// Has it ended.
    pub fn expired(&self, now: jiff::Timestamp) -> bool {
        self.expiration.is_some_and(|end| end <= now)
    }
}

/// A group that a token may give: `system:bootstrappers:…`.
pub fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|byte| letter(byte) || matches!(byte, b':' | b'-'))
        && rest.bytes().last().is_some_and(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_form() {
        assert!(Token::parse("abcdef.0123456789abcdef").is_some());
        for wrong in ["abcdef", "abcde.0123456789abcdef", "abcdef.0123456789abcde", "Abcdef.0123456789abcdef"]
        {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
        let token = Token::generate();
        assert_eq!(Token::parse(&token.text()), Some(token));
    }

    #[test]
    fn a_secret_holds_what_was_put_in() {
        let token = Token::generate();
        let secret =
            token.to_secret("for a test", "2030-01-01T00:00:00Z", &["system:bootstrappers:a".into()]);
        let stored = Stored::read(&secret).expect("a token");
        assert_eq!(stored.token, token);
        assert!(stored.authentication && stored.signing);
        assert_eq!(stored.groups, ["system:bootstrappers", "system:bootstrappers:a"]);
        assert!(!stored.expired("2029-01-01T00:00:00Z".parse().expect("a time")));
        assert!(stored.expired("2031-01-01T00:00:00Z".parse().expect("a time")));
        let mut renamed = secret.clone();
        renamed["metadata"]["name"] = "bootstrap-token-zzzzzz".into();
        assert_eq!(Stored::read(&renamed), None);
    }

    #[test]
    fn signatures_bind_text_and_token() {
        let (token, other) = (Token::generate(), Token::generate());
        let signature = token.sign("text").expect("signed");
        assert!(token.verify("text", &signature));
        assert!(!token.verify("texts", &signature));
        assert!(!other.verify("text", &signature));
        assert!(!token.verify("text", "nonsense"));
    }

    #[test]
    fn groups_must_be_those_of_bootstrappers() {
        assert!(is_bootstrap_group("system:bootstrappers:kubeadm:default-node-token"));
        for wrong in [
            "system:masters",
            "system:bootstrappers",
            "system:bootstrappers:",
            "system:bootstrappers:A",
            "system:bootstrappers:a-",
        ] {
            assert!(!is_bootstrap_group(wrong), "{wrong}");
        }
    }
}
