//! Service-account tokens bound to their pod: asked for once, and anew before they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use skep_client::Client;
use tokio::time::Instant;

use super::payload::File;

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

/// The file with a token. It belongs to the user of the pod's containers where they have one in common, and nobody
/// else may read it then but the pod's group (KEP-1205).
pub(super) fn file(pod: &Pod, token: String, default_mode: u32) -> File {
    let owner = common_user(pod);
    let mode = if owner.is_some() || super::group(pod).is_some() { 0o600 } else { default_mode };
    File { bytes: token.into_bytes(), mode, owner }
}

/// The user that all containers of a pod run as.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    let contexts = containers
        .map(|container| &container.security_context)
        .chain(ephemeral.map(|container| &container.security_context));
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = contexts.map(|own| own.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::{Json, Router};
    use serde_json::{Value, json};
    use skep_api::user::UserInfo;

    use super::*;

    /// Holds AU-07.
    #[tokio::test(start_paused = true)]
    async fn a_token_is_exchanged_before_it_expires() {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let router = Router::new().fallback(move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            let status = json!({"token": number.to_string(), "expirationTimestamp": "2026-01-01T00:00:00Z"});
            async move { Json(json!({"spec": {"audiences": []}, "status": status})) }
        });
        let tokens = Tokens::new(Client::in_process(router, UserInfo::default()));
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}}))
            .expect("a pod");
        let wanted = ServiceAccountTokenProjection { expiration_seconds: Some(600), ..Default::default() };
        let mut seen = Vec::new();
        for _ in 0..3 {
            for seconds in [0, 479, 2] {
                tokio::time::advance(Duration::from_secs(seconds)).await;
                seen.push(tokens.get(&pod, &wanted).await.expect("a token"));
            }
        }
        assert_eq!(seen, ["0", "0", "1", "1", "1", "2", "2", "2", "3"]);
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    fn of(context: &Value, containers: &[Value]) -> (u32, Option<u32>) {
        let pod = json!({"spec": {"securityContext": context, "containers": containers}});
        let file = file(&serde_json::from_value(pod).expect("a pod"), "t".to_owned(), 0o644);
        (file.mode, file.owner)
    }

    #[test]
    fn a_token_belongs_to_the_user_of_all_containers() {
        let (none, own) = (json!({"name": "a"}), json!({"name": "b", "securityContext": {"runAsUser": 7}}));
        let both = [none.clone(), own.clone()];
        assert_eq!(of(&json!({}), std::slice::from_ref(&none)), (0o644, None));
        assert_eq!(of(&json!({"runAsUser": 5}), std::slice::from_ref(&none)), (0o600, Some(5)));
        assert_eq!(of(&json!({"runAsUser": 7}), &both), (0o600, Some(7)));
        assert_eq!(of(&json!({"runAsUser": 5}), &both), (0o644, None));
        assert_eq!(of(&json!({}), &both), (0o644, None));
        assert_eq!(of(&json!({"fsGroup": 9}), &both), (0o600, None));
    }
}
