//! Encryption at rest: the option, and following its file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use futures::future::BoxFuture;
use skep_apiserver::health::Check;
use skep_auth::configuration::{Reloads, follow};
use skep_registry::kinds;
use skep_storage::encryption::Config;
use skep_storage::{Encrypted, Storage};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::read;

/// What is encrypted before it is stored.
#[derive(Args, Clone, Debug)]
pub(crate) struct Encryption {
    /// An EncryptionConfiguration: which resources are encrypted with which keys. Changes of the file are
    /// followed while the server runs.
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
}

fn parse(path: &Path, text: &str) -> Result<Config> {
    Config::parse(text).with_context(|| path.display().to_string())
}

impl Encryption {
    /// The store as the API server sees it.
    pub(super) async fn wrap(
        &self,
        storage: Arc<dyn Storage>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Result<(Arc<dyn Storage>, Option<Wrapped>)> {
        let Some(path) = &self.encryption_provider_config else { return Ok((storage, None)) };
        let text = read(path)?;
        let core = kinds::TABLE.iter().filter(|row| row.group.is_empty()).map(|row| row.plural.to_owned());
        let store = Encrypted::open(storage, parse(path, &text)?, core)
            .await
            .context("opening what is encrypted in the store")?;
        let stale = store.stale_values();
        if stale > 0 {
            tracing::info!(
                stale,
                "values are encrypted with an older key; they change with their next update"
            );
        }
        let reloads = Arc::new(Reloads::default());
        let followed = follow(path.clone(), text, Arc::clone(&reloads), {
            let (path, store) = (path.clone(), Arc::clone(&store));
            async move |text| {
                let config = parse(&path, text).map_err(|error| format!("{error:#}"))?;
                // One that can't open what is stored is refused.
                store.reload(config).await.map_err(|error| error.to_string())
            }
        });
        for work in [Box::pin(followed) as BoxFuture<'static, ()>, Box::pin(Arc::clone(&store).keep())] {
            let cancel = cancel.child_token();
            tasks.spawn(async move { cancel.run_until_cancelled(work).await });
        }
        let watched = Arc::clone(&store);
        let passes = move || -> BoxFuture<'static, Result<(), String>> {
            let store = Arc::clone(&watched);
            Box::pin(async move { store.health().await })
        };
        let check = Check { name: "kms-providers", passes: Arc::new(passes) };
        Ok((store, Some(Wrapped { reloads, check })))
    }
}

/// What else there is to know of an encrypted store.
pub(super) struct Wrapped {
    /// How the following of its configuration goes.
    pub(super) reloads: Arc<Reloads>,
    /// How the KMS plug-ins are.
    pub(super) check: Check,
}
