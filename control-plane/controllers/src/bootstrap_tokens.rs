//! Bootstrap tokens: what the cluster publishes about itself is signed with each of them, and those that
//! have ended are removed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use skep_auth::bootstrap_token::{SIGNATURE_PREFIX, Stored};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};

/// Where the cluster says who it is.
pub(crate) const NAMESPACE: &str = "kube-public";
pub(crate) const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";

/// The controller. Keys are Secrets, and the ConfigMap.
pub(crate) struct BootstrapTokens {
    client: Client,
    tokens: Store<Secret>,
    info: Store<ConfigMap>,
    queue: WorkQueue<Key>,
}

fn read(secret: &Secret) -> Option<Stored> {
    Stored::read(&serde_json::to_value(secret).ok()?)
}

/// The data of the ConfigMap with a signature for each token; `None` when it has them. A signature that
/// is right stays.
fn signed(
    data: &BTreeMap<String, String>,
    tokens: &[Stored],
    now: Timestamp,
) -> Option<BTreeMap<String, String>> {
    let kubeconfig = data.get(KUBECONFIG)?;
    let mut next: BTreeMap<String, String> = data
        .iter()
        .filter(|(key, _)| !key.starts_with(SIGNATURE_PREFIX))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    for stored in tokens.iter().filter(|stored| stored.signing && !stored.expired(now)) {
        let key = format!("{SIGNATURE_PREFIX}{}", stored.token.id);
        match data.get(&key).filter(|signature| stored.token.verify(kubeconfig, signature)) {
            Some(signature) => {
                next.insert(key, signature.clone());
            }
            None => match stored.token.sign(kubeconfig) {
                Ok(signature) => {
                    next.insert(key, signature);
                }
                Err(error) => tracing::warn!(%error, token = stored.token.id, "signing failed"),
            },
        }
    }
    (next != *data).then_some(next)
}

impl BootstrapTokens {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.bootstrap_tokens, &queue);
        enqueue_for(&mut sources.bootstrap_tokens, &queue, |_| vec![Key::new(NAMESPACE, NAME)]);
        enqueue_self(&mut sources.cluster_info, &queue);
        Self {
            client: client.clone(),
            tokens: sources.bootstrap_tokens.store(),
            info: sources.cluster_info.store(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("bootstrap-tokens", &self.queue, 1, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let now = Timestamp::now();
        if key.namespace == NAMESPACE {
            return self.sign(now).await;
        }
        let Some(secret) = self.tokens.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let Some(end) = read(&secret).and_then(|stored| stored.expiration) else { return Ok(Next::Wait) };
        if end > now {
            let left = end.duration_since(now).try_into().unwrap_or_default();
            return Ok(Next::After(left));
        }
        let params = DeleteParams::uid(secret.metadata.uid.clone().unwrap_or_default());
        match self.client.namespaced::<Secret>(&key.namespace).delete(&key.name, &params).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => {
                tracing::info!(secret = key.name, "a bootstrap token has ended");
                Ok(Next::Wait)
            }
        }
    }

    async fn sign(&self, now: Timestamp) -> Result<Next, Error> {
        let Some(map) = self.info.get(NAMESPACE, NAME) else { return Ok(Next::Wait) };
        let tokens: Vec<Stored> = self.tokens.list().iter().filter_map(|secret| read(secret)).collect();
        let Some(data) = map.data.as_ref().and_then(|data| signed(data, &tokens, now)) else {
            return Ok(Next::Wait);
        };
        let mut map = ConfigMap::clone(&map);
        map.data = Some(data);
        self.client.namespaced::<ConfigMap>(NAMESPACE).replace(NAME, &map).await?;
        Ok(Next::Wait)
    }
}

#[cfg(test)]
mod tests {
    use skep_auth::bootstrap_token::Token;

    use super::*;

    #[test]
    fn each_token_that_signs_has_a_signature() {
        let now = Timestamp::now();
        let stored = |token: &Token, expiration: &str| {
            Stored::read(&token.to_secret("", expiration, &[])).expect("a token")
        };
        let (good, ended) = (Token::generate(), Token::generate());
        let tokens = [stored(&good, ""), stored(&ended, "2020-01-01T00:00:00Z")];
        let data = BTreeMap::from([
            ("kubeconfig".to_owned(), "text".to_owned()),
            (format!("{SIGNATURE_PREFIX}{}", ended.id), "old".to_owned()),
        ]);
        let once = signed(&data, &tokens, now).expect("a change");
        assert_eq!(once.len(), 2);
        assert!(good.verify("text", &once[&format!("{SIGNATURE_PREFIX}{}", good.id)]));
        assert_eq!(signed(&once, &tokens, now), None);
        let mut changed = once;
        changed.insert("kubeconfig".to_owned(), "other".to_owned());
        let again = signed(&changed, &tokens, now).expect("a change");
        assert!(good.verify("other", &again[&format!("{SIGNATURE_PREFIX}{}", good.id)]));
        assert_eq!(signed(&BTreeMap::new(), &tokens, now), None);
    }
}
