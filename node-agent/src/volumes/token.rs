//! Service-account tokens bound to their pod: asked for once, and anew before they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use skep_client::Client;
use tokio::time::Instant;

/// A token is renewed when this part of its life is over (as upstream's kubelet does).
const RENEW_AFTER: f64 = 0.8;
/// And in any case when it is this old.
const RENEW_AT_LATEST: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_SECONDS: i64 = 3600;

/// Pod uid, audience, life.
type Key = (String, String, i64);

struct Known {
    token: String,
    renew_at: Instant,
}

/// The tokens of this node's pods. Lives in memory only: after a restart pods get new ones.
#[derive(Clone)]
pub(super) struct Tokens {
    client: Client,
    known: Arc<Mutex<HashMap<Key, Known>>>,
}

impl Tokens {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Arc::default() }
    }

    /// The token for one projection of a pod.
    pub(super) async fn get(
        &self,
        pod: &Pod,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<String, skep_client::Error> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let audience = wanted.audience.clone().unwrap_or_default();
        let seconds = wanted.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (uid.clone(), audience.clone(), seconds);
        let now = Instant::now();
        if let Some(known) = self.lock().get(&key).filter(|known| known.renew_at > now) {
            return Ok(known.token.clone());
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: Some(uid),
                }),
            }),
            ..TokenRequest::default()
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let api = self.client.namespaced::<ServiceAccount>(namespace);
        let answer: TokenRequest = api.create_subresource(account, "token", &request).await?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).mul_f64(RENEW_AFTER);
        let renew_at = now + life.min(RENEW_AT_LATEST);
        self.lock().insert(key, Known { token: token.clone(), renew_at });
        Ok(token)
    }

    /// Forgets the tokens of a pod.
    pub(super) fn forget(&self, uid: &str) {
        self.lock().retain(|(own, _, _), _| own != uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
