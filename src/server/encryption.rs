//! Encryption at rest: the option, and following its file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use skep_registry::kinds;
use skep_storage::encryption::Config;
use skep_storage::{Encrypted, Storage};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::read;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(30);

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
    ) -> Result<Arc<dyn Storage>> {
        let Some(path) = &self.encryption_provider_config else { return Ok(storage) };
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
        tasks.spawn(follow(path.clone(), text, Arc::clone(&store), cancel.child_token()));
        Ok(store)
    }
}

/// Uses what the file says when it changes. A configuration that can't open what is stored is refused,
/// and the one before stays.
async fn follow(path: PathBuf, mut current: String, store: Arc<Encrypted>, cancel: CancellationToken) {
    // Cancel safe: a configuration is used whole or not at all.
    while cancel.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let text = match tokio::fs::read_to_string(&path).await {
            Ok(text) if text == current => continue,
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the encryption configuration can't be read");
                continue;
            }
        };
        current = text;
        let outcome = match parse(&path, &current) {
            Ok(config) => store.reload(config).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => tracing::info!("the encryption configuration has changed"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the encryption configuration is not used");
            }
        }
    }
}
