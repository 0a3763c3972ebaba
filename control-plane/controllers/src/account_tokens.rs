//! Secrets of type `kubernetes.io/service-account-token`: each gets the token of its account, and goes
//! with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use skep_auth::tokens::{Reference, Signer};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

/// The type of the Secrets.
pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// The controller. Keys are Secrets.
pub(crate) struct AccountTokens {
    client: Client,
    signer: Option<Arc<Signer>>,
    ca_pem: String,
    secrets: Store<Secret>,
    accounts: Store<ServiceAccount>,
    queue: WorkQueue<Key>,
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// What a Secret lacks: the fields to set, and whether it needs a token.
fn missing(secret: &Secret, uid: &str, ca_pem: &str) -> (BTreeMap<String, ByteString>, bool) {
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let has = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let mut fields = BTreeMap::new();
    for (key, wanted) in [("ca.crt", ca_pem), ("namespace", namespace.as_str())] {
        if has(key).is_none_or(|value| value.0 != wanted.as_bytes()) {
            fields.insert(key.to_owned(), ByteString(wanted.as_bytes().to_vec()));
        }
    }
    let token = has("token").is_none_or(|token| token.0.is_empty()) || annotation(secret, UID) != uid;
    (fields, token)
}

impl AccountTokens {
    pub(crate) fn new(
        client: &Client,
        signer: Option<Arc<Signer>>,
        ca_pem: &str,
        sources: &mut Sources,
    ) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.account_tokens, &queue);
        let secrets = sources.account_tokens.store();
        let all = secrets.clone();
        enqueue_for(&mut sources.service_accounts, &queue, move |account: &Arc<ServiceAccount>| {
            let meta = &account.metadata;
            let of_account = all.list().into_iter().filter(|secret| {
                secret.metadata.namespace == meta.namespace
                    && Some(annotation(secret, ACCOUNT)) == meta.name.as_deref()
            });
            of_account.map(|secret| Key::of(&secret.metadata)).collect()
        });
        Self {
            client: client.clone(),
            signer,
            ca_pem: ca_pem.to_owned(),
            secrets,
            accounts: sources.service_accounts.store(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("service-account-tokens", &self.queue, 2, cancel, |key| self.sync(key))
            .await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(signer) = &self.signer else { return Ok(Next::Wait) };
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        if secret.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let api = self.client.namespaced::<Secret>(&key.namespace);
        let name = annotation(&secret, ACCOUNT);
        let account = match self.accounts.get(&key.namespace, name) {
            Some(account) => Some(ServiceAccount::clone(&account)),
            // The store may be behind: ask before anything is deleted.
            None => self.client.namespaced::<ServiceAccount>(&key.namespace).get_opt(name).await?,
        };
        let uid = account.as_ref().and_then(|account| account.metadata.uid.clone()).unwrap_or_default();
        let claimed = annotation(&secret, UID);
        if account.is_none() || (!claimed.is_empty() && claimed != uid) {
            tracing::info!(secret = %key, account = name, "the account of a token is gone");
            let params = DeleteParams::uid(secret.metadata.uid.clone().unwrap_or_default());
            return match api.delete(&key.name, &params).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(Next::Wait),
            };
        }
        let (mut fields, needs_token) = missing(&secret, &uid, &self.ca_pem);
        if needs_token {
            let account = Reference { name: name.to_owned(), uid: uid.clone() };
            match signer.issue_for_secret(&key.namespace, &account, &key.name) {
                Ok(token) => {
                    fields.insert("token".to_owned(), ByteString(token.into_bytes()));
                }
                Err(error) => {
                    tracing::error!(%error, secret = %key, "a token could not be signed");
                    return Ok(Next::Wait);
                }
            }
        }
        if fields.is_empty() {
            return Ok(Next::Wait);
        }
        let mut secret = Secret::clone(&secret);
        secret.data.get_or_insert_with(BTreeMap::new).extend(fields);
        secret.metadata.annotations.get_or_insert_with(BTreeMap::new).insert(UID.to_owned(), uid);
        api.replace(&key.name, &secret).await?;
        Ok(Next::Wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gets_what_it_lacks() {
        let mut secret = Secret::default();
        secret.metadata.namespace = Some("a".to_owned());
        let (fields, token) = missing(&secret, "u1", "ca");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["ca.crt", "namespace"]);
        assert!(token);
        secret.data = Some(fields);
        secret.data.get_or_insert_default().insert("token".to_owned(), ByteString(b"t".to_vec()));
        secret.metadata.annotations = Some(BTreeMap::from([(UID.to_owned(), "u1".to_owned())]));
        let (fields, token) = missing(&secret, "u1", "ca");
        assert!(fields.is_empty() && !token);
        assert!(missing(&secret, "u2", "ca").1, "another account of that name");
        assert_eq!(missing(&secret, "u1", "new").0.len(), 1);
    }
}
