//! Bearers of OpenID Connect id tokens: issued and signed by somebody else, whose keys are fetched,
//! kept, and fetched again when a token names one that is new.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;
use skep_api::user::UserInfo;
use skep_webhook::{Client, Trust};

use super::Error;
use super::bearer::{TokenVerifier, Verified};
use crate::tokens::claimed_issuer;

use keys::Keys;

mod keys;

/// Clocks of issuers may differ by this.
const LEEWAY: u64 = 10;

/// A claim, and what is put before its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The prefix.
    pub prefix: String,
}

/// An issuer and how its claims are read.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// `iss`, exactly.
    pub url: String,
    /// Where its configuration is, if not below its URL.
    pub discovery_url: Option<String>,
    /// Whom its server is believed by.
    pub trust: Trust,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    /// The user's name.
    pub username: Claim,
    /// The user's groups.
    pub groups: Option<Claim>,
    /// The user's uid.
    pub uid: Option<String>,
    /// Claims that must have these values.
    pub required: BTreeMap<String, String>,
    /// Signatures that are accepted.
    pub algorithms: Vec<Algorithm>,
}

/// All signatures by public keys that are ever accepted.
pub const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Verifies the tokens of one issuer.
pub struct Oidc {
    issuer: Issuer,
    keys: Keys,
}

impl Oidc {
    /// Verifies tokens of this issuer; its keys are fetched through `client` when they are needed.
    pub fn new(issuer: Issuer, client: Client) -> Self {
        let keys = Keys::new(&issuer, client);
        Self { issuer, keys }
    }

    /// The user of verified claims.
    fn user(&self, claims: &Value) -> Result<UserInfo, Error> {
        let invalid = |why: String| Error::Invalid(format!("OIDC: {why}"));
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        for (name, wanted) in &self.issuer.required {
            match text(name) {
                Some(found) if found == wanted => {}
                Some(_) => return Err(invalid(format!("required claim {name} has another value"))),
                None => return Err(invalid(format!("required claim {name} not present in ID token"))),
            }
        }
        let Claim { name, prefix } = &self.issuer.username;
        let username = text(name).ok_or_else(|| invalid(format!("there is no claim {name}")))?;
        if name == "email" {
            match claims.get("email_verified") {
                None | Some(Value::Bool(true)) => {}
                Some(_) => return Err(invalid("email not verified".into())),
            }
        }
        if username.is_empty() {
            return Err(invalid(format!("the claim {name} is empty")));
        }
        let mut groups = Vec::new();
        if let Some(Claim { name, prefix }) = &self.issuer.groups {
            match claims.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(group)) => groups.push(format!("{prefix}{group}")),
                Some(Value::Array(list)) => {
                    for group in list {
                        let group =
                            group.as_str().ok_or_else(|| invalid(format!("{name} holds no strings")))?;
                        groups.push(format!("{prefix}{group}"));
                    }
                }
                Some(_) => return Err(invalid(format!("{name} is neither a string nor a list"))),
            }
        }
        let mut user = UserInfo::new(format!("{prefix}{username}"), groups);
        if let Some(name) = &self.issuer.uid {
            let uid = text(name).ok_or_else(|| invalid(format!("there is no claim {name}")))?;
            uid.clone_into(&mut user.uid);
        }
        if let Some(jti) = text("jti").filter(|jti| !jti.is_empty()) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(key, vec![format!("JTI={jti}")]);
        }
        Ok(user)
    }
}

#[async_trait]
impl TokenVerifier for Oidc {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        // Who claims to have signed decides whether it is ours to judge.
        if claimed_issuer(token).as_deref() != Some(self.issuer.url.as_str()) {
            return Ok(None);
        }
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(format!("OIDC: {error}"));
        let header = jsonwebtoken::decode_header(token).map_err(|error| invalid(&error))?;
        if !self.issuer.algorithms.contains(&header.alg) {
            return Err(invalid(&format!("signatures by {:?} are not accepted", header.alg)));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer.url]);
        validation.set_audience(&self.issuer.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let keys = self.keys.named(header.kid.as_deref()).await?;
        let mut failure = invalid(&"it is signed with an unknown key");
        for key in keys.iter().filter(|key| key.fits(header.alg)) {
            match jsonwebtoken::decode::<Value>(token, &key.decoding, &validation) {
                Ok(found) => {
                    let user = self.user(&found.claims)?;
                    return Ok(Some(Verified { user, audiences: audiences.to_vec() }));
                }
                Err(error) => failure = invalid(&error),
            }
        }
        Err(failure)
    }

    /// Its audiences are its own; to the API server's others its tokens say nothing.
    fn knows_audiences(&self) -> bool {
        false
    }
}
