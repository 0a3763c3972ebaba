//! Images for containers: by policy, each image pulled by one job at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use skep_client::Client;
use skep_runtime::{Error, Image, Keyring, Reference, Runtime};

/// Who waits for which image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulls {
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("couldn't parse image name \"{name}\": {source}")]
    Name { name: String, source: Error },
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    Never(String),
    #[error("failed to pull image \"{name}\": {source}")]
    Pull { name: String, source: Error },
    #[error(transparent)]
    Store(Error),
}

impl PullError {
    /// The reason in the container's status.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Name { .. } => "InvalidImageName",
            Self::Never(_) => "ErrImageNeverPull",
            Self::Pull { .. } | Self::Store(_) => "ErrImagePull",
        }
    }
}

/// An image, and whether it was fetched for this.
pub(crate) struct Got {
    pub image: Image,
    pub pulled: bool,
}

impl Pulls {
    /// The image, pulled if the policy wants it. `pulling` is called before a pull begins.
    pub(crate) async fn get(
        &self,
        runtime: &Runtime,
        client: &Client,
        pod: &Pod,
        name: &str,
        policy: &str,
        pulling: impl Fn(),
    ) -> Result<Got, PullError> {
        let reference =
            Reference::parse(name).map_err(|source| PullError::Name { name: name.to_owned(), source })?;
        let present = || async { runtime.image(&reference).await.map_err(PullError::Store) };
        if policy != "Always"
            && let Some(image) = present().await?
        {
            return Ok(Got { image, pulled: false });
        }
        if policy == "Never" {
            return Err(PullError::Never(name.to_owned()));
        }
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Those nobody holds are forgotten now and then, so the map stays small.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(reference.to_string()).or_default().clone()
        };
        let _one = lock.lock().await;
        if policy != "Always"
            && let Some(image) = present().await?
        {
            return Ok(Got { image, pulled: false });
        }
        pulling();
        let keyring = keyring(client, pod).await;
        let pulled = runtime.pull(&reference, &keyring).await;
        let image = pulled.map_err(|source| PullError::Pull { name: name.to_owned(), source })?;
        Ok(Got { image, pulled: true })
    }
}

/// The pod's pull secrets and those of its service account. One that cannot be read is left out: the
/// registry decides whether it was needed.
async fn keyring(client: &Client, pod: &Pod) -> Keyring {
    let mut keyring = Keyring::default();
    let spec = skep_agent_core::view::spec(pod);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut names: Vec<String> = spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()).collect();
    if names.is_empty()
        && let Some(account) = &spec.service_account_name
    {
        match client.namespaced::<ServiceAccount>(namespace).get(account).await {
            Ok(account) => names.extend(account.image_pull_secrets.into_iter().flatten().map(|r| r.name)),
            Err(error) => tracing::debug!(account, %error, "service account for pull secrets"),
        }
    }
    for name in names {
        let secret = match client.namespaced::<Secret>(namespace).get(&name).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(secret = name, %error, "pull secret cannot be read");
                continue;
            }
        };
        let data = secret.data.unwrap_or_default();
        for key in [".dockerconfigjson", ".dockercfg"] {
            if let Some(document) = data.get(key)
                && let Err(error) = keyring.add_docker_config(&document.0)
            {
                // The parser's message may quote the secret: only its place is told.
                tracing::warn!(secret = name, line = error.line(), "pull secret is malformed");
            }
        }
    }
    keyring
}
