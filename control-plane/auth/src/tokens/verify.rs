//! Verifying service-account tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use skep_api::user::UserInfo;

use super::claims::{Claims, Reference};
use super::{Signer, now};
use crate::authentication::Error;
use crate::authentication::bearer::{TokenVerifier, Verified};

/// The kinds a token can hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundObject {
    /// The account itself.
    ServiceAccount,
    /// A pod.
    Pod,
    /// A secret.
    Secret,
    /// A node.
    Node,
}

/// An object as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its uid.
    pub uid: String,
    /// When its deletion began, in seconds since 1970.
    pub deleted: Option<u64>,
}

/// Are the objects a token hangs on still there. Implemented over the registry's cache.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// The object, `None` when it is gone; `namespace` is empty for nodes. The error is for the log.
    async fn seen(&self, kind: BoundObject, namespace: &str, name: &str) -> Result<Option<Seen>, String>;
}

/// What is being deleted is still good for so long: a pod needs its token while it ends.
const DELETION_GRACE: u64 = 60;

/// Verifies the tokens a [`Signer`] made.
pub struct ServiceAccountVerifier<L> {
    signer: Arc<Signer>,
    lookup: L,
}

impl<L: Lookup> ServiceAccountVerifier<L> {
    /// Verifies with the signer's key, and looks bound objects up.
    pub fn new(signer: Arc<Signer>, lookup: L) -> Self {
        Self { signer, lookup }
    }

    async fn alive(&self, kind: BoundObject, namespace: &str, wanted: &Reference) -> Result<(), Error> {
        let gone = |why: &str| Error::Invalid(format!("{kind:?} {namespace}/{}: {why}", wanted.name));
        let seen = self.lookup.seen(kind, namespace, &wanted.name).await.map_err(Error::Unavailable)?;
        let seen = seen.ok_or_else(|| gone("is gone"))?;
        if !wanted.uid.is_empty() && seen.uid != wanted.uid {
            return Err(gone("is another one now"));
        }
        let grace = if kind == BoundObject::ServiceAccount { 0 } else { DELETION_GRACE };
        if seen.deleted.is_some_and(|at| at + grace < now()) {
            return Err(gone("is being deleted"));
        }
        Ok(())
    }
}

#[async_trait]
impl<L: Lookup> TokenVerifier for ServiceAccountVerifier<L> {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        // Who claims to have signed decides whether it is ours to judge.
        let issuers = &self.signer.issuers;
        if !claimed_issuer(token).is_some_and(|issuer| issuers.contains(&issuer)) {
            return Ok(None);
        }
        let claims: Claims = self.signer.check(token, |validation| validation.set_issuer(issuers))?;
        let fitting: Vec<String> = audiences.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if fitting.is_empty() {
            return Err(Error::Invalid("the token is for other audiences".into()));
        }
        let subject = &claims.kubernetes;
        let namespace = &subject.namespace;
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", subject.serviceaccount.name) {
            return Err(Error::Invalid("the token's subject and account differ".into()));
        }
        self.alive(BoundObject::ServiceAccount, namespace, &subject.serviceaccount).await?;
        match (&subject.pod, &subject.secret, &subject.node) {
            (Some(pod), _, _) => self.alive(BoundObject::Pod, namespace, pod).await?,
            (None, Some(secret), _) => self.alive(BoundObject::Secret, namespace, secret).await?,
            (None, None, Some(node)) => self.alive(BoundObject::Node, "", node).await?,
            (None, None, None) => {}
        }
        Ok(Some(Verified { user: user(&claims), audiences: fitting }))
    }
}

pub(crate) fn claimed_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

fn user(claims: &Claims) -> UserInfo {
    let subject = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        put("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(pod) = &subject.pod {
        put("pod-name", &pod.name);
        put("pod-uid", &pod.uid);
    }
    if let Some(node) = &subject.node {
        put("node-name", &node.name);
        put("node-uid", &node.uid);
    }
    let groups =
        ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", subject.namespace)];
    UserInfo { uid: subject.serviceaccount.uid.clone(), extra, ..UserInfo::new(&claims.sub, groups) }
}
