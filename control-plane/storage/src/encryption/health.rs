//! Keeping the keys of KMS plug-ins current, and saying how the plug-ins are.

use std::sync::{Arc, PoisonError};

use futures::future::join_all;

use super::Encrypted;
use super::kms::{HEALTHY, Kms, UNHEALTHY};

impl Encrypted {
    /// Looks after the KMS plug-ins of the configuration in use; without it writes fail after three minutes.
    /// Ends never: drop it.
    pub async fn keep(self: Arc<Self>) {
        let mut rotations = 0;
        let mut unwell = Vec::new();
        loop {
            let config = self.state.config.load_full();
            let plugins: Vec<&Arc<Kms>> = config.plugins().collect();
            let outcomes = join_all(plugins.iter().map(|kms| kms.probe())).await;
            let wrong: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
            if wrong != unwell {
                match wrong.as_slice() {
                    [] => tracing::info!("the KMS plug-ins are well again"),
                    wrong => tracing::error!(error = wrong.join("; "), "KMS plug-ins are not well"),
                }
            }
            let pause = if wrong.is_empty() { HEALTHY } else { UNHEALTHY };
            unwell = wrong;
            let now: u64 = plugins.iter().map(|kms| kms.rotations()).sum();
            if now != rotations {
                rotations = now;
                self.look_again().await;
            }
            tokio::select! {
                // Cancel safe: both only wait.
                () = tokio::time::sleep(pause) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Finds what another key than the one in use wrote.
    async fn look_again(&self) {
        let config = self.state.config.load_full();
        match self.survey(&config).await {
            Ok(stale) => {
                tracing::info!(stale = stale.len(), "values are encrypted with an older key");
                *self.state.stale.lock().unwrap_or_else(PoisonError::into_inner) = stale;
            }
            Err(error) => tracing::warn!(%error, "what an older key encrypted could not be counted"),
        }
    }

    /// How the KMS plug-ins are, each asked unless that was done a moment ago; no plug-ins are well. The
    /// error says what is wrong.
    pub async fn health(&self) -> Result<(), String> {
        let config = self.state.config.load_full();
        let outcomes = join_all(config.plugins().map(|kms| kms.health())).await;
        let wrong: Vec<String> = outcomes
            .into_iter()
            .enumerate()
            .filter_map(|(index, outcome)| outcome.err().map(|why| format!("kms-provider-{index}: {why}")))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
    }

    /// The names of the KMS plug-ins.
    pub fn plugins(&self) -> Vec<String> {
        self.state.config.load().plugins().map(|kms| kms.name().to_owned()).collect()
    }
}
