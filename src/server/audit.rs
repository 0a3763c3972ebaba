//! The audit log: its options, and starting its back ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use skep_apiserver::audit::{Auditor, LogOptions, WebhookOptions, post, write_log};
use skep_auth::audit::Policy;
use skep_webhook::Client;
use tokio_util::task::TaskTracker;

use super::read;

const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is written down of requests, and where.
#[derive(Args, Clone, Debug)]
pub(crate) struct Audit {
    /// A Policy of audit.k8s.io/v1: how much of which request is written down.
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// Write events to this file, a line of JSON each; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Turn the file over when it has so many megabytes; 0 is never.
    #[arg(long, value_name = "MB", default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Keep old files for so many days; 0 is for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u32,
    /// Keep so many old files; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Post events to the webhook that this kubeconfig file describes.
    #[arg(long, value_name = "FILE")]
    audit_webhook_config_file: Option<PathBuf>,
    /// No more events in one post.
    #[arg(long, value_name = "N", default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    /// No event waits longer than so many seconds for others.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    audit_webhook_batch_max_wait: u64,
}

impl Audit {
    /// The auditor, its back ends running as tasks. They end when the auditor is gone and everything is
    /// written.
    pub(super) fn start(&self, client: &Client, tasks: &TaskTracker) -> Result<Option<Arc<Auditor>>> {
        let wanted = self.audit_log_path.is_some() || self.audit_webhook_config_file.is_some();
        let Some(path) = &self.audit_policy_file else {
            if wanted {
                bail!("an audit log needs --audit-policy-file");
            }
            return Ok(None);
        };
        let policy = Policy::parse(&read(path)?).with_context(|| path.display().to_string())?;
        let mut auditor = Auditor::new(policy);
        if let Some(path) = &self.audit_log_path {
            let options = LogOptions {
                path: path.clone(),
                max_bytes: self.audit_log_maxsize * MEGABYTE,
                max_age: DAY * self.audit_log_maxage,
                max_files: self.audit_log_maxbackup,
            };
            let write = write_log(options, auditor.sink("log"))
                .with_context(|| format!("opening the audit log {}", path.display()))?;
            tasks.spawn_blocking(write);
        }
        if let Some(path) = &self.audit_webhook_config_file {
            let endpoint = skep_webhook::read_kubeconfig(path)?;
            let options = WebhookOptions {
                max_events: self.audit_webhook_batch_max_size,
                max_wait: Duration::from_secs(self.audit_webhook_batch_max_wait),
                ..WebhookOptions::default()
            };
            tasks.spawn(post(client.clone(), endpoint, options, auditor.sink("webhook")));
        }
        Ok(Some(Arc::new(auditor)))
    }
}
