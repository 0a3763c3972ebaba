//! Bearers of OpenID Connect id tokens: issued and signed by somebody else, whose keys are fetched,
//! kept, and fetched again when a token names one that is new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;
use skep_webhook::{Client, Trust};
use tokio::time::Instant;

use super::Error;
use super::bearer::{TokenVerifier, Verified};
use crate::tokens::claimed_issuer;

pub use expression::Expression;
use keys::Keys;

mod expression;
mod keys;
mod user;

/// Clocks of issuers may differ by this.
const LEEWAY: u64 = 10;
/// Between two tries to fetch the keys of a new issuer.
const PAUSE: Duration = Duration::from_secs(5);

/// A claim, and what is put before its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// The prefix.
    pub prefix: String,
}

/// Where a part of the user comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A claim, as it is.
    Claim(Claim),
    /// What an expression makes of the claims.
    Expression(Expression),
}

impl Source {
    /// A claim with a prefix before its value.
    pub fn claim(name: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self::Claim(Claim { name: name.into(), prefix: prefix.into() })
    }
}

/// What must hold of the claims, or of the user made of them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The condition.
    pub expression: Expression,
    /// What is said when it does not hold.
    pub message: String,
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
    pub username: Source,
    /// The user's groups.
    pub groups: Option<Source>,
    /// The user's uid.
    pub uid: Option<Source>,
    /// Further values of the user, by key.
    pub extra: Vec<(String, Expression)>,
    /// Claims that must have these values.
    pub required: BTreeMap<String, String>,
    /// What must hold of the claims.
    pub claim_rules: Vec<Rule>,
    /// What must hold of the user.
    pub user_rules: Vec<Rule>,
    /// Signatures that are accepted.
    pub algorithms: Vec<Algorithm>,
}

impl Issuer {
    /// An issuer whose server the system trusts, of whose claims only the user's name is read.
    pub fn new(url: impl Into<String>, audiences: Vec<String>, username: Source) -> Self {
        Self {
            url: url.into(),
            discovery_url: None,
            trust: Trust::System,
            audiences,
            username,
            groups: None,
            uid: None,
            extra: Vec::new(),
            required: BTreeMap::new(),
            claim_rules: Vec::new(),
            user_rules: Vec::new(),
            algorithms: ALGORITHMS.to_vec(),
        }
    }
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
}

/// Several issuers, exchangeable while tokens are verified: each token is judged by one set as a whole.
#[derive(Default)]
pub struct Issuers(ArcSwap<Vec<Oidc>>);

impl Issuers {
    /// These issuers; their keys are fetched when they are needed.
    pub fn new(issuers: Vec<Issuer>, client: &Client) -> Arc<Self> {
        let verifiers = issuers.into_iter().map(|issuer| Oidc::new(issuer, client.clone())).collect();
        Arc::new(Self(ArcSwap::from_pointee(verifiers)))
    }

    /// From now on it is these, provided that the keys of all of them can be fetched within a time.
    pub async fn replace(
        &self,
        issuers: Vec<Issuer>,
        client: &Client,
        patience: Duration,
    ) -> Result<(), Error> {
        let verifiers: Vec<Oidc> =
            issuers.into_iter().map(|issuer| Oidc::new(issuer, client.clone())).collect();
        let end = Instant::now() + patience;
        for verifier in &verifiers {
            while let Err(error) = verifier.keys.ready().await {
                if Instant::now() + PAUSE >= end {
                    let issuer = &verifier.issuer.url;
                    return Err(Error::Unavailable(format!("the issuer {issuer:?}: {error}")));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.0.store(Arc::new(verifiers));
        Ok(())
    }
}

#[async_trait]
impl TokenVerifier for Issuers {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        let verifiers = self.0.load_full();
        let Some(issuer) = claimed_issuer(token) else { return Ok(None) };
        match verifiers.iter().find(|verifier| verifier.issuer.url == issuer) {
            Some(verifier) => verifier.verify(token, audiences).await,
            None => Ok(None),
        }
    }

    fn knows_audiences(&self) -> bool {
        false
    }
}

#[async_trait]
impl TokenVerifier for Oidc {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        // Who claims to have signed decides whether it is ours to judge.
        if claimed_issuer(token).as_deref() != Some(self.issuer.url.as_str()) {
            return Ok(None);
        }
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(format!("oidc: {error}"));
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
                    let user = user::of(&self.issuer, &found.claims).map_err(|why| invalid(&why))?;
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
