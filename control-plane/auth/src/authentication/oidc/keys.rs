//! An issuer's keys: found through its configuration, kept, and fetched again when one is missing.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, Request};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use skep_webhook::{Client, Endpoint, Trust};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::Error;
use super::Issuer;

/// One fetch takes no longer, and brings no more.
const DEADLINE: Duration = Duration::from_secs(10);
const LARGEST: usize = 1 << 20;
/// No more keys are kept of one issuer.
const MOST: usize = 256;
/// Tokens of strangers can name any key: an issuer is not asked more often than this.
const AGAIN: Duration = Duration::from_secs(10);

/// A key.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    rsa: bool,
    pub(super) decoding: DecodingKey,
}

impl Key {
    /// Is it for such signatures.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        let rsa = !matches!(algorithm, Algorithm::ES256 | Algorithm::ES384);
        self.algorithm.map_or(self.rsa == rsa, |own| own == algorithm)
    }
}

/// The keys of an issuer.
pub(super) struct Keys {
    client: Client,
    url: String,
    discovery_url: String,
    trust: Trust,
    known: ArcSwap<Vec<Arc<Key>>>,
    /// When they were fetched last; held while they are fetched, so that one does it for all.
    fetched: Mutex<Option<Instant>>,
}

impl Keys {
    pub(super) fn new(issuer: &Issuer, client: Client) -> Self {
        let below = || format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
        Self {
            client,
            url: issuer.url.clone(),
            discovery_url: issuer.discovery_url.clone().unwrap_or_else(below),
            trust: issuer.trust.clone(),
            known: ArcSwap::default(),
            fetched: Mutex::new(None),
        }
    }

    fn find(&self, id: Option<&str>) -> Vec<Arc<Key>> {
        let known = self.known.load();
        let named = |key: &&Arc<Key>| id.is_none() || key.id.as_deref() == id || key.id.is_none();
        known.iter().filter(named).cloned().collect()
    }

    /// The keys of a name, fetched if there are none.
    pub(super) async fn named(&self, id: Option<&str>) -> Result<Vec<Arc<Key>>, Error> {
        let found = self.find(id);
        if !found.is_empty() {
            return Ok(found);
        }
        let mut fetched = self.fetched.lock().await;
        // Somebody may have fetched them meanwhile.
        let found = self.find(id);
        if !found.is_empty() || fetched.is_some_and(|at| at.elapsed() < AGAIN) {
            return Ok(found);
        }
        *fetched = Some(Instant::now());
        let keys = self.fetch().await.map_err(|why| {
            tracing::warn!(issuer = self.url, why, "the keys of an OIDC issuer can't be fetched");
            Error::Unavailable(format!("the keys of the OIDC issuer: {why}"))
        })?;
        tracing::info!(issuer = self.url, keys = keys.len(), "the keys of an OIDC issuer were fetched");
        self.known.store(Arc::new(keys));
        Ok(self.find(id))
    }

    /// Fetches the keys if they never were.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        let mut fetched = self.fetched.lock().await;
        if !self.known.load().is_empty() {
            return Ok(());
        }
        *fetched = Some(Instant::now());
        let keys = self.fetch().await;
        let keys = keys.map_err(|why| Error::Unavailable(format!("the keys of the OIDC issuer: {why}")))?;
        self.known.store(Arc::new(keys));
        Ok(())
    }

    async fn fetch(&self) -> Result<Vec<Arc<Key>>, String> {
        let configuration = self.get(&self.discovery_url).await?;
        if configuration.get("issuer").and_then(Value::as_str) != Some(self.url.as_str()) {
            return Err("its configuration names another issuer".into());
        }
        let uri = configuration.get("jwks_uri").and_then(Value::as_str);
        let uri = uri.filter(|uri| uri.starts_with("https://"));
        let uri = uri.ok_or("its configuration names no jwks_uri that begins with https://")?;
        let set: JwkSet = serde_json::from_value(self.get(uri).await?).map_err(|error| error.to_string())?;
        Ok(set.keys.iter().filter_map(read).take(MOST).map(Arc::new).collect())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let endpoint = Endpoint::url(url).map_err(|error| error.to_string())?.with_trust(self.trust.clone());
        let mut request = Request::new(skep_webhook::body(Vec::new()));
        *request.method_mut() = Method::GET;
        let answer = self.client.exchange(&endpoint, request, DEADLINE, LARGEST).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("{url} answers {}", answer.status()));
        }
        serde_json::from_slice(answer.body()).map_err(|error| format!("{url}: {error}"))
    }
}

/// Reads a key that verifies signatures; others are left out.
fn read(jwk: &Jwk) -> Option<Key> {
    let for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let rsa = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => true,
        AlgorithmParameters::EllipticCurve(_) => false,
        _ => return None,
    };
    if !for_signatures {
        return None;
    }
    let algorithm = jwk.common.key_algorithm.and_then(|algorithm| algorithm.to_string().parse().ok());
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: jwk.common.key_id.clone(), algorithm, rsa, decoding })
}
